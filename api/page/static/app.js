// The page: it shows the machines of GET /vms and updates them by the events.

import { $, formatTime, setStatusMessage, setText } from './dom.js';
import { getJSON, token, vmPath } from './api.js';
import { followEvents } from './events.js';
import { MachineCard } from './machine.js';
import { setUpForm } from './form.js';
import { refreshHost, refreshImages } from './host.js';
import { askToken } from './dialogs.js';

// refreshInterval is how often everything is read again while the page is visible. Addresses and relative times change
// without an event.
const refreshInterval = 15_000;

const cards = new Map(); // by machine ID
const destroyedIDs = new Set(); // IDs are never used again
const lastEvents = new Map(); // by machine ID: the number of its last event
let eventCount = 0;

// showDocument shows a machine's document that was requested when eventCount was requestedAt. It ignores the document
// if an event of the machine came since: the event caused another request.
function showDocument(doc, requestedAt) {
  if (destroyedIDs.has(doc.id) || (lastEvents.get(doc.id) ?? 0) > requestedAt) return;
  const card = cards.get(doc.id);
  if (card) return card.update(doc);
  const added = new MachineCard(doc, refreshMachine);
  cards.set(doc.id, added);
  const older = [...$('machine-list').children].find((node) => creationTime(cards.get(node.dataset.id).doc) <= creationTime(doc));
  $('machine-list').insertBefore(added.refs.node, older ?? null); // newest first
  updateCount();
}

const creationTime = (doc) => Date.parse(doc.created_at) || 0;

function removeMachine(id) {
  destroyedIDs.add(id);
  cards.get(id)?.remove($('machines'));
  cards.delete(id);
  updateCount();
}

function updateCount() {
  setText($('machine-count'), cards.size ? String(cards.size) : '');
  $('no-machines').hidden = cards.size > 0;
}

async function refreshMachine(id) {
  const requestedAt = eventCount;
  try {
    showDocument(await getJSON(vmPath(id)), requestedAt);
  } catch (error) {
    const card = cards.get(id);
    if (error.status === 404) removeMachine(id);
    else if (error.status === 409) card?.update({ ...card.doc, error }); // the machine cannot be read: show why
    else handleError(error);
  }
}

async function refreshAll() {
  const requestedAt = eventCount;
  const before = [...cards.keys()];
  const { vms } = await getJSON('/vms');
  const ids = new Set(vms.map((doc) => doc.id));
  for (const id of before) if (!ids.has(id)) removeMachine(id);
  for (const doc of vms) showDocument(doc, requestedAt);
  updateCount();
  await Promise.all([refreshImages(), refreshHost()]);
  for (const card of cards.values()) if (card.isVisible()) card.refreshScreenshot();
}

// refresh reads everything again. Calls during a refresh cause one more afterwards, because its answers may be older
// than the reason for the call.
let refreshing = false;
let refreshAgain = false;
async function refresh() {
  refreshAgain = true;
  if (refreshing) return;
  refreshing = true;
  while (refreshAgain) {
    refreshAgain = false;
    await refreshAll().catch(handleError);
  }
  refreshing = false;
}

// handleError asks for the token if a request needs one. The event stream meets all other errors too, and shows them.
function handleError(error) {
  if (error.status === 401) return askToken().then(reconnect);
}

function handleEvent(name, data) {
  if (name === 'hello' || name === 'reset') return refresh();
  eventCount++;
  lastEvents.set(data.id, eventCount);
  if (name === 'gone') {
    removeMachine(data.id);
    return scheduleHostRefresh();
  }
  if (name !== 'vm' || destroyedIDs.has(data.id)) return;
  const card = cards.get(data.id);
  const onlyProgress = card && card.doc.phase === data.phase && card.doc.status === data.status;
  if (card) card.update({ ...card.doc, phase: data.phase, status: data.status, progress: data.progress });
  if (['ready', 'failed'].includes(data.phase)) scheduleHostRefresh();
  if (!onlyProgress) refreshMachine(data.id);
}

// scheduleHostRefresh reads the images and the health after a short delay, once for several events.
let hostTimer;
function scheduleHostRefresh() {
  clearTimeout(hostTimer);
  hostTimer = setTimeout(() => { refreshImages().catch(handleError); refreshHost().catch(handleError); }, 300);
}

let disconnectedAt;

function connected() {
  $('connection').dataset.state = 'live';
  setText($('connection'), 'Live');
  $('offline').hidden = true;
  document.body.classList.remove('stale');
  $('forget-token').hidden = !token.get();
  if (disconnectedAt) setStatusMessage('The daemon answers again');
  disconnectedAt = undefined;
}

function disconnected(error, delay, failures) {
  $('connection').dataset.state = 'lost';
  setText($('connection'), 'Offline');
  if (error?.status === 401) return askToken();
  disconnectedAt ??= Date.now();
  if (failures < 2) return; // a daemon that is restarted is back soon
  document.body.classList.add('stale');
  setText($('offline-title'), error?.status ? `The daemon sends no events: ${error.message}.` : 'The daemon does not answer.');
  setText($('offline-text'), `The page was last updated at ${formatTime(disconnectedAt)}. Trying again in ${Math.max(1, Math.round(delay / 1000))} s.`);
  $('offline').hidden = false;
}

setUpForm((doc) => { showDocument(doc, eventCount); refreshMachine(doc.id); });
const reconnect = followEvents({ event: handleEvent, connected, disconnected });
$('reconnect').onclick = reconnect;
$('forget-token').onclick = () => { token.remove(); location.reload(); };
setInterval(() => { if (!document.hidden && !disconnectedAt) refresh(); }, refreshInterval);
document.addEventListener('visibilitychange', () => {
  for (const card of cards.values()) card.updateConsole();
  if (!document.hidden) reconnect();
});
