// The card of an open machine: its screen, its console, its power, and every detail.

import { cloneTemplate, copyText, formatBytes, formatDate, formatRelative, plural, setFacts, setList, setText, shortenHashes, showProgress, timeElement } from './dom.js';
import { loadScreenshot, showScreen } from './dialogs.js';
import { destroy } from './actions.js';
import { followConsole } from './console.js';
import { allowedActions, stateOf } from './state.js';
import { machineLink, setMember, view } from './view.js';

// openConsoles are the cards whose consoles are open, oldest first. Each console uses one of the few connections that a
// browser opens to the daemon.
const openConsoles = [];
const maxOpenConsoles = 3;

// visibleCards loads the screenshots of the cards that are visible.
const visibleCards = new IntersectionObserver((entries) => {
  for (const e of entries) {
    e.target.card.visible = e.isIntersecting;
    if (e.isIntersecting) e.target.card.refreshScreenshot();
  }
});

// Card shows a machine below its row.
export class Card {
  constructor(machine) {
    this.machine = machine;
    this.visible = false;
    this.noScreenshots = false; // the hypervisor does not support screenshots
    const r = this.refs = cloneTemplate('card-template');
    r.node.card = this;
    r.destroy.onclick = () => destroy(machine);
    r.retry.onclick = () => machine.act('retry');
    r.thumbnail.onclick = () => showScreen(machine.id, machine.title());
    r.link.href = machineLink(machine.id);
    r.console.ontoggle = () => this.toggleConsole();
    for (const b of r.actions.querySelectorAll('[data-power]')) b.onclick = () => machine.act(b.dataset.power);
    if (machine.screenshot) r.screenshot.src = machine.screenshot;
    machine.refs.node.append(r.node);
    this.update();
    r.console.open = view.consoles.includes(machine.id) && !r.console.hidden;
    visibleCards.observe(r.node);
  }

  update() {
    const { doc } = this.machine;
    const r = this.refs;
    r.node.setAttribute('aria-label', `Details of ${this.machine.title()}`);
    setText(r.tail, doc.error?.console ?? '');
    setText(r.error, doc.error ? `${shortenHashes(doc.error.message)} (${doc.error.code})` : '');
    this.updateWarnings();
    this.updateSummary();
    this.updateProgress();
    this.updateAddresses();
    this.updateDetails();
    this.updateButtons();
    if (this.status !== doc.status) this.refreshScreenshot();
    this.status = doc.status;
  }

  // updateWarnings lists what differs from what the image expects.
  updateWarnings() {
    const { warnings = [] } = this.machine.doc;
    const r = this.refs;
    r.warnings.hidden = warnings.length === 0;
    setText(r.warningCount, plural(warnings.length, 'warning'));
    setList(r.warningList, warnings.map((w) => w.message));
  }

  updateSummary() {
    const d = this.machine.doc;
    const parts = [d.cpus && `${d.cpus} CPU${d.cpus === 1 ? '' : 's'}`, d.memory, d.network_type, d.guest_os, d.created_at && `created ${formatRelative(d.created_at)}`];
    if (d.expires_at) parts.push(`expires ${formatRelative(d.expires_at)}`);
    setText(this.refs.summary, parts.filter(Boolean).join(' · '));
    this.refs.summary.title = this.machine.refs.age.title;
  }

  updateProgress() {
    const { doc, state } = this.machine;
    const { bar, bytes, progress } = this.refs;
    const p = doc.progress;
    progress.hidden = state.group !== 'creating';
    setProgress(bar, doc, this.machine.title());
    setText(bytes, p?.total ? `${formatBytes(p.bytes)} of ${formatBytes(p.total)}, ${Math.floor(100 * Math.min(1, p.bytes / p.total))} %` : p?.bytes ? formatBytes(p.bytes) : '');
  }

  // updateAddresses shows the line of the addresses while the machine is powered on, even if none is known yet, so that
  // the buttons below do not move.
  updateAddresses() {
    const { status, ip_address: ip, port_forwards: forwards = [] } = this.machine.doc;
    const all = forwards.length ? forwards.map((f) => [`${ip}:${f.host}`, ` forwards to port ${f.guest}`]) : ip ? [[ip, '']] : [];
    const { addresses } = this.refs;
    const json = JSON.stringify(all);
    addresses.hidden = status !== 'powered-on';
    if (addresses.dataset.current === json) return;
    addresses.dataset.current = json;
    addresses.replaceChildren(...all.map(([endpoint, note]) => {
      const span = document.createElement('span');
      const code = document.createElement('code');
      code.textContent = endpoint;
      span.append(code, copyButton(endpoint), note);
      return span;
    }));
    if (all.length === 0) addresses.textContent = 'No address yet';
  }

  updateDetails() {
    const d = this.machine.doc;
    const c = d.callback;
    setFacts(this.refs.facts, [
      ['ID', d.id], ['Name', d.name], ['Owner', d.owner], ['Image', d.image?.url], [d.image?.checksum_type, d.image?.checksum], ['MAC address', d.mac_address],
      ['Addresses', d.addresses?.join(', ')], ...networkCards(d.nics), ['Tools', d.tools_status], ['Power state', d.status], ['Hypervisor', d.hypervisor],
      ['Started from', d.start], ['Callback', c && `${c.url}: ${c.state}${c.last_error ? `, ${c.last_error}` : ''}`],
      ['Created', formatDate(d.created_at)], ['Changed', formatDate(d.updated_at)], ['Expires', d.expires_at && timeElement(d.expires_at)],
      ['Stopped because', d.stopped_because], ['Error', d.error?.message],
    ]);
  }

  updateButtons() {
    const { doc } = this.machine;
    const r = this.refs;
    const title = this.machine.title();
    const allowed = (doc.phase !== 'destroying' && allowedActions[doc.status]) || [];
    for (const b of r.actions.querySelectorAll('[data-power]')) {
      b.hidden = !allowed.includes(b.dataset.power);
      b.setAttribute('aria-label', `${b.textContent}: ${title}`);
    }
    setText(r.destroy, doc.phase === 'failed' ? 'Remove' : 'Destroy');
    r.destroy.hidden = doc.phase === 'destroying';
    r.retry.hidden = doc.phase !== 'failed';
    for (const b of [r.destroy, r.retry]) b.setAttribute('aria-label', `${b.textContent}: ${title}`);
    r.thumbnail.setAttribute('aria-label', `Screen: ${title}`);
    r.console.hidden = !doc.status;
  }

  // refreshScreenshot updates the thumbnail if it is visible and the machine is powered on. A machine that is not shows
  // its last one. The thumbnail's space is reserved from the start, so that nothing moves.
  async refreshScreenshot() {
    const { machine } = this;
    const { thumbnail, screenshot } = this.refs;
    const on = machine.doc.status === 'powered-on';
    thumbnail.hidden = !machine.doc.status || this.noScreenshots;
    thumbnail.disabled = !on;
    screenshot.hidden = !machine.screenshot;
    if (!on || !this.visible || this.noScreenshots || this.loadingScreenshot) return;
    this.loadingScreenshot = true;
    try {
      await loadScreenshot(machine.id, screenshot);
      machine.screenshot = screenshot.src;
      screenshot.hidden = false;
    } catch (error) {
      this.noScreenshots = thumbnail.hidden = error.status === 501; // the dialog shows other errors
    } finally {
      this.loadingScreenshot = false;
    }
  }

  toggleConsole() {
    if (this.removed) return;
    setMember('consoles', this.machine.id, this.refs.console.open);
    this.updateConsole();
  }

  // updateConsole follows the console while it is open and the page is visible.
  updateConsole() {
    this.stopConsole();
    const r = this.refs;
    if (!r.console.open || document.hidden) return;
    if (openConsoles.length === maxOpenConsoles) openConsoles[0].refs.console.open = false;
    openConsoles.push(this);
    this.consoleAbort = new AbortController();
    r.log.setAttribute('aria-label', `Console of ${this.machine.title()}`);
    followConsole(this.machine.id, r.log, r.consoleStatus, this.consoleAbort.signal);
  }

  stopConsole() {
    this.consoleAbort?.abort();
    if (openConsoles.includes(this)) openConsoles.splice(openConsoles.indexOf(this), 1);
  }

  remove() {
    this.removed = true;
    this.stopConsole();
    visibleCards.unobserve(this.refs.node);
    this.refs.node.remove();
  }
}

// setProgress shows in a <progress> element how far a creation is.
export function setProgress(bar, { phase, status, progress }, title) {
  showProgress(bar, stateOf({ phase, status }).group === 'creating', progress, `${title}: ${phase}`);
}

// networkCards returns the facts of a machine with several network cards.
function networkCards(nics = []) {
  if (nics.length < 2) return [];
  return nics.map((n, i) => [`Network card ${i + 1}`, [n.model, n.network_type, n.mac_address, n.ip_address].filter(Boolean).join(', ')]);
}

function copyButton(text) {
  const button = document.createElement('button');
  button.type = 'button';
  button.className = 'copy';
  button.textContent = 'Copy';
  button.setAttribute('aria-label', `Copy ${text}`);
  button.onclick = () => copyText(button, text);
  return button;
}
