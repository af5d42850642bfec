// Package vmware has what all drivers of VMware Fusion and Workstation share: base machines, .vmx files, file locks,
// leases and the meaning of VMware's errors.
//
// Machines are linked clones. To clone a machine, VMware adds a snapshot to it and writes to its files, but an unpacked
// image must not change. So each image has a base: a machine of these drivers that shares the image's disks and has
// the one snapshot that all clones start from.
//
// The drivers keep machines in the same form, so one can continue with the machines of another.
package vmware
