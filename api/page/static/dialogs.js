// The dialogs that ask one thing: a confirmation, the token; and the screen.

import { $, clock, pause, text } from './dom.js';
import { request, token, vm } from './api.js';

let answer = () => {};

// confirm asks before what cannot be undone, and returns whether to go on.
// Escape means no, and so does Enter until another button has the focus.
export function confirm({ title, words, yes }) {
  const dialog = $('confirm');
  text($('confirm-title'), title);
  text($('confirm-text'), words);
  text($('confirm-yes'), yes);
  answer(false); // who was asked before this, and has no answer yet
  return new Promise((resolve) => {
    answer = resolve;
    dialog.querySelector('form').onsubmit = (event) => resolve(event.submitter?.value === 'yes');
    dialog.onclose = () => { if (!dialog.open) resolve(false); }; // else it is an earlier closing that is told late
    dialog.showModal();
  });
}

let asking;

// askToken asks for the token until there is one, and returns once it is kept.
// Many requests may ask at once; the person is asked once.
export function askToken() {
  asking ??= new Promise((resolve) => {
    const dialog = $('token');
    const input = $('f-token');
    const error = $('e-token');
    text(error, token.get() ? 'The daemon does not take this token.' : '');
    token.forget();
    input.value = '';
    dialog.oncancel = (e) => e.preventDefault(); // without it there is nothing to see
    dialog.onclose = () => { if (!input.value) dialog.showModal(); };
    dialog.querySelector('form').onsubmit = (e) => {
      e.preventDefault();
      if (!input.value.trim()) return text(error, 'The token is empty.');
      token.set(input.value.trim());
      dialog.onclose = null;
      input.value = '';
      dialog.close();
      asking = undefined;
      resolve();
    };
    dialog.showModal();
  });
  return asking;
}

// screenshot fetches a machine's screen as a blob: URL for img, and frees the
// one before. The token is the reason: an <img> cannot send it.
export async function screenshot(id, img, signal) {
  const response = await request('GET', vm(id, '/screenshot'), { signal });
  const before = img.src;
  img.src = URL.createObjectURL(await response.blob());
  if (before.startsWith('blob:')) URL.revokeObjectURL(before);
}

// watchScreen shows a machine's screen, anew every two seconds until closed.
export async function watchScreen(id, name) {
  const dialog = $('screen');
  const img = $('screen-image');
  const state = $('screen-state');
  const control = new AbortController();
  text($('screen-title'), name);
  text(state, 'Loading');
  img.hidden = true;
  dialog.addEventListener('close', () => control.abort(), { once: true });
  dialog.showModal();
  while (!control.signal.aborted) {
    try {
      await screenshot(id, img, control.signal);
      img.hidden = false;
      img.alt = `Screen of ${name}`;
      text(state, `As of ${clock(Date.now())}`);
    } catch (error) {
      if (control.signal.aborted) return;
      text(state, error.message);
    }
    await pause(2000, control.signal);
  }
}
