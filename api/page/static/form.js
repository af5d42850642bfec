// The form that creates a machine. It does not validate: it shows the API's error at the field that the error names.

import { $, fileName, setStatusMessage, setText } from './dom.js';
import { request } from './api.js';

const typesByLength = { 32: 'md5', 40: 'sha1', 64: 'sha256', 128: 'sha512' }; // in hex digits

// setUpForm connects the form. It calls onCreated with each new machine's document.
export function setUpForm(onCreated) {
  const dialog = $('create-dialog');
  const form = dialog.querySelector('form');
  const checksum = form.elements['image.checksum'];
  $('new-machine').onclick = () => dialog.showModal();
  form.querySelector('[data-close]').onclick = () => dialog.close();
  checksum.oninput = () => parseChecksum(checksum, form.elements['image.checksum_type']);
  let sending = false;
  form.onsubmit = async (event) => {
    event.preventDefault();
    if (sending) return;
    sending = true;
    form.setAttribute('aria-busy', 'true');
    try {
      const doc = await send(form);
      dialog.close();
      form.reset();
      setStatusMessage(`${fileName(doc.image.url)} ${doc.id.slice(0, 8)} is accepted`);
      onCreated(doc);
    } catch (error) {
      showError(form, error);
    } finally {
      sending = false;
      form.removeAttribute('aria-busy');
    }
  };
}

// parseChecksum accepts checksums such as "sha256:abc…", and infers the type from the length.
function parseChecksum(input, type) {
  const match = /^\s*(?:(md5|sha1|sha256|sha512)[:=-])?([0-9a-f]*)\s*$/i.exec(input.value);
  if (!match) return;
  const [, prefix, hex] = match;
  if (prefix) input.value = hex;
  const inferred = prefix?.toLowerCase() ?? typesByLength[hex.length];
  if (inferred) type.value = inferred;
}

let unconfirmed = { body: '', key: '' };

// send creates the machine. It uses the same key for the same body until the request succeeds, so that repeating it
// after a lost answer does not create a second machine.
async function send(form) {
  clearErrors(form);
  const body = JSON.stringify(requestBody(form));
  if (body !== unconfirmed.body) unconfirmed = { body, key: randomKey() };
  const response = await request('POST', '/vms', { body, headers: { 'Idempotency-Key': unconfirmed.key } });
  unconfirmed = { body: '', key: '' };
  return response.json();
}

// randomKey returns a random key. crypto.randomUUID works only with https or localhost.
function randomKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (b) => b.toString(16).padStart(2, '0')).join('');
}

// requestBody returns the request. It leaves out empty fields, so that the daemon's defaults apply. It converts numbers
// and sends everything else unchanged.
function requestBody(form) {
  const value = (name) => form.elements[name].value.trim();
  const number = (s) => (/^-?\d+(\.\d+)?$/.test(s) ? Number(s) : s);
  const body = {
    image: { url: value('image.url'), checksum: value('image.checksum'), checksum_type: value('image.checksum_type') },
    network_type: value('network_type'),
  };
  for (const name of ['cpus', 'tools_init_timeout', 'expires_in']) if (value(name)) body[name] = number(value(name));
  for (const name of ['memory', 'callback_url']) if (value(name)) body[name] = value(name);
  if (value('forward')) body.forward = value('forward').split(/[\s,]+/).filter(Boolean).map(number);
  if (form.elements.launch_gui.checked) body.launch_gui = true;
  return body;
}

function clearErrors(form) {
  for (const e of form.querySelectorAll('[data-error]')) setText(e, '');
  for (const e of form.querySelectorAll('[aria-invalid]')) e.removeAttribute('aria-invalid');
}

// showError shows an error at its field and focuses the field. It shows an error without a field above the form.
function showError(form, error) {
  let field = (error.field ?? '').replace(/\[.*$/, '');
  if (!field && error.code === 'network-unavailable') field = 'network_type';
  const input = field && form.elements[field];
  setText(form.querySelector(`[data-error="${input ? field : ''}"]`), error.message);
  if (!input) return form.querySelector('[data-error=""]').scrollIntoView({ block: 'nearest' });
  input.setAttribute('aria-invalid', 'true');
  const details = input.closest('details');
  if (details) details.open = true;
  input.focus();
}

// setNetworks disables the networks that are not available on this host, and shows the reason.
export function setNetworks(networks) {
  const select = document.forms[0].elements.network_type;
  const reasons = [];
  for (const option of select.options) {
    const network = networks[option.value];
    option.disabled = network?.available === false;
    if (option.disabled) reasons.push(network.reason);
  }
  setText($('h-network'), reasons.length ? `Not available on this host: ${reasons.join('; ')}` : 'Default: nat');
}
