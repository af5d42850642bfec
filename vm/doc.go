// Package vm keeps virtual machines. It accepts a request for one, creates it in
// a job of its own, answers for its live state and destroys it.
//
// A machine's life, with the phase that GET /vms/:id shows at each step:
//
//	  Create
//	    │
//	accepted ──▶ downloading ──▶ unpacking ──▶ cloning ──▶ starting ──▶ waiting ──▶ ready
//	    │             │              │            │            │           │          │
//	    │             └──────────────┴────────────┴──────┬─────┴───────────┘          │
//	    │                                              failed                         │
//	    └───────────────── Destroy ──────────────────────┴────────────────────────────┘
//	                          │
//	                     destroying ──▶ gone
//
// Two rules carry the package.
//
// The record is created first and removed last. vms/<id>.json is on disk before
// Create returns, and is removed after everything else of the machine. After a
// crash nothing that was accepted is lost, and Open removes each machine's folder
// that has no record. Files that the daemon did not make stay.
//
// One goroutine changes a machine at a time: its job. Destroy cancels the running
// job, waits for it, and becomes the job. Readers take no lock.
//
// Live state is never stored: each read asks the Driver.
//
// # Glossary
//
//   - machine: a virtual machine that a client asked for, from its acceptance to the end of its destruction
//   - record: the file vms/<id>.json with what was asked for, what was reached and the callbacks to send
//   - job: the one goroutine that changes a machine now: a creation, a destruction, or the sending of its callbacks
//   - settled: of a machine, that its creation has ended: it is ready, failed, or being destroyed
//   - gold image: an unpacked, checked, read-only image in the image cache
//   - linked clone: a machine's disks, which hold only what differs from the gold image
//   - hold: what keeps a gold image in the cache while a machine needs it
//   - promise: the memory that counts as a machine's for as long as it exists
//   - message: one document for a machine's callback; it stays in the record until it is delivered or given up
//   - pool: machines that are prepared up to the last step and wait for a request; they have folders but no records
//   - tombstone: the file vms/<id>.tombstone.json, which replaces the record of a destroyed machine that still has a
//     message to send; readers do not open it, and of too many the oldest is dropped
//   - sweep: to remove, at start, what a crash left and no record owns
package vm
