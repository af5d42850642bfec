// The page: it shows the machines of GET /vms and updates them by the events.

import { $ } from './dom.js';
import { getJSON, token, vmPath } from './api.js';
import { connected, disconnected, isConnected, locked } from './connection.js';
import { followEvents } from './events.js';
import { allMachines, arrange, getMachine, removeMachine, setLoaded, setUpMachines, showMachine } from './machines.js';
import { setUpForm } from './form.js';
import { refreshHost } from './host.js';
import { refreshImages } from './images.js';
import { askToken } from './dialogs.js';
import { currentRoute } from './view.js';

// refreshInterval is how often everything is read again while the page is visible. Addresses and relative times change
// without an event.
const refreshInterval = 15_000;

// eventDelay is the time in ms during which events are collected before the documents of their machines are read.
const eventDelay = 50;

// maxSingleReads is the number of machines up to which each is read by itself. For more, the list is read.
const maxSingleReads = 5;

const destroyedIDs = new Set(); // IDs are never used again
const lastEvents = new Map(); // by machine ID: the number of its last event
let eventCount = 0;

// showDocument shows a machine's document that was requested when eventCount was requestedAt. It ignores the document
// if an event of the machine came since: the event caused another request.
function showDocument(doc, requestedAt) {
  if (destroyedIDs.has(doc.id) || (lastEvents.get(doc.id) ?? 0) > requestedAt) return;
  showMachine(doc);
}

function forget(id) {
  destroyedIDs.add(id);
  lastEvents.delete(id);
  removeMachine(id);
}

async function refreshMachine(id) {
  const requestedAt = eventCount;
  try {
    showDocument(await getJSON(vmPath(id)), requestedAt);
  } catch (error) {
    const machine = getMachine(id);
    if (error.status === 404) forget(id);
    else if (error.status === 409) machine?.update({ ...machine.doc, error }); // the machine cannot be read: show why
    else handleError(error);
  }
}

async function refreshAll() {
  const requestedAt = eventCount;
  const before = allMachines().map((m) => m.id);
  const { vms } = await getJSON('/vms');
  const ids = new Set(vms.map((doc) => doc.id));
  for (const id of before) if (!ids.has(id)) forget(id);
  for (const doc of vms) showDocument(doc, requestedAt);
  setLoaded();
  if (performance.getEntriesByName('machines-shown').length === 0) performance.mark('machines-shown'); // for measurements
  showRoute();
  await Promise.all([refreshImages(), refreshHost()]);
  for (const m of allMachines()) if (m.card?.visible) m.card.refreshScreenshot();
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
  if (error.status === 401) return unlock().then(reconnect);
}

function unlock() {
  locked();
  return askToken();
}

function handleEvent(name, data) {
  if (name === 'hello' || name === 'reset') return refresh();
  eventCount++;
  lastEvents.set(data.id, eventCount);
  if (name === 'gone') {
    forget(data.id);
    return refreshHostSoon();
  }
  if (name !== 'vm' || destroyedIDs.has(data.id)) return;
  const machine = getMachine(data.id);
  const onlyProgress = machine && machine.doc.phase === data.phase && machine.doc.status === data.status;
  if (machine) showMachine({ ...machine.doc, phase: data.phase, status: data.status, progress: data.progress });
  if (onlyProgress) return;
  readSoon(data.id);
  refreshHostSoon();
}

// readSoon reads the machines of several events together.
const toRead = new Set();
function readSoon(id) {
  if (toRead.size === 0) {
    setTimeout(() => {
      const ids = [...toRead];
      toRead.clear();
      if (ids.length > maxSingleReads) return refresh();
      for (const each of ids) refreshMachine(each);
    }, eventDelay);
  }
  toRead.add(id);
}

// refreshHostSoon reads the images and the health after a short delay, once for several events.
let hostTimer;
function refreshHostSoon() {
  hostTimer ??= setTimeout(() => {
    hostTimer = undefined;
    refreshImages().catch(handleError);
    refreshHost().catch(handleError);
  }, 300);
}

// showRoute shows the section in the address.
function showRoute() {
  const { section } = currentRoute();
  for (const name of ['machines', 'images', 'host']) {
    $(`${name}-view`).hidden = name !== section;
    const link = document.querySelector(`[data-view=${name}]`);
    if (name === section) link.setAttribute('aria-current', 'page'); else link.removeAttribute('aria-current');
  }
  arrange();
}

setUpMachines({ changed: refreshMachine });
setUpForm((doc) => { showDocument(doc, eventCount); refreshMachine(doc.id); });
const reconnect = followEvents({
  event: handleEvent,
  connected: () => { connected(); for (const m of allMachines()) m.clearLostAnswer(); },
  disconnected: (error, delay, failures) => (error?.status === 401 ? unlock() : disconnected(error, delay, failures)),
});
$('reconnect').onclick = reconnect;
$('forget-token').onclick = () => { token.remove(); location.reload(); };
document.querySelector('.skip-link').onclick = (event) => { event.preventDefault(); $('main').focus(); };
for (const e of document.querySelectorAll('.page-url')) e.textContent = location.origin;
window.addEventListener('hashchange', () => {
  showRoute();
  document.querySelector('main section:not([hidden]) h2').focus();
});
showRoute();
setInterval(() => { if (!document.hidden && isConnected()) refresh(); }, refreshInterval);
document.addEventListener('visibilitychange', () => {
  for (const m of allMachines()) m.card?.updateConsole();
  if (!document.hidden) reconnect();
});
