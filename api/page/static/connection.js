// Whether the daemon answers, as the page's header, banner and buttons show it.

import { $, formatTime, setOnline, setStatusMessage, setText } from './dom.js';
import { token } from './api.js';

const labels = { connecting: 'Connecting', live: 'Live', lost: 'Offline', locked: 'Locked' };

let disconnectedAt;

function setConnection(state) {
  $('connection').dataset.state = state;
  setText($('connection'), labels[state]);
  $('form-offline').hidden = state !== 'lost';
  setOnline(state !== 'lost');
}

// isConnected reports whether the daemon answered the last time.
export const isConnected = () => !disconnectedAt;

export function connected() {
  setConnection('live');
  stopCountdown();
  $('offline').hidden = true;
  document.body.classList.remove('stale');
  $('forget-token').hidden = !token.get();
  if (disconnectedAt) setStatusMessage('The daemon answers again');
  disconnectedAt = undefined;
}

// locked is called when the daemon requires a token.
export const locked = () => setConnection('locked');

// disconnected is called when the connection broke, or could not be opened, for the given number of times. The next
// attempt is after delay, in ms.
export function disconnected(error, delay, failures) {
  setConnection('lost');
  disconnectedAt ??= Date.now();
  if (failures < 2) return; // a daemon that is restarted is back soon
  document.body.classList.add('stale');
  setText($('offline-title'), error?.status ? `The daemon sends no events: ${error.message}.` : 'The daemon does not answer.');
  setText($('offline-text'), `The page was last updated at ${formatTime(disconnectedAt)}.`);
  $('offline').hidden = false;
  countDown(Date.now() + delay);
}

let timer;

function stopCountdown() {
  clearTimeout(timer);
  setText($('offline-countdown'), '');
}

// countDown shows the seconds until the next attempt.
function countDown(until) {
  clearTimeout(timer);
  const seconds = Math.ceil((until - Date.now()) / 1000);
  if (seconds <= 0) return setText($('offline-countdown'), 'Trying again now.');
  setText($('offline-countdown'), `Trying again in ${seconds} s.`);
  timer = setTimeout(() => countDown(until), (until - Date.now()) % 1000 || 1000);
}
