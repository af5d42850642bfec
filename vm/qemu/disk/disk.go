// Package disk gives machines their disks: a qcow2 overlay over an image's VMDK
// files, or over a qcow2 file that was prepared from them.
package disk

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"

	"osx-builder/vm/vmx"
)

// maxLayers bounds the length of a chain of VMDK files. VMware's own limit is 32.
const maxLayers = 32

// Disk is one hard disk and its place in the machine.
type Disk struct {
	Bus        string `json:"bus"` // "scsi", "sata", "ide" or "nvme"
	Controller int    `json:"controller"`
	Unit       int    `json:"unit"`
	Adapter    string `json:"adapter"` // the SCSI controller's model, or ""

	Overlay string   `json:"overlay"`          // qcow2 file in Machine.Dir
	Backing []string `json:"backing"`          // absolute paths of the VMDK files below it, the uppermost first
	Base    string   `json:"base,omitempty"`   // absolute path of the qcow2 file prepared from those, which replaces them
	Size    int64    `json:"size"`             // bytes
	Frozen  string   `json:"frozen,omitempty"` // qcow2 file in Machine.Dir between the overlay and the image, if the machine started from memory

	slow bool // a layer is sparse or compressed

	// Unprepared says in one line why the disk is slow to read, or is empty.
	Unprepared string `json:"-"`
}

// Slot returns the disk's place in the .vmx, for instance "scsi0:1".
func (d *Disk) Slot() string { return fmt.Sprintf("%s%d:%d", d.Bus, d.Controller, d.Unit) }

// ReadLayers finds the disk's VMDK files in the image folder root: the one that
// the .vmx names, its parent, and so on. It sets Backing and Size.
func (d *Disk) ReadLayers(root *os.Root, name string) error {
	for name = path.Clean(name); ; {
		if len(d.Backing) == maxLayers {
			return InvalidImage("disk %s has more than %d layers of VMDK files", d.Slot(), maxLayers)
		}
		layer, err := vmx.ReadVMDK(root, name)
		if err != nil {
			return ImageError(err)
		}
		d.Backing = append(d.Backing, filepath.Join(root.Name(), filepath.FromSlash(name)))
		d.Size = max(d.Size, layer.Capacity)
		d.slow = d.slow || slices.ContainsFunc(layer.Extents, func(e vmx.Extent) bool { return e.Type == "SPARSE" })
		if layer.Parent == "" {
			return nil
		}
		name = path.Join(path.Dir(name), layer.Parent)
	}
}

// Convert makes [Prepared.Prepare] convert the disk even if QEMU reads its VMDK
// files well: it cannot save the state of a machine that reads VMDK files.
func (d *Disk) Convert() { d.slow = true }

// allocated returns how many bytes of data the disk's VMDK files contain.
func (d *Disk) allocated() (sum int64, err error) {
	for _, file := range d.Backing {
		n, err := allocatedIn(file)
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return sum, nil
}

func allocatedIn(file string) (int64, error) {
	root, err := os.OpenRoot(filepath.Dir(file))
	if err != nil {
		return 0, err
	}
	defer root.Close()
	return vmx.Allocated(root, filepath.Base(file))
}
