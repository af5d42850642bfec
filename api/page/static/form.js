// The form that makes a machine. It judges nothing itself: the API knows what
// is right, and its words are shown at the field they are about.

import { $, fileName, say, text } from './dom.js';
import { request } from './api.js';

const lengths = { 32: 'md5', 40: 'sha1', 64: 'sha256', 128: 'sha512' }; // hex digits

// setUpForm wires the form; created is called with each new machine.
export function setUpForm(created) {
  const dialog = $('create');
  const form = dialog.querySelector('form');
  const sum = form.elements['image.checksum'];
  $('new').onclick = () => dialog.showModal();
  form.querySelector('[data-close]').onclick = () => dialog.close();
  sum.oninput = () => readSum(sum, form.elements['image.checksum_type']);
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
      say(`${fileName(doc.image.url)} ${doc.id.slice(0, 8)} is accepted`);
      created(doc);
    } catch (error) {
      showError(form, error);
    } finally {
      sending = false;
      form.removeAttribute('aria-busy');
    }
  };
}

// readSum takes "sha256:abc…" apart, and tells the type by the length.
function readSum(input, type) {
  const parts = /^\s*(?:(md5|sha1|sha256|sha512)[:=-])?([0-9a-f]*)\s*$/i.exec(input.value);
  if (!parts) return;
  if (parts[1]) input.value = parts[2];
  const told = parts[1]?.toLowerCase() ?? lengths[parts[2].length];
  if (told) type.value = told;
}

let last = { body: '', key: '' };

// send asks for the machine. The same body has the same key until it is taken:
// asking again after a lost answer makes no second machine.
async function send(form) {
  clearErrors(form);
  const body = JSON.stringify(wanted(form));
  if (body !== last.body) last = { body, key: newKey() };
  const response = await request('POST', '/vms', { body, headers: { 'Idempotency-Key': last.key } });
  last = { body: '', key: '' };
  return response.json();
}

// newKey is random. crypto.randomUUID would ask for https or localhost.
function newKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (b) => b.toString(16).padStart(2, '0')).join('');
}

// wanted is the request's document. Fields left empty are not in it, so that
// the daemon's defaults hold. A number is sent as one, all else as it is.
function wanted(form) {
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
  for (const e of form.querySelectorAll('[data-error]')) text(e, '');
  for (const e of form.querySelectorAll('[aria-invalid]')) e.removeAttribute('aria-invalid');
}

// showError shows a failure at its field, and goes there; one without a field
// is shown on top.
function showError(form, error) {
  let field = (error.field ?? '').replace(/\[.*$/, '');
  if (!field && error.code === 'network-unavailable') field = 'network_type';
  const input = field && form.elements[field];
  text(form.querySelector(`[data-error="${input ? field : ''}"]`), error.message);
  if (!input) return form.querySelector('[data-error=""]').scrollIntoView({ block: 'nearest' });
  input.setAttribute('aria-invalid', 'true');
  const more = input.closest('details');
  if (more) more.open = true;
  input.focus();
}

// offerNetworks disables the networks that this host cannot offer, and says why.
export function offerNetworks(networks) {
  const select = document.forms[0].elements.network_type;
  const missing = [];
  for (const option of select.options) {
    const state = networks[option.value];
    option.disabled = state?.available === false;
    if (option.disabled) missing.push(state.reason);
  }
  text($('h-network'), missing.length ? `Not on this host: ${missing.join('; ')}` : 'nat where not chosen');
}
