// One machine in the list: a row, and its card if it is open.

import { cloneTemplate, copyText, fileName, formatAge, formatBytes, formatDate, plural, setStatusMessage, setText, setTime } from './dom.js';
import { noAnswer, request } from './api.js';
import { Card, setProgress } from './card.js';
import { destroy, power, retry } from './actions.js';
import { mainAction, stateOf } from './state.js';
import { saveView, setMember, view } from './view.js';

// Machine shows a machine. It calls
//   list.changed(id) after an action,
//   list.created(doc) for a machine that an action created, and
//   list.selected(machine, event) when the user has selected or unselected it.
export class Machine {
  constructor(doc, list) {
    this.id = doc.id;
    this.list = list;
    this.pendingRequests = 0;
    this.card = null;
    this.screenshot = ''; // the blob: URL of the last one, which a suspended machine keeps
    const r = this.refs = cloneTemplate('machine-template');
    r.node.dataset.id = doc.id;
    r.toggle.onclick = () => this.setOpen(!this.card, true);
    r.copy.onclick = () => copyText(r.copy, this.id);
    r.select.onclick = (event) => list.selected(this, event);
    r.action.onclick = () => this.act(mainAction(this.doc).name);
    r.destroy.onclick = () => destroy(this);
    this.update(doc);
    if (view.open.includes(doc.id)) this.setOpen(true);
  }

  title() { return this.doc.name || `${this.imageName} ${this.id.slice(0, 8)}`; }

  update(doc) {
    const previous = this.doc;
    this.doc = doc;
    this.state = stateOf(doc);
    this.imageName = doc.image?.url ? fileName(doc.image.url) : 'Machine';
    const r = this.refs;
    const focused = r.node.contains(document.activeElement) && document.activeElement;
    setText(r.name, doc.name ?? '');
    setText(r.id, doc.name ? '' : doc.id.slice(0, 8));
    r.node.dataset.state = this.state.name;
    r.node.dataset.group = this.state.group;
    setText(r.state, this.stateText());
    const warnings = doc.warnings?.length ?? 0;
    setText(r.warned, warnings ? `⚠ ${warnings}` : '');
    r.warned.title = warnings ? plural(warnings, 'warning') : '';
    setText(r.image, this.imageName);
    r.image.title = doc.image?.url ?? '';
    setTime(r.age, doc.created_at, formatAge(doc.created_at));
    r.age.title = [`Created ${formatDate(doc.created_at)}`, doc.expires_at && `expires ${formatDate(doc.expires_at)}`].filter(Boolean).join(', ');
    this.updateAddress();
    this.updateButtons();
    this.card?.update();
    if (focused && !focused.checkVisibility()) r.toggle.focus();
    if (previous && this.state.name !== stateOf(previous).name) {
      this.setFailure(); // it belongs to the previous state
      setStatusMessage(`${this.title()} is ${this.state.name}`);
    }
  }

  stateText() {
    const { phase, progress: p } = this.doc;
    if (this.state.group !== 'creating' || !p?.total) return this.state.name;
    return `${phase} ${Math.floor(100 * Math.min(1, p.bytes / p.total))} %`;
  }

  // updateAddress shows what matters most of the machine now: its address, the progress of its creation, or why it failed.
  updateAddress() {
    const { progress: p, ip_address: ip, port_forwards: forwards = [], error } = this.doc;
    const { addressText, bar, address } = this.refs;
    let text = this.state.name === 'ready' ? 'no address yet' : '';
    if (error) text = error.code.replaceAll('-', ' ');
    else if (this.state.group === 'creating') text = p?.bytes ? [formatBytes(p.bytes), p.total && formatBytes(p.total)].filter(Boolean).join(' of ') : '';
    else if (ip) text = forwards.length ? forwards.map((f) => `${ip}:${f.host}`).join(', ') : ip;
    setText(addressText, text);
    address.title = error ? error.message : text;
    address.classList.toggle('mono', Boolean(ip) && !error);
    setProgress(bar, this.doc, this.title());
  }

  updateButtons() {
    const r = this.refs;
    const main = mainAction(this.doc);
    setText(r.action, main?.label ?? '');
    setText(r.destroy, this.doc.phase === 'failed' ? 'Remove' : 'Destroy');
    r.destroy.hidden = this.doc.phase === 'destroying';
    r.select.disabled = r.destroy.hidden;
    for (const b of [r.action, r.destroy, r.copy]) b.setAttribute('aria-label', `${b.textContent}: ${this.title()}`);
    r.copy.setAttribute('aria-label', `Copy the id of ${this.title()}`);
    r.select.setAttribute('aria-label', `Select ${this.title()}`);
  }

  // setOpen shows or removes the card. If remember is set, a reload keeps it so.
  setOpen(open, remember = false) {
    if (open !== Boolean(this.card)) {
      this.card?.remove();
      this.card = open ? new Card(this) : null;
      this.refs.toggle.setAttribute('aria-expanded', String(open));
      this.refs.node.classList.toggle('open', open);
    }
    if (!remember) return;
    setMember('open', this.id, open);
    if (!open) setMember('consoles', this.id, false);
  }

  // act does what a button of the machine is for.
  act(name) {
    return name === 'retry' ? retry(this, this.list.created) : power(this, name);
  }

  // send sends a button's request, shows its error, and returns whether it succeeded. It does not wait for other
  // requests: the user can destroy a machine whose other actions hang, and the daemon handles repeated requests.
  async send(method, path, body) {
    this.pendingRequests++;
    this.refs.node.setAttribute('aria-busy', 'true');
    this.setFailure();
    try {
      await request(method, path, { body });
      return true;
    } catch (error) {
      if (error.status === 404) return true; // it is gone, and the list will notice
      this.setFailure(error);
      return false;
    } finally {
      if (--this.pendingRequests === 0) this.refs.node.removeAttribute('aria-busy');
      this.list.changed(this.id);
    }
  }

  setFailure(error) {
    this.failureCode = error?.code;
    setText(this.refs.failure, error?.message ?? '');
    this.refs.failureRow.hidden = !error;
  }

  // clearLostAnswer removes the message that the daemon did not answer, once it does.
  clearLostAnswer() {
    if (this.failureCode === noAnswer) this.setFailure();
  }

  // matches reports whether a search finds the machine.
  matches(words) {
    const d = this.doc;
    const text = [d.name, d.id, d.ip_address, ...(d.addresses ?? []), d.mac_address, d.image?.url, d.image?.checksum, this.state.name, d.error?.code].join(' ').toLowerCase();
    return words.every((word) => text.includes(word));
  }

  // remove removes the row of a machine that does not exist any more.
  remove() {
    this.card?.remove();
    if (this.screenshot) URL.revokeObjectURL(this.screenshot);
    this.refs.node.remove();
    view.open = view.open.filter((id) => id !== this.id);
    view.consoles = view.consoles.filter((id) => id !== this.id);
    saveView();
    setStatusMessage(`${this.title()} was ${this.doc.phase === 'failed' ? 'removed' : 'destroyed'}`);
  }
}
