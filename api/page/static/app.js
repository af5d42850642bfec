// The page: machines as GET /vms tells them, kept true by the events.

import { $, clock, say, text } from './dom.js';
import { json, token, vm } from './api.js';
import { follow } from './events.js';
import { Machine } from './machine.js';
import { setUpForm } from './form.js';
import { refreshHost, refreshImages } from './host.js';
import { askToken } from './dialogs.js';

// refreshEvery is how often all is read anew while the page is looked at: an
// address and a time in words change without an event.
const refreshEvery = 15_000;

const machines = new Map(); // by ID
const gone = new Set(); // IDs, which are never used again
const told = new Map(); // by ID: count when its last event came
let count = 0; // of events

// take shows a document that was read, unless an event has come since, which
// had it read again.
function take(doc, since) {
  if (gone.has(doc.id) || (told.get(doc.id) ?? 0) > since) return;
  const machine = machines.get(doc.id);
  if (machine) return machine.update(doc);
  const added = new Machine(doc, refreshOne);
  machines.set(doc.id, added);
  const older = [...$('list').children].find((node) => made(machines.get(node.dataset.id).doc) <= made(doc));
  $('list').insertBefore(added.refs.node, older ?? null); // the newest on top
  summary();
}

const made = (doc) => Date.parse(doc.created_at) || 0;

function drop(id) {
  gone.add(id);
  machines.get(id)?.remove($('machines'));
  machines.delete(id);
  summary();
}

function summary() {
  text($('count'), machines.size ? String(machines.size) : '');
  $('empty').hidden = machines.size > 0;
}

async function refreshOne(id) {
  const since = count;
  try {
    take(await json(vm(id)), since);
  } catch (error) {
    const machine = machines.get(id);
    if (error.status === 404) drop(id);
    else if (error.status === 409) machine?.update({ ...machine.doc, error }); // it cannot be read: that is its news
    else unauthorized(error);
  }
}

async function refreshAll() {
  const since = count;
  const before = [...machines.keys()];
  const { vms } = await json('/vms');
  const there = new Set(vms.map((doc) => doc.id));
  for (const id of before) if (!there.has(id)) drop(id);
  for (const doc of vms) take(doc, since);
  summary();
  await Promise.all([refreshImages(), refreshHost()]);
  for (const m of machines.values()) if (m.inView()) m.look();
}

// refresh reads all anew, one reading at a time: who asks during one gets
// another, since what he knows of may be younger than it.
let refreshing = false;
let again = false;
async function refresh() {
  again = true;
  if (refreshing) return;
  refreshing = true;
  while (again) {
    again = false;
    await refreshAll().catch(unauthorized);
  }
  refreshing = false;
}

// unauthorized asks for the token where a failure is for want of it. All else
// the stream will meet, too, and say.
function unauthorized(error) {
  if (error.status === 401) return askToken().then(retry);
}

function event(name, data) {
  if (name === 'hello' || name === 'reset') return refresh();
  count++;
  told.set(data.id, count);
  if (name === 'gone') {
    drop(data.id);
    return soon();
  }
  if (name !== 'vm' || gone.has(data.id)) return;
  const machine = machines.get(data.id);
  const same = machine && machine.doc.phase === data.phase && machine.doc.status === data.status;
  if (machine) machine.update({ ...machine.doc, phase: data.phase, status: data.status, progress: data.progress });
  if (['ready', 'failed'].includes(data.phase)) soon();
  if (!same) refreshOne(data.id); // else only its progress is new, or it has been read since
}

// soon reads the images and the health once a few events have passed.
let timer;
function soon() {
  clearTimeout(timer);
  timer = setTimeout(() => { refreshImages().catch(unauthorized); refreshHost().catch(unauthorized); }, 300);
}

let lostAt;

function open() {
  $('link').dataset.state = 'live';
  text($('link'), 'Live');
  $('gone').hidden = true;
  document.body.classList.remove('stale');
  $('forget').hidden = !token.get();
  if (lostAt) say('The daemon answers again');
  lostAt = undefined;
}

function lost(why, wait, failures) {
  $('link').dataset.state = 'lost';
  text($('link'), 'Offline');
  if (why?.status === 401) return askToken();
  lostAt ??= Date.now();
  if (failures < 2) return; // a daemon that is being restarted is back in a moment
  document.body.classList.add('stale');
  text($('gone-title'), why?.status ? `The daemon sends no news: ${why.message}.` : 'The daemon does not answer.');
  text($('gone-text'), `What you see is as of ${clock(lostAt)}. Trying again in ${Math.max(1, Math.round(wait / 1000))} s.`);
  $('gone').hidden = false;
}

setUpForm((doc) => { take(doc, count); refreshOne(doc.id); });
const retry = follow({ event, open, lost });
$('retry').onclick = retry;
$('forget').onclick = () => { token.forget(); location.reload(); };
setInterval(() => { if (!document.hidden && !lostAt) refresh(); }, refreshEvery);
document.addEventListener('visibilitychange', () => {
  for (const m of machines.values()) m.console();
  if (!document.hidden) retry();
});
