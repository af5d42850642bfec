// The cached images.

import { $, cloneTemplate, fileName, formatBytes, formatDate, formatRelative, plural, setStatusMessage, setText, shortenHashes, showProgress } from './dom.js';
import { getJSON, request } from './api.js';
import { confirm } from './dialogs.js';
import { openForm } from './form.js';

const rows = new Map(); // by the image's name

// refreshImages reads and shows the cached images.
export async function refreshImages() {
  const images = await readImages();
  const names = new Set();
  for (const image of images) {
    const name = `${image.checksum_type}-${image.checksum}`;
    names.add(name);
    if (!rows.has(name)) rows.set(name, addRow(name));
    updateRow(rows.get(name), image);
  }
  for (const [name, row] of rows) if (!names.has(name)) removeRow(name, row);
  setText($('images-total'), images.length ? `${formatBytes(images.reduce((sum, i) => sum + i.disk_bytes, 0))} on disk` : '');
  setText($('image-count'), images.length ? String(images.length) : '');
  $('no-images').hidden = images.length > 0 || !$('images-error').hidden;
}

// readImages returns the cached images. The page of a token that may not see them shows why there are none.
async function readImages() {
  let refused = '';
  try {
    return (await getJSON('/images')).images;
  } catch (error) {
    if (error.status !== 403) throw error;
    refused = error.message;
    return [];
  } finally {
    setText($('images-error'), refused);
  }
}

// pullInterval is how often the images are read while one is pulled, in ms. Pulls have no events.
const pullInterval = 1000;

let timer;

function readAgainSoon() {
  timer ??= setTimeout(() => {
    timer = undefined;
    refreshImages().catch(() => {}); // the stream of events meets the same error, and shows it
  }, pullInterval);
}

function addRow(name) {
  const row = cloneTemplate('image-template');
  row.use.onclick = () => openForm({ image: row.image });
  row.pin.onclick = () => send(row, 'PATCH', name, JSON.stringify({ pinned: !row.image.pinned }));
  row.remove.onclick = () => removeImage(name, row);
  $('image-list').append(row.node);
  return row;
}

const isPulled = ({ phase = 'ready' }) => !['ready', 'failed'].includes(phase);

function updateRow(row, image) {
  const { phase = 'ready', pinned = false, error, progress } = image;
  row.image = image;
  setText(row.name, fileName(image.url) || image.checksum);
  setText(row.summary, phase === 'ready' ? summary(image) : [phase, pinned && 'pinned'].filter(Boolean).join(' · '));
  row.summary.title = phase === 'ready' ? `Last used ${formatDate(image.last_used_at)}, created ${formatDate(image.created_at)}` : '';
  showProgress(row.bar, isPulled(image), progress, `${row.name.textContent}: ${phase}`);
  setText(row.checksum, `${image.checksum_type} ${image.checksum}`);
  setText(row.error, error ? shortenHashes(error.message) : '');
  setText(row.pin, pinned ? 'Unpin' : 'Pin');
  setText(row.remove, isPulled(image) ? 'Cancel' : 'Remove');
  row.remove.hidden = image.vms > 0;
  for (const b of [row.use, row.pin, row.remove]) b.setAttribute('aria-label', `${b.textContent}: ${row.name.textContent}`);
  if (isPulled(image)) readAgainSoon();
}

function summary(image) {
  const usedBy = image.vms ? `used by ${plural(image.vms, 'machine')}` : 'not used';
  return [`${formatBytes(image.disk_bytes)} on disk`, usedBy, `last used ${formatRelative(image.last_used_at)}`, image.pinned && 'pinned'].filter(Boolean).join(' · ');
}

function removeRow(name, row) {
  rows.delete(name);
  const hadFocus = row.node.contains(document.activeElement);
  row.node.remove();
  if (hadFocus) $('images').focus();
}

async function removeImage(name, row) {
  const text = isPulled(row.image) ? 'What was downloaded of it is kept for the next attempt.' : 'The next machine with this image will download it again.';
  const action = row.remove.textContent;
  if (!await confirm({ title: `${action} ${row.name.textContent}?`, text, action: action === 'Cancel' ? 'Cancel the download' : action })) return;
  if (await send(row, 'DELETE', name)) setStatusMessage(`${row.name.textContent} was removed`);
}

// send sends a button's request, shows its error, and returns whether it succeeded.
async function send(row, method, name, body) {
  setText(row.failure, '');
  try {
    await request(method, `/images/${encodeURIComponent(name)}`, { body });
    return true;
  } catch (error) {
    setText(row.failure, error.message);
    return false;
  } finally {
    refreshImages().catch(() => {});
  }
}
