// The whole life of a machine, by a client whose types are generated from the daemon's OpenAPI document.
// Arguments: the daemon's URL, the image's URL and its SHA-256.
import assert from "node:assert/strict";
import createClient from "openapi-fetch";
import type { components, paths } from "./api.js";

type VM = components["schemas"]["VM"];

const [baseUrl, url, checksum] = process.argv.slice(2);
assert(baseUrl && url && checksum, "arguments: DAEMON IMAGE SHA256");
const api = createClient<paths>({ baseUrl });

// unwrap returns the answer's document, and fails if the answer is an error.
function unwrap<T>(answer: { data?: T; error?: unknown; response: Response }): T {
  assert(answer.data !== undefined, `${answer.response.url}: ${answer.response.status} ${JSON.stringify(answer.error)}`);
  return answer.data;
}

const health = unwrap(await api.GET("/healthz", { params: { query: { verbose: "1" } } }));
assert.equal(health.status, "ok");

// Every invalid field is in the error.
const refused = await api.POST("/vms", { body: { cpus: 0, memory: "1gb", image: { url, checksum: "00" } } });
assert.equal(refused.response.status, 400);
assert.deepEqual(refused.error?.errors?.map((e) => e.field), ["memory", "image.checksum"]);

const created: VM = unwrap(
  await api.POST("/vms", {
    params: { header: { "Idempotency-Key": "typescript" } },
    body: { name: "typescript", memory: "64mib", image: { url, checksum: `sha256:${checksum}` } },
  }),
);
assert.equal(created.phase, "accepted");

const named = { params: { path: { id: "typescript" } } };
const ready = unwrap(await api.GET("/vms/{id}", { params: { path: { id: created.id.slice(0, 8) }, query: { wait: "5m" } } }));
assert.equal(ready.phase, "ready");
assert.equal(ready.name, "typescript");
assert.equal(ready.nics?.[0]?.network_type, ready.network_type);

const list = unwrap(await api.GET("/vms", { params: { query: { phase: "ready" } } }));
assert.deepEqual(list.vms.map((vm) => vm.id), [created.id]);
const images = unwrap(await api.GET("/images"));
assert.equal(images.images[0]?.checksum, checksum);

const extended = unwrap(await api.PATCH("/vms/{id}", { ...named, body: { expires_in: "2h" } }));
assert(extended.expires_at);
const endless = unwrap(await api.PATCH("/vms/{id}", { ...named, body: { expires_in: null } }));
assert.equal(endless.expires_at, undefined);

const suspended = unwrap(await api.POST("/vms/{id}/power", { ...named, body: { action: "suspend" } }));
assert.equal(suspended.status, "suspended");
const conflict = await api.POST("/vms/{id}/power", { ...named, body: { action: "shutdown" } });
assert.equal(conflict.error?.code, "vm-power-state");
unwrap(await api.POST("/vms/{id}/power", { ...named, body: { action: "resume" } }));

const output = await api.GET("/vms/{id}/console", { ...named, parseAs: "text" });
assert.equal(output.response.status, 200); // without a guest the console is empty
const screen = unwrap(await api.GET("/vms/{id}/screenshot", { ...named, parseAs: "arrayBuffer" }));
assert(screen.byteLength > 0);

const destroyed = await api.DELETE("/vms/{id}", named);
assert.equal(destroyed.response.status, 204);
const gone = await api.GET("/vms/{id}", named);
assert.equal(gone.error?.code, "vm-not-found");
console.log("done");
