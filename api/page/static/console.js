// A machine's serial console, followed while the guest writes.

import { setText, sleep } from './dom.js';
import { request, vmPath } from './api.js';

const tailBytes = 16 << 10; // shown at the start
const maxLength = 128 << 10; // characters kept on the page

// followConsole appends the console's output to log until signal is aborted. It shows errors in status, which
// lies over the log.
export async function followConsole(id, log, status, signal) {
  for (let delay = 1000; !signal.aborted; delay = Math.min(delay * 2, 15_000)) {
    try {
      setText(status, log.textContent ? '' : 'No output yet');
      const response = await request('GET', vmPath(id, `/console?tail=${tailBytes}&follow=1`), { signal });
      log.textContent = '';
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      const strip = controlSequenceStripper();
      for (;;) {
        const { value, done } = await reader.read();
        if (done) break;
        append(log, strip(value));
        setText(status, '');
        delay = 1000;
      }
    } catch (error) {
      if (signal.aborted) return;
      setText(status, error.message ?? 'The connection to the console broke');
      if (error.status === 404 || error.status === 501) return;
    }
    await sleep(delay, signal);
  }
}

// append adds text to the log and scrolls to its end, unless the user has scrolled up.
function append(log, text) {
  const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 24;
  log.textContent = (log.textContent + text).slice(-maxLength);
  if (atEnd) log.scrollTop = log.scrollHeight;
}

// controlSequenceStripper returns a function that removes a terminal's control sequences from text that arrives chunk
// by chunk.
export function controlSequenceStripper() {
  let rest = '';
  return (chunk) => {
    const all = rest + chunk;
    const incomplete = /(?:\x1b(?:\[[0-?]*[ -/]*|\][^\x07\x1b]*|[(-/]*)?|\r)$/.exec(all);
    rest = incomplete && incomplete[0].length < 256 ? incomplete[0] : '';
    return all.slice(0, all.length - rest.length)
      .replace(/\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[(-/]*[0-~]/g, '')
      .replace(/\r+\n/g, '\n')
      .replace(/\r/g, '\n')
      .replace(/[\x00-\x08\x0b-\x1f\x7f]/g, '');
  };
}
