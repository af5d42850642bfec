// The cached images.

import { $, cloneTemplate, fileName, formatBytes, formatDate, formatRelative, setStatusMessage, setText } from './dom.js';
import { getJSON, request } from './api.js';
import { confirm } from './dialogs.js';

const rows = new Map(); // by the image's name

// refreshImages reads and shows the cached images.
export async function refreshImages() {
  const { images } = await getJSON('/images');
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
  $('no-images').hidden = images.length > 0;
}

function addRow(name) {
  const row = cloneTemplate('image-template');
  row.remove.onclick = () => removeImage(name, row);
  $('image-list').append(row.node);
  return row;
}

function updateRow(row, image) {
  setText(row.name, fileName(image.url) || image.checksum);
  const usedBy = image.vms === 1 ? 'used by 1 machine' : `used by ${image.vms} machines`;
  setText(row.summary, `${formatBytes(image.disk_bytes)} on disk · ${image.vms ? usedBy : 'not used'} · last used ${formatRelative(image.last_used_at)}`);
  row.summary.title = `Last used ${formatDate(image.last_used_at)}, created ${formatDate(image.created_at)}`;
  setText(row.checksum, `${image.checksum_type} ${image.checksum}`);
  row.remove.hidden = image.vms > 0;
  row.remove.setAttribute('aria-label', `Remove: ${row.name.textContent}`);
}

function removeRow(name, row) {
  rows.delete(name);
  const hadFocus = row.node.contains(document.activeElement);
  row.node.remove();
  if (hadFocus) $('images').focus();
}

async function removeImage(name, row) {
  const text = 'The next machine with this image will download it again.';
  if (!await confirm({ title: `Remove ${row.name.textContent}?`, text, action: 'Remove' })) return;
  setText(row.failure, '');
  try {
    await request('DELETE', `/images/${encodeURIComponent(name)}`);
    setStatusMessage(`${row.name.textContent} was removed`);
  } catch (error) {
    setText(row.failure, error.message);
  }
  await refreshImages();
}
