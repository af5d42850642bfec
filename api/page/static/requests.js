// The requests of machines, to send them again.

// requestsKey is where this tab keeps the requests of its machines: a document does not show everything of a request.
const requestsKey = 'osx-builder-requests';
const maxRequestsKept = 100;

const keptRequests = () => JSON.parse(sessionStorage.getItem(requestsKey) ?? '[]');

// rememberRequest keeps the request of a new machine for another attempt.
export function rememberRequest(id, body) {
  sessionStorage.setItem(requestsKey, JSON.stringify([...keptRequests(), [id, body]].slice(-maxRequestsKept)));
}

// requestOf returns the request of a machine: the kept one, or what the document shows of it.
export function requestOf(doc) {
  const kept = keptRequests().find(([id]) => id === doc.id);
  if (kept) return kept[1];
  const body = { name: doc.name, image: doc.image, cpus: doc.cpus, memory: doc.memory, network_type: doc.network_type };
  if (doc.tools_init_timeout) body.tools_init_timeout = doc.tools_init_timeout;
  if (doc.launch_gui) body.launch_gui = true;
  if (doc.ready_when) body.ready_when = doc.ready_when;
  if (doc.ready_timeout) body.ready_timeout = doc.ready_timeout;
  if (doc.disk) body.disk = doc.disk;
  if (doc.hostname) body.hostname = doc.hostname;
  if (doc.callback) body.callback_url = doc.callback.url;
  if (doc.expires_at) body.expires_in = Math.round((Date.parse(doc.expires_at) - Date.parse(doc.created_at)) / 1000);
  return body;
}
