// The card of one machine.

import { cloneTemplate, fileName, formatBytes, formatDate, formatRelative, setFacts, setStatusMessage, setText } from './dom.js';
import { request, vmPath } from './api.js';
import { confirm, loadScreenshot, showScreen } from './dialogs.js';
import { followConsole } from './console.js';

// allowedActions lists the actions that each power state allows.
const allowedActions = {
  'powered-on': ['shutdown', 'suspend', 'reset', 'off'],
  'powered-off': ['on'],
  suspended: ['resume', 'off'],
  paused: ['resume', 'reset', 'off'],
  blocked: ['reset', 'off'],
  'powering-on': ['off'],
  'powering-off': ['off'],
  suspending: ['off'],
  resetting: ['off'],
};

// destructiveActions may lose data that the guest has not written to its disk.
const destructiveActions = { off: 'Power off', reset: 'Reset' };

const finalPhases = ['ready', 'failed'];

// openConsoles are the cards whose consoles are open, oldest first. Each console uses one of the few connections that a
// browser opens to the daemon.
const openConsoles = [];
const maxOpenConsoles = 3;

// MachineCard shows a machine. It calls onChange with the machine's ID after an action.
export class MachineCard {
  constructor(doc, onChange) {
    this.onChange = onChange;
    this.pendingRequests = 0;
    this.noScreenshots = false; // the hypervisor does not support screenshots
    this.refs = cloneTemplate('machine-template');
    const r = this.refs;
    r.node.dataset.id = doc.id;
    r.destroy.onclick = () => this.destroy();
    r.thumbnail.onclick = () => showScreen(this.doc.id, this.title());
    r.console.ontoggle = () => this.updateConsole();
    for (const b of r.actions.querySelectorAll('[data-power]')) b.onclick = () => this.power(b.dataset.power);
    this.update(doc);
  }

  title() { return `${this.name} ${this.doc.id.slice(0, 8)}`; }

  update(doc) {
    const previous = this.doc;
    this.doc = doc;
    this.name = doc.image?.url ? fileName(doc.image.url) : 'Machine';
    const r = this.refs;
    const focused = r.node.contains(document.activeElement) && document.activeElement;
    setText(r.name, this.name);
    setText(r.id, doc.id.slice(0, 8));
    setText(r.phase, doc.phase || 'unreadable');
    r.node.dataset.phase = doc.phase || 'unreadable';
    setText(r.status, doc.status);
    r.status.dataset.status = doc.status;
    setText(r.error, doc.error ? `${doc.error.message} (${doc.error.code})` : '');
    this.updateSummary();
    this.updateProgress();
    this.updateAddress();
    this.updateDetails();
    this.updateButtons();
    if (focused && focused.closest('[hidden]')) r.heading.focus();
    if (previous && previous.phase !== doc.phase) setStatusMessage(`${this.title()} is ${doc.phase}`);
    if (previous?.status !== doc.status) this.refreshScreenshot();
  }

  updateSummary() {
    const d = this.doc;
    const parts = [d.cpus && `${d.cpus} CPU${d.cpus === 1 ? '' : 's'}`, d.memory, d.network_type, d.guest_os, d.created_at && `created ${formatRelative(d.created_at)}`];
    if (d.expires_at) parts.push(`expires ${formatRelative(d.expires_at)}`);
    setText(this.refs.summary, parts.filter(Boolean).join(' · '));
  }

  updateProgress() {
    const { phase, progress: p } = this.doc;
    const { bar, bytes, progress } = this.refs;
    progress.hidden = finalPhases.includes(phase) || !phase;
    bar.setAttribute('aria-label', `${this.name}: ${phase}`);
    if (p?.total) {
      bar.max = p.total;
      bar.value = Math.min(p.bytes, p.total);
      setText(bytes, `${formatBytes(p.bytes)} of ${formatBytes(p.total)}, ${Math.floor(100 * Math.min(1, p.bytes / p.total))} %`);
    } else {
      bar.removeAttribute('value');
      setText(bytes, p?.bytes ? formatBytes(p.bytes) : '');
    }
  }

  // updateAddress shows the line of the address while the machine is powered on, even if the address is not known yet,
  // so that the buttons below do not move.
  updateAddress() {
    const { status, ip_address: ip, port_forwards: forwards = [] } = this.doc;
    const all = forwards.length ? forwards.map((f) => [`${ip}:${f.host}`, ` forwards to port ${f.guest}`]) : ip ? [[ip, '']] : [];
    const address = this.refs.address;
    const json = JSON.stringify(all);
    address.hidden = status !== 'powered-on';
    if (address.dataset.current === json) return;
    address.dataset.current = json;
    address.replaceChildren(...all.map(([endpoint, note]) => {
      const span = document.createElement('span');
      const code = document.createElement('code');
      code.textContent = endpoint;
      span.append(code, note);
      return span;
    }));
    if (all.length === 0) address.textContent = 'No address yet';
  }

  updateDetails() {
    const d = this.doc;
    const c = d.callback;
    setFacts(this.refs.facts, [
      ['ID', d.id], ['Image', d.image?.url], [d.image?.checksum_type, d.image?.checksum], ['MAC address', d.mac_address],
      ['Addresses', d.addresses?.join(', ')], ['Tools', d.tools_status], ['Hypervisor', d.hypervisor],
      ['Callback', c && `${c.url}: ${c.state}${c.last_error ? `, ${c.last_error}` : ''}`],
      ['Created', formatDate(d.created_at)], ['Changed', formatDate(d.updated_at)], ['Expires', formatDate(d.expires_at)],
      ['Stopped because', d.stopped_because], ['Warnings', d.warnings?.map((w) => w.message).join('; ')],
    ]);
  }

  updateButtons() {
    const allowed = (this.doc.phase !== 'destroying' && allowedActions[this.doc.status]) || [];
    for (const b of this.refs.actions.querySelectorAll('[data-power]')) {
      b.hidden = !allowed.includes(b.dataset.power);
      b.setAttribute('aria-label', `${b.textContent}: ${this.title()}`);
    }
    this.refs.actions.hidden = allowed.length === 0;
    this.refs.thumbnail.setAttribute('aria-label', `Screen: ${this.title()}`);
    this.refs.destroy.hidden = this.doc.phase === 'destroying';
    this.refs.destroy.setAttribute('aria-label', `Destroy: ${this.title()}`);
    this.refs.console.hidden = !this.doc.status;
  }

  // sendAction sends a button's request and shows its error. It does not wait for other requests: the user can destroy
  // a machine whose other actions hang, and the daemon handles repeated requests.
  async sendAction(method, path, body) {
    this.pendingRequests++;
    this.refs.node.setAttribute('aria-busy', 'true');
    setText(this.refs.failure, '');
    try {
      await request(method, path, { body });
    } catch (error) {
      if (error.status !== 404) setText(this.refs.failure, error.message);
    } finally {
      if (--this.pendingRequests === 0) this.refs.node.removeAttribute('aria-busy');
      this.onChange(this.doc.id);
    }
  }

  async power(action) {
    const { id } = this.doc;
    if (destructiveActions[action] && !await confirm({
      title: `${destructiveActions[action]} ${this.title()}?`,
      text: 'The guest cannot prepare for this. Data that it has not written to its disk is lost.',
      action: destructiveActions[action],
    })) return;
    await this.sendAction('POST', vmPath(id, '/power'), JSON.stringify({ action }));
  }

  async destroy() {
    const text = 'The machine and everything on its disk are deleted. Its image stays in the cache.';
    if (await confirm({ title: `Destroy ${this.title()}?`, text, action: 'Destroy' })) await this.sendAction('DELETE', vmPath(this.doc.id));
  }

  // refreshScreenshot updates the thumbnail if the machine is powered on. The thumbnail's space is reserved from the
  // start, so that nothing moves.
  async refreshScreenshot() {
    const { thumbnail, screenshot } = this.refs;
    const on = this.doc.status === 'powered-on';
    thumbnail.hidden = !this.doc.status || this.noScreenshots;
    thumbnail.disabled = !on;
    if (!on) screenshot.hidden = true;
    if (!on || this.noScreenshots || this.loadingScreenshot) return;
    this.loadingScreenshot = true;
    try {
      await loadScreenshot(this.doc.id, screenshot);
      screenshot.hidden = this.doc.status !== 'powered-on';
    } catch (error) {
      screenshot.hidden = true; // the dialog shows the error; the card has no space for it
      this.noScreenshots = thumbnail.hidden = error.status === 501;
    } finally {
      this.loadingScreenshot = false;
    }
  }

  // isVisible reports whether the card is in the visible part of the page.
  isVisible() {
    const box = this.refs.node.getBoundingClientRect();
    return box.bottom > 0 && box.top < innerHeight;
  }

  // updateConsole follows the console while it is open and the page is visible.
  updateConsole() {
    this.stopConsole();
    if (!this.refs.console.open || document.hidden) return;
    if (openConsoles.length === maxOpenConsoles) openConsoles[0].refs.console.open = false;
    openConsoles.push(this);
    this.consoleAbort = new AbortController();
    this.refs.log.setAttribute('aria-label', `Console of ${this.title()}`);
    followConsole(this.doc.id, this.refs.log, this.refs.consoleStatus, this.consoleAbort.signal);
  }

  stopConsole() {
    this.consoleAbort?.abort();
    if (openConsoles.includes(this)) openConsoles.splice(openConsoles.indexOf(this), 1);
  }

  // remove removes the card. If it contained the focus, next gets it.
  remove(next) {
    this.stopConsole();
    const hadFocus = this.refs.node.contains(document.activeElement);
    if (this.refs.screenshot.src) URL.revokeObjectURL(this.refs.screenshot.src);
    this.refs.node.remove();
    if (hadFocus) next.focus();
    setStatusMessage(`${this.title()} was destroyed`);
  }
}
