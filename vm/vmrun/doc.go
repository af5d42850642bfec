// Package vmrun runs machines in VMware Fusion and Workstation through VMware's own command vmrun.
//
// It needs no cgo and no library, and its machines have the same form as those of package vix, so each can continue with
// the machines of the other. Package vmware has what they share.
//
// Each call of vmrun is a process with a deadline. If it is exceeded, the process is killed with the processes that it
// started, and VMware may still finish the work: the next call finds out.
package vmrun
