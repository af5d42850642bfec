// One machine: its card on the page, and what its buttons do.

import { clone, distance, facts, fileName, moment, say, size, text } from './dom.js';
import { request, vm } from './api.js';
import { confirm, screenshot, watchScreen } from './dialogs.js';
import { followConsole } from './console.js';

// powers says which actions a power state allows.
const powers = {
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

// risky are the actions that may lose what the guest has not written.
const risky = { off: 'Power off', reset: 'Reset' };

const made = ['ready', 'failed'];

// followed are the machines whose consoles are open, the oldest first. Each
// takes one of the few connections that the browser has to the daemon.
const followed = [];
const mostFollowed = 3;

// Machine is a card. changed is called once an action has changed its machine.
export class Machine {
  constructor(doc, changed) {
    this.changed = changed;
    this.busy = 0; // requests under way
    this.blind = false; // there are no screens to be had
    this.refs = clone('machine');
    const r = this.refs;
    r.node.dataset.id = doc.id;
    r.destroy.onclick = () => this.destroy();
    r.thumb.onclick = () => watchScreen(this.doc.id, this.title());
    r.console.ontoggle = () => this.console();
    for (const b of r.actions.querySelectorAll('[data-power]')) b.onclick = () => this.power(b.dataset.power);
    this.update(doc);
  }

  title() { return `${this.name} ${this.doc.id.slice(0, 8)}`; }

  update(doc) {
    const before = this.doc;
    this.doc = doc;
    this.name = doc.image?.url ? fileName(doc.image.url) : 'Machine';
    const r = this.refs;
    const focused = r.node.contains(document.activeElement) && document.activeElement;
    text(r.name, this.name);
    text(r.id, doc.id.slice(0, 8));
    text(r.phase, doc.phase || 'unreadable');
    r.node.dataset.phase = doc.phase || 'unreadable';
    text(r.status, doc.status);
    r.status.dataset.status = doc.status;
    text(r.error, doc.error ? `${doc.error.message} (${doc.error.code})` : '');
    this.line();
    this.progress();
    this.address();
    this.details();
    this.buttons();
    if (focused && focused.closest('[hidden]')) r.heading.focus();
    if (before && before.phase !== doc.phase) say(`${this.title()} is ${doc.phase}`);
    if (before?.status !== doc.status) this.look();
  }

  line() {
    const d = this.doc;
    const parts = [d.cpus && `${d.cpus} CPU${d.cpus === 1 ? '' : 's'}`, d.memory, d.network_type, d.guest_os, d.created_at && `made ${distance(d.created_at)}`];
    if (d.expires_at) parts.push(`expires ${distance(d.expires_at)}`);
    text(this.refs.line, parts.filter(Boolean).join(' · '));
  }

  progress() {
    const { phase, progress: p } = this.doc;
    const { bar, bytes, progress } = this.refs;
    progress.hidden = made.includes(phase) || !phase;
    bar.setAttribute('aria-label', `${this.name}: ${phase}`);
    if (p?.total) {
      bar.max = p.total;
      bar.value = Math.min(p.bytes, p.total);
      text(bytes, `${size(p.bytes)} of ${size(p.total)}, ${Math.floor(100 * Math.min(1, p.bytes / p.total))} %`);
    } else {
      bar.removeAttribute('value');
      text(bytes, p?.bytes ? size(p.bytes) : '');
    }
  }

  // address has its place for as long as the machine is on, so that its buttons
  // stay where they are when the address comes.
  address() {
    const { status, ip_address: ip, port_forwards: forwards = [] } = this.doc;
    const all = forwards.length ? forwards.map((f) => [`${ip}:${f.host}`, ` leads to port ${f.guest}`]) : ip ? [[ip, '']] : [];
    const address = this.refs.address;
    const now = JSON.stringify(all);
    address.hidden = status !== 'powered-on';
    if (address.dataset.now === now) return;
    address.dataset.now = now;
    address.replaceChildren(...all.map(([where, what]) => {
      const span = document.createElement('span');
      const code = document.createElement('code');
      code.textContent = where;
      span.append(code, what);
      return span;
    }));
    if (all.length === 0) address.textContent = 'No address yet';
  }

  details() {
    const d = this.doc;
    const c = d.callback;
    facts(this.refs.facts, [
      ['ID', d.id], ['Image', d.image?.url], [d.image?.checksum_type, d.image?.checksum], ['MAC address', d.mac_address],
      ['Addresses', d.addresses?.join(', ')], ['Tools', d.tools_status], ['Hypervisor', d.hypervisor],
      ['Callback', c && `${c.url}: ${c.state}${c.last_error ? `, ${c.last_error}` : ''}`],
      ['Made', moment(d.created_at)], ['Changed', moment(d.updated_at)], ['Expires', moment(d.expires_at)],
    ]);
  }

  buttons() {
    const allowed = (this.doc.phase !== 'destroying' && powers[this.doc.status]) || [];
    for (const b of this.refs.actions.querySelectorAll('[data-power]')) {
      b.hidden = !allowed.includes(b.dataset.power);
      b.setAttribute('aria-label', `${b.textContent}: ${this.title()}`);
    }
    this.refs.actions.hidden = allowed.length === 0;
    this.refs.thumb.setAttribute('aria-label', `Screen: ${this.title()}`);
    this.refs.destroy.hidden = this.doc.phase === 'destroying';
    this.refs.destroy.setAttribute('aria-label', `Destroy: ${this.title()}`);
    this.refs.console.hidden = !this.doc.status;
  }

  // act sends a request for one of the buttons, and shows what is wrong. It waits
  // for no other: to destroy a machine that hangs is what the button is for, and
  // what is asked for twice the daemon does once.
  async act(method, path, body) {
    this.busy++;
    this.refs.node.setAttribute('aria-busy', 'true');
    text(this.refs.failure, '');
    try {
      await request(method, path, { body });
    } catch (error) {
      if (error.status !== 404) text(this.refs.failure, error.message);
    } finally {
      if (--this.busy === 0) this.refs.node.removeAttribute('aria-busy');
      this.changed(this.doc.id);
    }
  }

  async power(action) {
    const { id } = this.doc;
    if (risky[action] && !await confirm({
      title: `${risky[action]} ${this.title()}?`,
      words: 'The guest is not asked: what it has not written to its disk is lost.',
      yes: risky[action],
    })) return;
    await this.act('POST', vm(id, '/power'), JSON.stringify({ action }));
  }

  async destroy() {
    const words = 'The machine and all that is on its disk go for good. Its image stays.';
    if (await confirm({ title: `Destroy ${this.title()}?`, words, yes: 'Destroy' })) await this.act('DELETE', vm(this.doc.id));
  }

  // look takes a new picture of the screen, where there is one to be seen. Its
  // place is kept free from the start: nothing moves under a pointer.
  async look() {
    const { thumb, shot } = this.refs;
    const on = this.doc.status === 'powered-on';
    thumb.hidden = !this.doc.status || this.blind;
    thumb.disabled = !on;
    if (!on) shot.hidden = true;
    if (!on || this.blind || this.looking) return;
    this.looking = true;
    try {
      await screenshot(this.doc.id, shot);
      shot.hidden = this.doc.status !== 'powered-on';
    } catch (error) {
      shot.hidden = true; // the dialog says why; a card has no room for it
      this.blind = thumb.hidden = error.status === 501;
    } finally {
      this.looking = false;
    }
  }

  // inView tells whether the card is to be seen.
  inView() {
    const box = this.refs.node.getBoundingClientRect();
    return box.bottom > 0 && box.top < innerHeight;
  }

  // console follows the console while it is open and the page is to be seen.
  console() {
    this.unfollow();
    if (!this.refs.console.open || document.hidden) return;
    if (followed.length === mostFollowed) followed[0].refs.console.open = false;
    followed.push(this);
    this.following = new AbortController();
    this.refs.log.setAttribute('aria-label', `Console of ${this.title()}`);
    followConsole(this.doc.id, this.refs.log, this.refs.consoleState, this.following.signal);
  }

  unfollow() {
    this.following?.abort();
    if (followed.includes(this)) followed.splice(followed.indexOf(this), 1);
  }

  // remove takes the card away. Where the focus was in it, next gets it.
  remove(next) {
    this.unfollow();
    const focused = this.refs.node.contains(document.activeElement);
    if (this.refs.shot.src) URL.revokeObjectURL(this.refs.shot.src);
    this.refs.node.remove();
    if (focused) next.focus();
    say(`${this.title()} is gone`);
  }
}
