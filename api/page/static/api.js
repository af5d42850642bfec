// Requests to the HTTP API, with the token. Errors have the API's messages.

// APIError is an error to show to the user, with the code, message, field and errors of the API's answer. If there was no
// answer, its code is noAnswer.
export class APIError extends Error {
  constructor({ code, message, field = '', errors = [] }, status = 0) {
    super(message);
    Object.assign(this, { code, field, errors, status });
  }
}

export const noAnswer = 'no-answer';

// The token is kept for this tab until it is closed.
const tokenKey = 'osx-builder-token';
export const token = {
  get: () => sessionStorage.getItem(tokenKey) ?? '',
  set: (value) => sessionStorage.setItem(tokenKey, value),
  remove: () => sessionStorage.removeItem(tokenKey),
};

// request sends a request and returns the response. It throws an APIError if the status is an error that is not in
// accept.
export async function request(method, path, { body, headers = {}, signal, accept = [] } = {}) {
  const h = new Headers(headers);
  if (token.get()) h.set('Authorization', `Bearer ${token.get()}`);
  if (body !== undefined) h.set('Content-Type', 'application/json');
  let response;
  try {
    response = await fetch(path, { method, headers: h, body, signal, cache: 'no-store', credentials: 'omit', redirect: 'error' });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new APIError({ code: noAnswer, message: 'The daemon does not answer. Is it running?' });
  }
  if (response.ok || accept.includes(response.status)) return response;
  throw await readError(response);
}

async function readError(response) {
  let body = {};
  try {
    body = await response.json();
  } catch {
    // The answer is not the API's, for example a proxy's, or it is incomplete.
  }
  const { code = 'unexpected', message = `The server returned ${response.status} ${response.statusText}` } = body;
  return new APIError({ code, message, field: body.field, errors: body.errors }, response.status);
}

// getJSON returns the document at path.
export async function getJSON(path, options) {
  const response = await request('GET', path, options);
  try {
    return await response.json();
  } catch (error) {
    if (options?.signal?.aborted) throw error;
    throw new APIError({ code: noAnswer, message: 'The connection to the daemon broke' });
  }
}

// vmPath returns the path of a machine, followed by rest.
export const vmPath = (id, rest = '') => `/vms/${encodeURIComponent(id)}${rest}`;
