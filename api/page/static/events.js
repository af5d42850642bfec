// The stream of GET /events. It is read with fetch, because an EventSource cannot send the token.

import { request } from './api.js';
import { sleep } from './dom.js';

// streamTimeout is the time without data after which the connection counts as dead. The daemon sends a comment every
// 15 s.
const streamTimeout = 40_000;

// The delays between two attempts in ms. Each is varied randomly, so that many pages do not reconnect at the same time.
const retryDelays = [500, 1000, 2000, 4000, 8000, 15_000];

// followEvents reads the stream and reconnects when it ends. It calls
//   handlers.event(name, data) for each event,
//   handlers.connected() for each new stream, and
//   handlers.disconnected(error, delay, failures) before it waits for the next attempt. If that returns a promise, it
//   waits for the promise instead of the delay.
// It returns a function that reconnects at once.
//
// While the page is hidden, it closes the stream: a browser opens at most six connections to a daemon, for all tabs
// together.
export function followEvents(handlers) {
  let retryNow = new AbortController();
  (async () => {
    for (let failures = 0; ;) {
      await untilVisible();
      let error;
      try {
        await readStream(handlers, () => { failures = 0; });
      } catch (e) {
        error = e;
      }
      if (document.hidden) continue;
      const delay = retryDelays[Math.min(failures++, retryDelays.length - 1)] * (0.8 + 0.4 * Math.random());
      retryNow = new AbortController();
      const blocker = handlers.disconnected(error, delay, failures);
      if (blocker) await blocker; else await sleep(delay, retryNow.signal);
    }
  })();
  return () => retryNow.abort();
}

// untilVisible resolves when the page is visible.
async function untilVisible() {
  while (document.hidden) {
    await new Promise((resolve) => { document.addEventListener('visibilitychange', resolve, { once: true }); });
  }
}

// readStream reads one stream until it ends or the page is hidden.
async function readStream(handlers, onConnect) {
  const abort = new AbortController();
  const abortIfHidden = () => { if (document.hidden) abort.abort(); };
  document.addEventListener('visibilitychange', abortIfHidden);
  let timer = setTimeout(() => abort.abort(), streamTimeout);
  try {
    const response = await request('GET', '/events', { signal: abort.signal, headers: { Accept: 'text/event-stream' } });
    onConnect();
    handlers.connected();
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    const parse = eventParser(handlers.event);
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      clearTimeout(timer);
      timer = setTimeout(() => abort.abort(), streamTimeout);
      parse(value);
    }
  } finally {
    document.removeEventListener('visibilitychange', abortIfHidden);
    clearTimeout(timer);
    abort.abort();
  }
}

// eventParser returns a function that parses a stream's text chunk by chunk, and calls onEvent with the name and data
// of each event.
export function eventParser(onEvent) {
  let rest = '';
  let name = '';
  let data = [];
  return (chunk) => {
    const lines = (rest + chunk).split(/\r\n|\n/);
    rest = lines.pop();
    for (const line of lines) {
      if (line === '') {
        if (data.length) onEvent(name || 'message', JSON.parse(data.join('\n')));
        name = '';
        data = [];
      } else if (line.startsWith('event:')) {
        name = line.slice(6).trim();
      } else if (line.startsWith('data:')) {
        data.push(line.slice(5).replace(/^ /, ''));
      }
    }
  };
}
