// Package vm keeps virtual machines: it accepts a request for one, builds it
// in a job of its own, answers for its live state and takes it away again.
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
// The record is born first and dies last. vms/<id>.json is on disk before
// Create returns and is removed after all else of the machine is gone. After a
// crash nothing that was accepted is lost, and a folder without a record is
// litter that Open sweeps.
//
// One goroutine changes a machine at a time: its job. Destroy cancels the job
// that runs, waits for it, and becomes the job. Readers take no lock.
//
// What is running is never written down: each read asks the Driver.
package vm
