// Package vmx reads and edits VMware's machine files: the .vmx, which describes a machine, and the VMDK files, which
// contain its disks.
//
// [File] is a .vmx as a list of lines. Lines that are not edited stay the same, byte for byte. [Hardware] is the
// machine that a .vmx describes. [ReadVMDK] reads the description of a disk. [Check] decides whether a hypervisor may
// open an unpacked image.
//
// The package trusts no input: sizes are bounded, and no file outside the given folder is opened. VMware and QEMU read
// some files differently; the strictest reading decides.
//
// The .vmx grammar is that of VMware's own reader, published in open-vm-tools (lib/dict/dictll.c, lib/misc/vmstdio.c).
// The disk format is that of VMware's technical note "Virtual Disk Format 1.1". How QEMU reads such files is taken from
// its block/vmdk.c.
package vmx
