// Helpers for the page's elements. They only set text: no code of the page parses HTML.

export const $ = (id) => document.getElementById(id);

// cloneTemplate copies a <template>'s element. It returns the element as node, and its parts by their data-ref.
export function cloneTemplate(template) {
  const node = $(template).content.firstElementChild.cloneNode(true);
  const refs = { node };
  for (const e of node.querySelectorAll('[data-ref]')) refs[e.dataset.ref] = e;
  return refs;
}

// setText sets an element's text, and hides the element if the text is empty. Equal text is not set again, so that a
// selection in it is kept.
export function setText(element, value) {
  if (element.textContent !== value) element.textContent = value;
  element.hidden = value === '';
}

// setFacts fills a list with names and values. It leaves out empty values.
export function setFacts(dl, pairs) {
  const present = pairs.filter(([, value]) => value !== undefined && value !== null && value !== '');
  const json = JSON.stringify(present);
  if (dl.dataset.current === json) return;
  dl.dataset.current = json;
  dl.replaceChildren(...present.map(([name, value]) => {
    const div = document.createElement('div');
    const dt = document.createElement('dt');
    const dd = document.createElement('dd');
    dt.textContent = name;
    dd.textContent = String(value);
    div.append(dt, dd);
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
