// The host's health and limits.

import { $, formatBytes, setFacts, setText } from './dom.js';
import { getJSON } from './api.js';
import { setNetworks } from './form.js';

// refreshHost reads and shows the daemon's health. Status 503 contains the reason why no machine can be created.
export async function refreshHost() {
  const health = await getJSON('/healthz?verbose=1', { accept: [503] });
  const { status, version, go, hypervisor, error, machines, creating, disk, limits = {}, networks = {}, details = {} } = health;
  const slow = /^tcg\b/.test(details.acceleration ?? '');
  setText($('host-error'), error ? error.message : '');
  setText($('create-error'), error ? `No machine can be created: ${error.message}` : '');
  setText($('host-slow'), slow ? `Emulated: slow. No hardware acceleration: ${details.acceleration.replace(/^tcg: (emulated, which is slow: )?/, '')}` : '');
  $('host-dot').hidden = !error && !slow;
  setNetworks(networks);
  setMeters(disk, limits);
  setFacts($('capacity-facts'), [
    ['Machines', limits.vms ? `${machines} of ${limits.vms}` : machines], ['Creations under way', limits.creations ? `${creating} of ${limits.creations}` : creating],
    ['Processors of one machine', limits.cpus && `at most ${limits.cpus}`],
  ]);
  setFacts($('network-facts'), Object.entries(networks).map(([name, n]) => [name, n.available ? 'available' : n.reason]));
  const { version: hypervisorVersion, ...others } = details;
  setFacts($('hypervisor-facts'), [['Hypervisor', [hypervisor, hypervisorVersion].filter(Boolean).join(' ')], ...Object.entries(others).map(([name, value]) => [label(name), value])]);
  setFacts($('host-facts'), [['Health', status], ['Version', version], ['Go', go]]);
}

const label = (name) => name[0].toUpperCase() + name.slice(1).replaceAll('_', ' ');

// setMeters shows how much of the memory and of the disk is used.
function setMeters(disk, limits) {
  const meters = [];
  const memory = parseBytes(limits.memory);
  if (memory) {
    const promised = parseBytes(limits.memory_promised);
    meters.push(['Memory promised to machines', promised, memory, `${formatBytes(promised)} of ${formatBytes(memory)}`]);
  }
  if (disk?.total_bytes) {
    const { free_bytes: free, total_bytes: total, reserve_bytes: reserve } = disk;
    const kept = reserve ? `, of which ${formatBytes(reserve)} are reserved for the host` : '';
    meters.push(['Disk of the data folder', total - free, total, `${formatBytes(free)} of ${formatBytes(total)} free${kept}`, reserve]);
  }
  const parent = $('meters');
  for (const [i, [name, value, max, text, reserve = 0]] of meters.entries()) {
    const node = parent.children[i] ?? parent.appendChild(newMeter());
    const [title, meter, note] = node.children;
    setText(title, name);
    Object.assign(meter, { max, high: Math.max(0, Math.min(0.9 * max, max - reserve)), optimum: 0, value });
    meter.setAttribute('aria-label', name);
    meter.setAttribute('aria-valuetext', text);
    setText(note, text);
  }
}

function newMeter() {
  const node = document.createElement('div');
  node.className = 'meter';
  node.append(document.createElement('p'), document.createElement('meter'), document.createElement('p'));
  node.lastChild.className = 'muted';
  return node;
}

// parseBytes parses an amount in the API's notation, such as "1.5gib".
function parseBytes(text = '') {
  const [, number, unit] = /^([\d.]+)\s*([kmgtp]?)i?b$/i.exec(text) ?? [];
  return number ? Number(number) * 1024 ** ' kmgtp'.indexOf(unit.toLowerCase() || ' ') : 0;
}
