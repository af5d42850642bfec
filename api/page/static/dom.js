// Helpers for the page's elements. They only set text: no code of the page parses HTML.

export const $ = (id) => document.getElementById(id);

// cloneTemplate copies a <template>'s element. It returns the element as node, and its parts by their data-ref.
export function cloneTemplate(template) {
  const node = $(template).content.firstElementChild.cloneNode(true);
  const refs = { node };
  for (const e of node.querySelectorAll('[data-ref]')) refs[e.dataset.ref] = e;
  markButtons(node);
  return refs;
}

// While the daemon does not answer, buttons that need it are disabled. They stay focusable, so that the focus is not
// lost, and say why they do nothing.
let online = true;

export function setOnline(value) {
  online = value;
  markButtons(document);
}

function markButtons(root) {
  for (const button of root.querySelectorAll('.needs-daemon')) {
    if (online) button.removeAttribute('aria-disabled'); else button.setAttribute('aria-disabled', 'true');
  }
}

document.addEventListener('click', (event) => {
  if (!event.target.closest('[aria-disabled=true]')) return;
  event.preventDefault();
  event.stopPropagation();
  setStatusMessage('The daemon does not answer. This works again as soon as it does.');
}, { capture: true });

// setText sets an element's text, and hides the element if the text is empty. Equal text is not set again, so that a
// selection in it is kept.
export function setText(element, value) {
  if (element.textContent !== value) element.textContent = value;
  element.hidden = value === '';
}

// showProgress shows how much of a download or an unpacking is done in a <progress> element.
export function showProgress(bar, visible, progress, label) {
  bar.hidden = !visible;
  bar.setAttribute('aria-label', label);
  if (progress?.total) {
    bar.max = progress.total;
    bar.value = Math.min(progress.bytes, progress.total);
  } else {
    bar.removeAttribute('value');
  }
}

// setTime shows a time in an element as text, with the full time as its tooltip.
export function setTime(element, time, text) {
  setText(element, time ? text : '');
  if (element.dateTime !== (time ?? '')) element.dateTime = time ?? '';
  element.title = formatDate(time);
}

// copyText copies text, and shows that on the button for a moment. The clipboard's own interface works only with https
// or localhost.
export async function copyText(button, text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = document.createElement('textarea');
    area.value = text;
    button.after(area);
    area.select();
    document.execCommand('copy');
    area.remove();
    button.focus();
  }
  button.dataset.copied = '';
  setStatusMessage(`Copied ${text}`);
  setTimeout(() => { delete button.dataset.copied; }, 1500);
}

// setList fills a list with entries, and hides it if there are none. Equal entries are not set again.
export function setList(list, entries) {
  list.hidden = entries.length === 0;
  const json = JSON.stringify(entries);
  if (list.dataset.current === json) return;
  list.dataset.current = json;
  list.replaceChildren(...entries.map((entry) => {
    const item = document.createElement('li');
    item.textContent = entry;
    return item;
  }));
}

// setFacts fills a list with names and values. It leaves out empty values.
export function setFacts(dl, pairs) {
  const present = pairs.filter(([, value]) => value !== undefined && value !== null && value !== '');
  const json = JSON.stringify(present.map(([name, value]) => [name, value instanceof Node ? value.textContent : value]));
  if (dl.dataset.current === json) return;
  dl.dataset.current = json;
  dl.replaceChildren(...present.map(([name, value]) => {
    const div = document.createElement('div');
    const dt = document.createElement('dt');
    const dd = document.createElement('dd');
    dt.textContent = name;
    if (value instanceof Node) dd.append(value); else dd.textContent = String(value);
    div.append(dt, dd);
    if (dd.textContent.length > 60) div.className = 'wide';
    return div;
  }));
}

// setStatusMessage makes screen readers read a message about a change.
export const setStatusMessage = (message) => { $('status-message').textContent = message; };

export function formatBytes(bytes) {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let i = 0;
  for (; bytes >= 1024 && i < units.length - 1; i++) bytes /= 1024;
  return `${i === 0 || bytes >= 100 ? Math.round(bytes) : bytes.toFixed(1)} ${units[i]}`;
}

const relativeFormat = new Intl.RelativeTimeFormat('en', { numeric: 'auto' });

// formatRelative returns a time relative to now, for example "2 hours ago".
export function formatRelative(time) {
  const seconds = (new Date(time) - Date.now()) / 1000;
  for (const [unit, length] of [['day', 86400], ['hour', 3600], ['minute', 60]]) {
    if (Math.abs(seconds) >= length) return relativeFormat.format(Math.trunc(seconds / length), unit);
  }
  return seconds > 0 ? 'in less than a minute' : 'just now';
}

// formatAge returns the time since then as briefly as possible, for example "2 h".
export function formatAge(time) {
  const seconds = (Date.now() - new Date(time)) / 1000;
  for (const [unit, length] of [['d', 86400], ['h', 3600], ['min', 60]]) {
    if (seconds >= length) return `${Math.trunc(seconds / length)} ${unit}`;
  }
  return 'now';
}

// timeElement returns an element that shows a time relative to now, with the full time as its tooltip.
export function timeElement(time) {
  const element = document.createElement('time');
  setTime(element, time, formatRelative(time));
  return element;
}

export const plural = (n, noun) => `${n} ${noun}${n === 1 ? '' : 's'}`;

// shortenHashes shortens checksums in a message.
export const shortenHashes = (text) => text.replace(/\b([0-9a-f]{8})[0-9a-f]{24,}\b/gi, '$1…');

export const formatTime = (time) => new Date(time).toLocaleTimeString();
export const formatDate = (time) => (time ? new Date(time).toLocaleString() : '');

// fileName returns the last part of a URL's path, or the whole URL if the path is empty.
export function fileName(url) {
  return url.split(/[?#]/)[0].split('/').filter(Boolean).pop() || url;
}

// sleep resolves after ms, or when signal is aborted.
export function sleep(ms, signal) {
  return new Promise((resolve) => {
    if (signal?.aborted) return resolve();
    const timer = setTimeout(resolve, ms);
    signal?.addEventListener('abort', () => { clearTimeout(timer); resolve(); }, { once: true });
  });
}
