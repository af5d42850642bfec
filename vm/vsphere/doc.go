// Package vsphere runs machines on VMware vSphere: on the hosts of a vCenter, or on one ESXi host.
//
// Each image is imported once, as a template, and each machine is a linked clone of the template. Everything that the
// driver has to find again is in vSphere: a machine's id is its instance UUID, and its mark is in its extra
// configuration. README.md beside this file is for operators.
package vsphere
