// What the host has: its unpacked images, its health, its limits.

import { $, clone, distance, facts, fileName, say, size, text } from './dom.js';
import { json, request } from './api.js';
import { confirm } from './dialogs.js';
import { offerNetworks } from './form.js';

const rows = new Map();

// refreshImages shows the unpacked images.
export async function refreshImages() {
  const { images } = await json('/images');
  const seen = new Set();
  for (const image of images) {
    const name = `${image.checksum_type}-${image.checksum}`;
    seen.add(name);
    if (!rows.has(name)) rows.set(name, row(name));
    fill(rows.get(name), image);
  }
  for (const [name, r] of rows) if (!seen.has(name)) drop(name, r);
  text($('images-sum'), images.length ? `${size(images.reduce((sum, i) => sum + i.disk_bytes, 0))} on disk` : '');
  $('images-empty').hidden = images.length > 0;
}

function row(name) {
  const r = clone('image');
  r.remove.onclick = () => remove(name, r);
  $('images-list').append(r.node);
  return r;
}

function fill(r, image) {
  text(r.name, fileName(image.url) || image.checksum);
  const used = image.vms === 1 ? 'used by 1 machine' : `used by ${image.vms} machines`;
  text(r.line, `${size(image.disk_bytes)} on disk · ${image.vms ? used : 'not used'} · last ${distance(image.last_used_at)}`);
  text(r.sum, `${image.checksum_type} ${image.checksum}`);
  r.remove.hidden = image.vms > 0;
  r.remove.setAttribute('aria-label', `Remove: ${r.name.textContent}`);
}

function drop(name, r) {
  rows.delete(name);
  const focused = r.node.contains(document.activeElement);
  r.node.remove();
  if (focused) $('images').focus();
}

async function remove(name, r) {
  const words = 'The next machine made from it downloads it anew.';
  if (!await confirm({ title: `Remove ${r.name.textContent}?`, words, yes: 'Remove' })) return;
  text(r.failure, '');
  try {
    await request('DELETE', `/images/${encodeURIComponent(name)}`);
    say(`${r.name.textContent} is removed`);
  } catch (error) {
    text(r.failure, error.message);
  }
  await refreshImages();
}

// refreshHost shows the daemon's health. 503 is an answer, too: it says why no
// machine can be made.
export async function refreshHost() {
  const health = await json('/healthz?verbose=1', { also: [503] });
  text($('host-error'), health.error ? health.error.message : '');
  const { status, version, hypervisor, error, networks = {}, details: { version: its, ...details } = {}, ...rest } = health;
  offerNetworks(networks);
  facts($('host-facts'), [
    ['Health', status], ['Version', version], ['Hypervisor', [hypervisor, its].filter(Boolean).join(' ')], ...flat(details), ...flat(rest),
    ...Object.entries(networks).map(([name, n]) => [`Network ${name}`, n.available ? 'available' : n.reason]),
  ]);
}

// flat turns what an operator is told into names and values, as deep as it is.
function flat(object, path = '') {
  return Object.entries(object).flatMap(([key, value]) => {
    const name = path + key.replace(/_bytes$/, '').replaceAll('_', ' ');
    if (value !== null && typeof value === 'object') return flat(value, `${name} `);
    return [[name[0].toUpperCase() + name.slice(1), /bytes$/.test(key) ? size(value) : value]];
  });
}
