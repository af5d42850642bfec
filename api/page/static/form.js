// The form that creates a machine. The daemon validates: the form shows its errors at their fields, and says the most
// frequent ones in plain words.

import { $, fileName, setStatusMessage, setText } from './dom.js';
import { request } from './api.js';
import { rememberRequest } from './requests.js';

const typesByLength = { 32: 'md5', 40: 'sha1', 64: 'sha256', 128: 'sha512' }; // in hex digits

const form = document.querySelector('#create-dialog form');
const field = (name) => form.elements[name];
const value = (name) => field(name).value.trim();

// setUpForm connects the form. It calls onCreated with each new machine's document.
export function setUpForm(onCreated) {
  const dialog = $('create-dialog');
  for (const id of ['new-machine', 'first-machine']) $(id).onclick = () => dialog.showModal();
  form.querySelector('[data-close]').onclick = () => dialog.close();
  field('image.checksum').addEventListener('input', () => parseChecksum(field('image.checksum'), field('image.checksum_type')));
  field('memory').addEventListener('input', parseMemory);
  form.addEventListener('input', (event) => clearError(event.target.name));
  let sending = false;
  form.onsubmit = async (event) => {
    event.preventDefault();
    if (sending) return;
    sending = true;
    form.setAttribute('aria-busy', 'true');
    try {
      const doc = await send();
      dialog.close();
      form.reset();
      setStatusMessage(`${doc.name || fileName(doc.image.url)} ${doc.id.slice(0, 8)} is accepted`);
      onCreated(doc);
    } catch (error) {
      showErrors(error);
    } finally {
      sending = false;
      form.removeAttribute('aria-busy');
    }
  };
}

// openForm shows the form with a request, and with the error if the daemon refused it.
export function openForm(body, error) {
  form.reset();
  for (const [name, v] of flatten(body)) {
    if (name === 'launch_gui') field(name).checked = v;
    else if (name === 'ssh_authorized_keys') field(name).value = v.join('\n');
    else if (field(name)) field(name).value = v ?? '';
  }
  parseMemory();
  $('create-dialog').showModal();
  if (error) showErrors(error);
}

// flatten returns the fields of a request as the form names them.
function flatten(object, path = '') {
  return Object.entries(object).flatMap(([key, v]) => (v && typeof v === 'object' && !Array.isArray(v) ? flatten(v, `${path}${key}.`) : [[path + key, v]]));
}

// parseChecksum accepts checksums such as "sha256:abc…" and lines of sha256sum, and infers the type from the length.
function parseChecksum(input, type) {
  const match = /^\s*(?:(md5|sha1|sha256|sha512)[:=-])?([0-9a-f]*)(?:\s+\*?\S.*)?\s*$/i.exec(input.value);
  if (!match) return;
  const [, prefix, hex] = match;
  const inferred = prefix?.toLowerCase() ?? typesByLength[hex.length];
  if (prefix || inferred) input.value = hex;
  if (inferred) type.value = inferred;
}

// parseMemory moves a unit that was typed with the number, such as "1.5 GiB", to the selector.
function parseMemory() {
  const [, number, unit] = /^\s*([\d.]+)\s*([mg])(?:i|ib)$/i.exec(field('memory').value) ?? [];
  if (!number) return;
  field('memory').value = number;
  field('memory_unit').value = `${unit.toLowerCase()}ib`;
}

let unconfirmed = { body: '', key: '' };

// send creates the machine. It uses the same key for the same body until the request succeeds, so that repeating it
// after a lost answer does not create a second machine.
async function send() {
  clearErrors();
  const q = requestBody();
  const body = JSON.stringify(q);
  if (body !== unconfirmed.body) unconfirmed = { body, key: randomKey() };
  const response = await request('POST', '/vms', { body, headers: { 'Idempotency-Key': unconfirmed.key } });
  unconfirmed = { body: '', key: '' };
  const doc = await response.json();
  rememberRequest(doc.id, q);
  return doc;
}

// randomKey returns a random key. crypto.randomUUID works only with https or localhost.
function randomKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (b) => b.toString(16).padStart(2, '0')).join('');
}

// requestBody returns the request. It leaves out empty fields, so that the daemon's defaults apply. It converts numbers
// and sends everything else unchanged.
function requestBody() {
  const number = (s) => (/^-?\d+(\.\d+)?$/.test(s) ? Number(s) : s);
  const body = {
    image: { url: value('image.url'), checksum: value('image.checksum'), checksum_type: value('image.checksum_type') },
    network_type: value('network_type'),
  };
  for (const name of ['cpus', 'tools_init_timeout', 'expires_in']) if (value(name)) body[name] = number(value(name));
  if (value('name')) body.name = value('name');
  if (value('ready_when.port')) body.ready_when = { port: number(value('ready_when.port')) };
  if (value('memory')) body.memory = /^-?[\d.]+$/.test(value('memory')) ? value('memory') + value('memory_unit') : value('memory');
  if (value('ssh_authorized_keys')) body.ssh_authorized_keys = value('ssh_authorized_keys').split('\n').filter((line) => line.trim());
  if (value('hostname')) body.hostname = value('hostname');
  if (value('user_data')) body.user_data = field('user_data').value;
  if (value('disk')) body.disk = value('disk');
  if (value('callback_url')) body.callback_url = value('callback_url');
  if (value('forward')) body.forward = value('forward').split(/[\s,]+/).filter(Boolean).map(number);
  if (field('launch_gui').checked) body.launch_gui = true;
  return body;
}

// plainErrors returns the most frequent errors by field, in plain words.
function plainErrors() {
  const errors = {};
  if (!value('image.url')) errors['image.url'] = 'Enter the URL of an image.';
  const sum = value('image.checksum');
  const digits = Object.keys(typesByLength).find((n) => typesByLength[n] === value('image.checksum_type'));
  if (!sum) errors['image.checksum'] = 'Enter the checksum of the image.';
  else if (!/^[0-9a-f]*$/i.test(sum)) errors['image.checksum'] = 'A checksum has only the digits 0 to 9 and the letters a to f.';
  else if (sum.length !== Number(digits)) errors['image.checksum'] = `This has ${sum.length} digits. A checksum of the type ${value('image.checksum_type')} has ${digits}.`;
  if (value('ready_when.port') && !/^\d+$/.test(value('ready_when.port'))) errors['ready_when.port'] = 'Enter a port number, such as 22.';
  if (value('cpus') && !/^-?\d+$/.test(value('cpus'))) errors.cpus = 'Enter a whole number.';
  if (/[^\d\s,]/.test(value('forward'))) errors.forward = 'Enter port numbers, such as 22, 8080.';
  return errors;
}

// showErrors shows the daemon's errors at their fields, and those without a field above the form. It focuses the first.
function showErrors(error) {
  const list = error.status === 400 ? [...Object.entries(plainErrors()), ...fieldErrors(error)] : fieldErrors(error);
  for (const [name, message] of list) {
    const place = form.querySelector(`[data-error="${name}"]`) ?? form.querySelector('[data-error=""]');
    if (!place.hidden) continue; // the first one is plainer
    setText(place, message);
    for (const input of form.querySelectorAll(`[name="${name}"]`)) {
      input.setAttribute('aria-invalid', 'true');
      const details = input.closest('details');
      if (details) details.open = true;
    }
  }
  const first = form.querySelector('[aria-invalid]:checked, [aria-invalid]:not([type=radio])');
  if (first) first.focus(); else form.querySelector('[data-error=""]').scrollIntoView({ block: 'nearest' });
}

// fieldErrors returns pairs of the form's field and the message, which need not repeat the API's name of the field.
function fieldErrors(error) {
  const all = error.errors?.length ? error.errors : [error];
  return all.map(({ field: name = '', code, message }) => {
    const known = (name || (code === 'network-unavailable' ? 'network_type' : '')).replace(/\[.*$/, '');
    return [known, known ? message.replace(/^[\w.[\]]+ is .*?; it must/, 'This must') : message];
  });
}

function clearErrors() {
  for (const e of form.querySelectorAll('[data-error]')) setText(e, '');
  for (const e of form.querySelectorAll('[aria-invalid]')) e.removeAttribute('aria-invalid');
}

// clearError removes the error of a field that is being corrected.
function clearError(name) {
  const named = name === 'memory_unit' ? 'memory' : name === 'image.checksum_type' ? 'image.checksum' : name;
  for (const each of [name, named]) {
    const place = form.querySelector(`[data-error="${each}"]`);
    if (place) setText(place, '');
    for (const input of form.querySelectorAll(`[name="${each}"]`)) input.removeAttribute('aria-invalid');
  }
}

// setNetworks disables the networks that are not available on this host, and shows the reason next to each.
export function setNetworks(networks) {
  for (const radio of field('network_type')) {
    const { available = true, reason = '' } = networks[radio.value] ?? {};
    radio.disabled = !available;
    setText($(`h-${radio.value}`), available ? '' : reason);
  }
  if (form.querySelector('[name=network_type]:checked:disabled')) form.querySelector('[name=network_type]:not(:disabled)')?.click();
}
