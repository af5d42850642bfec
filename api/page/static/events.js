// The stream of GET /events, read with fetch: an EventSource cannot send the
// token.

import { request } from './api.js';
import { pause } from './dom.js';

// silence is after how long without a byte the connection counts as dead; the
// daemon sends a comment every 15 s.
const silence = 40_000;

// The waits between two tries, in ms, each with a little chance so that many
// pages do not all come back at once.
const waits = [500, 1000, 2000, 4000, 8000, 15_000];

// follow keeps a stream open for ever. on.event gets each event, on.open is
// called with each new stream, on.lost with the failure and the wait before
// the next try, and returns a promise where that must wait for something else.
// The function that it returns tries again at once.
//
// A hidden page lets go of its stream: a browser has six connections to a
// daemon, for all its tabs together.
export function follow(on) {
  let hurry = new AbortController();
  (async () => {
    for (let failures = 0; ;) {
      await shown();
      let why;
      try {
        await listen(on, () => { failures = 0; });
      } catch (error) {
        why = error;
      }
      if (document.hidden) continue;
      const wait = waits[Math.min(failures++, waits.length - 1)] * (0.8 + 0.4 * Math.random());
      hurry = new AbortController();
      const first = on.lost(why, wait, failures);
      if (first) await first; else await pause(wait, hurry.signal);
    }
  })();
  return () => hurry.abort();
}

// shown ends once the page is to be seen.
async function shown() {
  while (document.hidden) {
    await new Promise((resolve) => { document.addEventListener('visibilitychange', resolve, { once: true }); });
  }
}

// listen reads one stream until it ends or the page is hidden.
async function listen(on, opened) {
  const control = new AbortController();
  const leave = () => { if (document.hidden) control.abort(); };
  document.addEventListener('visibilitychange', leave);
  let timer = setTimeout(() => control.abort(), silence);
  try {
    const response = await request('GET', '/events', { signal: control.signal, headers: { Accept: 'text/event-stream' } });
    opened();
    on.open();
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    const parse = parser(on.event);
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      clearTimeout(timer);
      timer = setTimeout(() => control.abort(), silence);
      parse(value);
    }
  } finally {
    document.removeEventListener('visibilitychange', leave);
    clearTimeout(timer);
    control.abort();
  }
}

// parser returns a function that takes a stream's text piece by piece, and
// calls event with the name and data of each event.
export function parser(event) {
  let rest = '';
  let name = '';
  let data = [];
  return (piece) => {
    const lines = (rest + piece).split(/\r\n|\n/);
    rest = lines.pop();
    for (const line of lines) {
      if (line === '') {
        if (data.length) event(name || 'message', JSON.parse(data.join('\n')));
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
