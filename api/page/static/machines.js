// The list of machines: filters, search, order and selection.

import { $, plural, setText } from './dom.js';
import { destroyAll } from './actions.js';
import { ensureTabStop, setUpGrid } from './grid.js';
import { Machine } from './machine.js';
import { groups } from './state.js';
import { currentRoute, isNamed, saveView, view } from './view.js';

const machines = new Map(); // by ID
const selected = new Set();
let loaded = false; // whether the list was read once
let handlers; // of setUpMachines

// orders are the columns by which the list can be sorted. The creation time breaks ties.
const orders = {
  created: ['Newest', (m) => -Date.parse(m.doc.created_at)],
  name: ['Name', (m) => m.doc.name || `\uffff${m.id}`], // named ones first
  state: ['State', (m) => Object.keys(groups).indexOf(m.state.group)],
  address: ['Address', (m) => m.doc.ip_address?.replace(/\d+/g, (n) => n.padStart(3, '0')) || '\uffff'],
  image: ['Image', (m) => m.imageName],
};

// setUpMachines connects the list's controls. It calls changed(id) after an action of a machine.
export function setUpMachines({ changed }) {
  handlers = { changed, created: showMachine, selected: select };
  setUpGrid($('machine-list'));
  $('search').value = view.search;
  $('search').oninput = () => change({ search: $('search').value });
  for (const [name, [label]] of Object.entries(orders)) $('sort').append(new Option(label, name));
  $('sort').onchange = () => change({ sort: $('sort').value, reverse: false });
  for (const b of document.querySelectorAll('[data-sort]')) b.onclick = () => change({ sort: b.dataset.sort, reverse: view.sort === b.dataset.sort && !view.reverse });
  for (const group of ['', ...Object.keys(groups)]) $('filters').append(filterButton(group));
  $('show-all').onclick = () => { $('search').value = ''; change({ search: '', filter: '' }); $('search').focus(); };
  $('select-all').onclick = () => selectAll($('select-all').checked);
  $('clear-selection').onclick = () => { selectAll(false); $('machines').focus(); };
  $('destroy-selected').onclick = destroySelected;
}

function filterButton(group) {
  const button = document.createElement('button');
  button.type = 'button';
  button.className = 'chip';
  button.dataset.group = group;
  button.onclick = () => change({ filter: group });
  return button;
}

function change(what) {
  Object.assign(view, what);
  saveView();
  arrange();
}

export const getMachine = (id) => machines.get(id);
export const allMachines = () => [...machines.values()];

// showMachine adds or updates a machine.
export function showMachine(doc) {
  const machine = machines.get(doc.id);
  if (machine) machine.update(doc);
  else machines.set(doc.id, new Machine(doc, handlers));
  arrangeSoon();
}

// removeMachine removes a machine. If it contained the focus, the next one gets it.
export function removeMachine(id) {
  const machine = machines.get(id);
  if (!machine) return;
  const { node } = machine.refs;
  const hadFocus = node.contains(document.activeElement);
  const neighbour = hadFocus && [...shownMachines()].map((m) => m.refs.node).find((other) => other.previousElementSibling === node);
  machines.delete(id);
  selected.delete(machine);
  machine.remove();
  arrange();
  if (hadFocus) (neighbour?.querySelector('.toggle') ?? $('machines')).focus();
}

// setLoaded records that the list is complete.
export function setLoaded() {
  loaded = true;
  arrange();
}

let arranging = false;

// arrangeSoon arranges the list once after several changes.
function arrangeSoon() {
  if (arranging) return;
  arranging = true;
  queueMicrotask(() => { arranging = false; arrange(); });
}

const shownMachines = () => allMachines().filter((m) => !m.refs.node.hidden);

// arrange shows the route's machine, or the machines the filter and the search select, in order.
export function arrange() {
  const { id } = currentRoute();
  const words = view.search.toLowerCase().split(/\s+/).filter(Boolean);
  const found = allMachines().filter((m) => m.matches(words));
  for (const m of machines.values()) {
    m.refs.node.hidden = id ? !isNamed(m.doc, id) : !m.matches(words) || (view.filter !== '' && view.filter !== m.state.group);
    if (m.refs.node.hidden && selected.delete(m)) m.refs.select.checked = false; // nobody destroys what is not shown
  }
  sortNodes();
  updateTools(id, found);
  updateTitle(id);
  updateSelection();
  ensureTabStop($('machine-list'));
}

function sortNodes() {
  const [, by] = orders[view.sort] ?? orders.created;
  const order = (a, b) => (a.by < b.by ? -1 : a.by > b.by ? 1 : orders.created[1](a.m) - orders.created[1](b.m)) * (view.reverse ? -1 : 1);
  const focused = document.activeElement;
  let next = $('machine-list').firstElementChild.nextElementSibling; // after the head
  for (const { m: { refs: { node } } } of allMachines().map((m) => ({ m, by: by(m) })).sort(order)) {
    if (node === next) next = next.nextElementSibling; else $('machine-list').insertBefore(node, next);
  }
  if (focused !== document.activeElement && focused.isConnected) focused.focus({ preventScroll: true });
}

// updateTitle shows in the heading and the tab's title what the page shows. The route's machine is open.
function updateTitle(id) {
  const machine = id && allMachines().find((m) => isNamed(m.doc, id));
  if (machine) machine.setOpen(true);
  setText($('machines'), machine ? machine.title() : 'Machines');
  const titles = { machines: plural(machines.size, 'machine'), images: 'Images', host: 'Host' };
  document.title = `${machine ? machine.title() : titles[currentRoute().section]} · OSX Builder`;
}

function updateTools(id, found) {
  const n = machines.size;
  const shown = shownMachines().length;
  setText($('machine-count'), n ? String(n) : '');
  $('machine-list').hidden = shown === 0;
  $('machine-list').classList.toggle('one', id !== '');
  $('machine-tools').hidden = n === 0 || id !== '';
  $('one-machine').hidden = id === '';
  $('no-machines').hidden = !loaded || n > 0 || id !== '';
  $('not-found').hidden = !loaded || shown > 0 || id === '';
  $('none-shown').hidden = n === 0 || shown > 0 || id !== '';
  $('sort').value = view.sort;
  for (const b of document.querySelectorAll('[data-sort]')) {
    const direction = view.reverse ? 'descending' : 'ascending';
    b.parentElement.setAttribute('aria-sort', b.dataset.sort === view.sort ? direction : 'none');
  }
  for (const chip of $('filters').children) {
    const { group } = chip.dataset;
    const count = group === '' ? found.length : found.filter((m) => m.state.group === group).length;
    setText(chip, `${groups[group] ?? 'All'} ${count}`);
    chip.setAttribute('aria-pressed', String(view.filter === group));
    chip.hidden = group !== '' && count === 0 && view.filter !== group;
  }
}

// select is called when the user has clicked a machine's checkbox. With the shift key it selects the range from the
// last one.
let lastSelected;
function select(machine, event) {
  const { checked } = machine.refs.select;
  const nodes = [...$('machine-list').children];
  const range = event.shiftKey && lastSelected ? [nodes.indexOf(machine.refs.node), nodes.indexOf(lastSelected.refs.node)].sort((a, b) => a - b) : [];
  for (const m of range.length ? shownMachines() : [machine]) {
    const i = nodes.indexOf(m.refs.node);
    if (m === machine || (i >= range[0] && i <= range[1])) setSelected(m, checked);
  }
  lastSelected = machine;
  updateSelection();
}

function selectAll(checked) {
  for (const m of shownMachines()) setSelected(m, checked);
  setText($('selection-result'), '');
  updateSelection();
}

function setSelected(machine, on) {
  if (machine.refs.select.disabled) return;
  machine.refs.select.checked = on;
  if (on) selected.add(machine); else selected.delete(machine);
}

function updateSelection() {
  const result = $('selection-result');
  $('selection').hidden = selected.size === 0 && result.hidden;
  setText($('selection-count'), selected.size ? `${plural(selected.size, 'machine')} selected` : '');
  $('destroy-selected').hidden = $('clear-selection').hidden = selected.size === 0;
  const all = $('select-all');
  all.checked = selected.size > 0 && shownMachines().every((m) => selected.has(m));
  all.indeterminate = selected.size > 0 && !all.checked;
}

async function destroySelected() {
  setText($('selection-result'), '');
  setText($('selection-result'), await destroyAll([...selected]));
  updateSelection();
}
