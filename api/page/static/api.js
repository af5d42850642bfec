// The HTTP API as the page uses it: requests with the token, failures as the
// API words them.

// Failure is an error that a person is told: {code, message, field} as in the
// API's answers. Where there was no answer its code is noAnswer.
export class Failure extends Error {
  constructor({ code, message, field = '' }, status = 0) {
    super(message);
    Object.assign(this, { code, field, status });
  }
}

export const noAnswer = 'no-answer';

// The token is this tab's own, and goes with it.
const tokenKey = 'osx-builder-token';
export const token = {
  get: () => sessionStorage.getItem(tokenKey) ?? '',
  set: (value) => sessionStorage.setItem(tokenKey, value),
  forget: () => sessionStorage.removeItem(tokenKey),
};

// request sends one request and returns its response, or throws a Failure.
// Answers with a status among also are returned, too.
export async function request(method, path, { body, headers = {}, signal, also = [] } = {}) {
  const h = new Headers(headers);
  if (token.get()) h.set('Authorization', `Bearer ${token.get()}`);
  if (body !== undefined) h.set('Content-Type', 'application/json');
  let response;
  try {
    response = await fetch(path, { method, headers: h, body, signal, cache: 'no-store', credentials: 'omit', redirect: 'error' });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Failure({ code: noAnswer, message: 'The daemon does not answer; is it running?' });
  }
  if (response.ok || also.includes(response.status)) return response;
  throw await failure(response);
}

async function failure(response) {
  let said = {};
  try {
    said = await response.json();
  } catch {
    // Not the API's words: a proxy's, or cut off.
  }
  const { code = 'unexpected', message = `The answer is ${response.status} ${response.statusText}, without words` } = said;
  return new Failure({ code, message, field: said.field }, response.status);
}

// json is the document that a GET answers.
export async function json(path, options) {
  const response = await request('GET', path, options);
  try {
    return await response.json();
  } catch (error) {
    if (options?.signal?.aborted) throw error;
    throw new Failure({ code: noAnswer, message: 'The daemon broke off its answer' });
  }
}

// vm is a machine's path.
export const vm = (id, rest = '') => `/vms/${encodeURIComponent(id)}${rest}`;
