// Package cloudinit writes what a machine's request has for its guest in the forms that guests read: the settings that
// cloud-init and cloudbase-init read on VMware, the NoCloud disk that they read elsewhere, and the credentials that
// systemd reads by itself.
//
// The disk is written here, because it has two files in one folder, each part at a fixed place. Libraries for ISO 9660
// write to temporary files first, where secrets do not belong, and some write only names that cloud-init does not find.
//
// Each form has the machine's id as the instance id, by which cloud-init knows that a machine is a new one.
package cloudinit
