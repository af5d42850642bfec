// A machine's serial console, followed as the guest writes.

import { pause } from './dom.js';
import { request, vm } from './api.js';

const tail = 16 << 10; // bytes shown at first
const most = 128 << 10; // characters kept on the page

// followConsole writes the console into log until signal is aborted. What is
// wrong goes to state, which keeps its line where it is empty: what is below does
// not move under a pointer.
export async function followConsole(id, log, state, signal) {
  for (let wait = 1000; !signal.aborted; wait = Math.min(wait * 2, 15_000)) {
    try {
      state.textContent = log.textContent ? '' : 'Nothing yet';
      const response = await request('GET', vm(id, `/console?tail=${tail}&follow=1`), { signal });
      log.textContent = '';
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      const plain = cleaner();
      for (;;) {
        const { value, done } = await reader.read();
        if (done) break;
        append(log, plain(value));
        state.textContent = '';
        wait = 1000;
      }
    } catch (error) {
      if (signal.aborted) return;
      state.textContent = error.message ?? 'The console broke off';
      if (error.status === 404 || error.status === 501) return;
    }
    await pause(wait, signal);
  }
}

// append adds to the log and stays at its end, unless someone has scrolled up.
function append(log, more) {
  const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 24;
  log.textContent = (log.textContent + more).slice(-most);
  if (atEnd) log.scrollTop = log.scrollHeight;
}

// cleaner returns a function that takes a terminal's output piece by piece and
// leaves out what moves cursors and changes colours.
export function cleaner() {
  let rest = '';
  return (piece) => {
    const all = rest + piece;
    const open = /(?:\x1b(?:\[[0-?]*[ -/]*|\][^\x07\x1b]*|[(-/]*)?|\r)$/.exec(all);
    rest = open && open[0].length < 256 ? open[0] : '';
    return all.slice(0, all.length - rest.length)
      .replace(/\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[(-/]*[0-~]/g, '')
      .replace(/\r+\n/g, '\n')
      .replace(/\r/g, '\n')
      .replace(/[\x00-\x08\x0b-\x1f\x7f]/g, '');
  };
}
