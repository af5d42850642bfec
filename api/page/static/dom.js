// Helpers for what is on the page. Data only ever becomes text: nothing here
// or elsewhere parses HTML.

export const $ = (id) => document.getElementById(id);

// clone copies a <template>'s element. Its parts are found by their data-ref.
export function clone(template) {
  const node = $(template).content.firstElementChild.cloneNode(true);
  const refs = { node };
  for (const e of node.querySelectorAll('[data-ref]')) refs[e.dataset.ref] = e;
  return refs;
}

// text sets an element's text, and hides the element where there is none. What
// stays the same is not touched, so that a selection in it survives.
export function text(element, value) {
  if (element.textContent !== value) element.textContent = value;
  element.hidden = value === '';
}

// facts fills a list with names and values; those without a value are left out.
export function facts(dl, pairs) {
  const there = pairs.filter(([, value]) => value !== undefined && value !== null && value !== '');
  const now = JSON.stringify(there);
  if (dl.dataset.now === now) return;
  dl.dataset.now = now;
  dl.replaceChildren(...there.map(([name, value]) => {
    const div = document.createElement('div');
    const dt = document.createElement('dt');
    const dd = document.createElement('dd');
    dt.textContent = name;
    dd.textContent = String(value);
    div.append(dt, dd);
    return div;
  }));
}

// say tells those who cannot see the page what has changed.
export const say = (words) => { $('say').textContent = words; };

export function size(bytes) {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let i = 0;
  for (; bytes >= 1024 && i < units.length - 1; i++) bytes /= 1024;
  return `${i === 0 || bytes >= 100 ? Math.round(bytes) : bytes.toFixed(1)} ${units[i]}`;
}

const relative = new Intl.RelativeTimeFormat('en', { numeric: 'auto' });

// distance is how far a time is from now, in words.
export function distance(time) {
  const seconds = (new Date(time) - Date.now()) / 1000;
  for (const [unit, length] of [['day', 86400], ['hour', 3600], ['minute', 60]]) {
    if (Math.abs(seconds) >= length) return relative.format(Math.trunc(seconds / length), unit);
  }
  return seconds > 0 ? 'in less than a minute' : 'just now';
}

export const clock = (time) => new Date(time).toLocaleTimeString();
export const moment = (time) => (time ? new Date(time).toLocaleString() : '');

// fileName is the last part of a URL's path, or the URL where it has none.
export function fileName(url) {
  return url.split(/[?#]/)[0].split('/').filter(Boolean).pop() || url;
}

// pause ends after ms, or once signal is aborted.
export function pause(ms, signal) {
  return new Promise((resolve) => {
    if (signal?.aborted) return resolve();
    const timer = setTimeout(resolve, ms);
    signal?.addEventListener('abort', () => { clearTimeout(timer); resolve(); }, { once: true });
  });
}
