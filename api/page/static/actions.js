// What buttons do with machines. Each function resolves when the daemon has answered.

import { request, vmPath } from './api.js';
import { confirm } from './dialogs.js';
import { openForm } from './form.js';
import { rememberRequest, requestOf } from './requests.js';
import { currentRoute, isNamed, machineLink, setMember } from './view.js';

// destructiveActions may lose data that the guest has not written to its disk.
const destructiveActions = { off: 'Power off', reset: 'Reset' };

// power changes a machine's power state, after a question if data may be lost.
export async function power(machine, action) {
  const label = destructiveActions[action];
  if (label && !await confirm({
    title: `${label} ${machine.title()}?`, action: label,
    text: 'The guest cannot prepare for this. Data that it has not written to its disk is lost.',
  })) return;
  await machine.send('POST', vmPath(machine.id, '/power'), JSON.stringify({ action }));
}

// destroy destroys a machine after a question. A failed machine has nothing to lose.
export async function destroy(machine) {
  if (machine.doc.phase !== 'failed' && !await confirm({
    title: `Destroy ${machine.title()}?`, action: 'Destroy',
    text: 'The machine and everything on its disk are deleted. Its image stays in the cache.',
  })) return;
  await machine.send('DELETE', vmPath(machine.id));
}

const maxListed = 8; // names in the question
const maxRequests = 2; // at once: a browser opens at most six connections to a daemon, of which streams take some

// destroyAll destroys machines after one question, and returns a message if some could not be destroyed.
export async function destroyAll(machines) {
  const n = machines.length;
  const names = machines.slice(0, maxListed).map((m) => m.title());
  if (n > maxListed) names.push(`and ${n - maxListed} more`);
  if (!await confirm({
    title: n === 1 ? `Destroy ${names[0]}?` : `Destroy ${n} machines?`, action: 'Destroy', list: n === 1 ? [] : names,
    text: 'The machines and everything on their disks are deleted. Their images stay in the cache.',
  })) return '';
  const waiting = [...machines];
  const failed = [];
  await Promise.all(Array.from({ length: maxRequests }, async () => {
    for (let m = waiting.shift(); m; m = waiting.shift()) if (!await m.send('DELETE', vmPath(m.id))) failed.push(m);
  }));
  if (failed.length === 0) return '';
  return `${failed.length} of ${n} could not be destroyed; each shows why: ${failed.slice(0, maxListed).map((m) => m.title()).join(', ')}`;
}

// retry creates a failed machine again and removes the failed one. If the daemon refuses the request, the form shows it
// with the error. A name must be free before it is used again.
export async function retry(machine, onCreated) {
  const body = requestOf(machine.doc);
  const remove = () => machine.send('DELETE', vmPath(machine.id));
  if (body.name && !await remove()) return;
  try {
    const doc = await (await request('POST', '/vms', { body: JSON.stringify(body) })).json();
    rememberRequest(doc.id, body);
    if (machine.card) setMember('open', doc.id, true);
    onCreated(doc);
    if (isNamed(machine.doc, currentRoute().id)) location.hash = machineLink(doc.id);
  } catch (error) {
    return openForm(body, error);
  }
  if (!body.name) await remove();
}
