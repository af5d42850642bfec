package vmx

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
)

// Bounds on a VMDK file.
const (
	sectorSize    = 512
	maxDescriptor = 1 << 20                    // bytes; QEMU reads one less
	maxExtents    = 10_000                     // a split disk of 20 TB
	maxSectors    = int64(64<<40) / sectorSize // 64 TiB, more than VMware allows
	qemuWindow    = 20 * sectorSize            // what QEMU searches for a parent
	headerSize    = 2 * sectorSize             // enough to tell any format by
)

// VMDK is what a VMware disk file says of itself.
type VMDK struct {
	CreateType string // such as "monolithicSparse"
	Capacity   int64  // bytes

	// Extents are the files that hold the disk's data, in order. A file with
	// its descriptor inside is its own only extent.
	Extents []Extent

	// Parent is the disk that this one holds the changes to, relative to this
	// file's folder, or "".
	Parent string

	// Embedded is set if the descriptor is in a sparse file's header.
	Embedded bool

	claimed []Extent // of an embedded descriptor; stale if the file was renamed
	desc    descriptor
	qemu    []byte // the bytes in which QEMU looks for a parent
}

// Extent is a stretch of a disk.
type Extent struct {
	Access  string // "RW", "RDONLY" or "NOACCESS"
	Type    string // "FLAT", "SPARSE", "ZERO", "VMFS", ...
	File    string // relative to the descriptor's folder, or "" of a ZERO extent
	Sectors int64  // length in sectors of 512 bytes
	Offset  int64  // in sectors, where a FLAT extent begins in its file
}

// ReadVMDK reads the descriptor of the disk at name inside root, as a text file
// or in the header of a sparse one. It opens no other file, reads at most
// 1 MiB, and refuses more than 10,000 extents and 64 TiB. An error about the
// contents is a *CheckError; it is hostile if the file is no VMDK at all.
func ReadVMDK(root *os.Root, name string) (VMDK, error) {
	file, err := openRegular(root, name)
	if err != nil {
		return VMDK{}, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return VMDK{}, fmt.Errorf("reading %s: %w", name, err)
	}
	head, err := readAt(file, 0, headerSize)
	if err != nil {
		return VMDK{}, fmt.Errorf("reading %s: %w", name, err)
	}

	var v VMDK
	switch kind := formatOf(head); {
	case len(head) < 4:
		err = &CheckError{Reason: "the file is empty or cut short; it is not a VMDK"}
	case kind == formatSparse:
		v, err = readEmbedded(file, head, info.Size(), path.Base(name))
	case kind == formatText:
		v, err = readText(file, info.Size())
	case kind == formatCOWD:
		err = &CheckError{Reason: "the file is an extent of an ESX disk, not a disk; name the text descriptor that belongs to it"}
	default:
		err = &CheckError{Hostile: true, Reason: "the file is " + kind.String() + ", not a VMDK; convert it to one"}
	}
	if refusal, ok := errors.AsType[*CheckError](err); ok {
		refusal.File = name
	} else if err != nil {
		return VMDK{}, fmt.Errorf("reading %s: %w", name, err)
	}
	if err != nil {
		return VMDK{}, err
	}
	return v, nil
}

func readText(file *os.File, size int64) (VMDK, error) {
	if size >= maxDescriptor {
		return VMDK{}, &CheckError{Reason: fmt.Sprintf("the descriptor has %d bytes; at most %d are read", size, maxDescriptor-1)}
	}
	text, err := readAt(file, 0, maxDescriptor)
	if err != nil {
		return VMDK{}, err
	}
	if i := bytes.IndexByte(text, 0); i >= 0 && len(bytes.Trim(text[i:], "\x00")) > 0 {
		return VMDK{}, &CheckError{Reason: "the descriptor has NUL bytes in it; it is not a text file"}
	}
	d, err := parseDescriptor(text)
	if err != nil {
		return VMDK{}, err
	}
	v := VMDK{CreateType: d.createType, Extents: d.extents, Parent: d.parent, desc: d}
	v.qemu = text[:min(len(text), qemuWindow)]
	var sectors int64
	for _, e := range d.extents {
		sectors += e.Sectors // at most 10,000 times 2^37
	}
	if sectors > maxSectors {
		return VMDK{}, &CheckError{Reason: "the extents add up to more than 64 TiB"}
	}
	v.Capacity = sectors * sectorSize
	return v, nil
}

func readEmbedded(file *os.File, head []byte, size int64, self string) (VMDK, error) {
	h, err := readSparseHeader(file, head, size)
	if err != nil {
		return VMDK{}, err
	}
	if h.descriptor == 0 || h.descriptorSize == 0 {
		return VMDK{}, &CheckError{Reason: "the file is an extent of a split disk, not a disk; name the text descriptor that belongs to it"}
	}
	text, err := readAt(file, h.descriptor*sectorSize, int(min(h.descriptorSize*sectorSize, maxDescriptor)))
	if err != nil {
		return VMDK{}, err
	}
	d, err := parseDescriptor(text)
	if err != nil {
		return VMDK{}, err
	}
	v := VMDK{CreateType: d.createType, Parent: d.parent, Embedded: true, claimed: d.extents, desc: d}
	v.Capacity = h.capacity * sectorSize
	v.Extents = []Extent{{Access: "RW", Type: "SPARSE", File: self, Sectors: h.capacity}}
	// QEMU looks for the parent here, wherever the header says the descriptor is.
	v.qemu, err = readAt(file, sectorSize, qemuWindow)
	return v, err
}

// openRegular opens a file inside root. A path that has anything but folders
// on its way to a regular file is a *CheckError.
func openRegular(root *os.Root, name string) (*os.File, error) {
	if err := mustBeRegular(root, name); err != nil {
		return nil, err
	}
	return root.Open(name)
}

func mustBeRegular(root *os.Root, name string) error {
	for i := 0; i <= len(name); i++ {
		if i < len(name) && name[i] != '/' {
			continue
		}
		info, err := root.Lstat(name[:i])
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return &CheckError{File: name, Reason: "the image has no such file"}
		case err != nil:
			return fmt.Errorf("looking at %s: %w", name[:i], err)
		case i < len(name) && !info.IsDir(), i == len(name) && !info.Mode().IsRegular():
			return &CheckError{File: name, Hostile: true, Reason: "this is not a regular file in a plain folder"}
		}
	}
	return nil
}

// readAt reads up to n bytes at an offset; fewer where the file ends.
func readAt(file *os.File, offset int64, n int) ([]byte, error) {
	return io.ReadAll(io.NewSectionReader(file, offset, int64(n)))
}
