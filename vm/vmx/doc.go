// Package vmx reads and edits VMware's machine files: the .vmx that describes
// a machine and the VMDK files that hold its disks.
//
// File is a .vmx as its lines; what an edit does not touch stays as it was,
// byte for byte. Hardware is the machine that such a file describes. ReadVMDK
// tells what a disk file says of itself. Check decides whether a hypervisor
// may open an unpacked image at all.
//
// All input is taken to be hostile: sizes are bounded, nothing is opened
// outside the folder given, and a file is judged by the strictest of the ways
// in which VMware and QEMU read it.
//
// The .vmx grammar is that of VMware's own reader, published in open-vm-tools
// (lib/dict/dictll.c, lib/misc/vmstdio.c). The disk format is that of VMware's
// technical note "Virtual Disk Format 1.1"; what QEMU makes of such files is
// taken from its block/vmdk.c.
package vmx
