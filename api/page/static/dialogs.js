// The dialogs for a confirmation, the token and the screen.

import { $, formatTime, setList, setText, sleep } from './dom.js';
import { request, token, vmPath } from './api.js';

let resolvePrevious = () => {};

// confirm asks the user before an action that cannot be undone, and resolves to whether the user agrees. Escape and
// Enter mean no, unless the focus is on the other button.
export function confirm({ title, text, action, list = [] }) {
  const dialog = $('confirm-dialog');
  setText($('confirm-title'), title);
  setText($('confirm-text'), text);
  setText($('confirm-yes'), action);
  setList($('confirm-list'), list);
  resolvePrevious(false); // a previous question that has no answer yet
  return new Promise((resolve) => {
    resolvePrevious = resolve;
    dialog.querySelector('form').onsubmit = (event) => resolve(event.submitter?.value === 'yes');
    dialog.onclose = () => { if (!dialog.open) resolve(false); }; // if it is open, the event is from an earlier closing
    dialog.showModal();
  });
}

let tokenPromise;

// askToken asks for the token and resolves when it is stored. If several requests need it, the user is asked once.
export function askToken() {
  tokenPromise ??= new Promise((resolve) => {
    const dialog = $('token-dialog');
    const input = $('f-token');
    const error = $('e-token');
    setText(error, token.get() ? 'The daemon does not accept this token.' : '');
    token.remove();
    input.value = '';
    dialog.oncancel = (e) => e.preventDefault(); // the page is of no use without the token
    dialog.onclose = () => { if (!input.value) dialog.showModal(); };
    dialog.querySelector('form').onsubmit = (e) => {
      e.preventDefault();
      if (!input.value.trim()) return setText(error, 'The token is empty.');
      token.set(input.value.trim());
      dialog.onclose = null;
      input.value = '';
      dialog.close();
      tokenPromise = undefined;
      resolve();
    };
    dialog.showModal();
  });
  return tokenPromise;
}

// loadScreenshot fetches a machine's screenshot, shows it in img as a blob: URL, and frees the previous one. An <img>
// cannot fetch it, because it cannot send the token.
export async function loadScreenshot(id, img, signal) {
  const response = await request('GET', vmPath(id, '/screenshot'), { signal });
  const previous = img.src;
  img.src = URL.createObjectURL(await response.blob());
  if (previous.startsWith('blob:')) URL.revokeObjectURL(previous);
}

// showScreen shows a machine's screen in a dialog and updates it every two seconds until the dialog is closed.
export async function showScreen(id, name) {
  const dialog = $('screen-dialog');
  const img = $('screen-image');
  const status = $('screen-status');
  const abort = new AbortController();
  setText($('screen-title'), name);
  setText(status, 'Loading');
  img.hidden = true;
  dialog.addEventListener('close', () => abort.abort(), { once: true });
  dialog.showModal();
  while (!abort.signal.aborted) {
    try {
      await loadScreenshot(id, img, abort.signal);
      img.hidden = false;
      img.alt = `Screen of ${name}`;
      setText(status, `Taken at ${formatTime(Date.now())}`);
    } catch (error) {
      if (abort.signal.aborted) return;
      setText(status, error.message);
    }
    await sleep(2000, abort.signal);
  }
}
