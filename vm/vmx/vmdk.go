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

// The limits of a VMDK file.
const (
	sectorSize    = 512
	maxDescriptor = 1 << 20                    // bytes; QEMU reads one byte less
	maxExtents    = 10_000                     // a split disk of 20 TB
	maxSectors    = int64(64<<40) / sectorSize // 64 TiB, more than VMware allows
	qemuWindow    = 20 * sectorSize            // where QEMU searches for the parent
	headerSize    = 2 * sectorSize             // enough to identify any format
)

// VMDK is the description of a disk in a VMware disk file.
type VMDK struct {
	CreateType string // such as "monolithicSparse"
	Capacity   int64  // bytes

	// Extents are the files with the disk's data, in order. A file that contains its descriptor is its own only extent.
	Extents []Extent

	// Parent is the disk on which this one is based, relative to the folder of this file, or "".
	Parent string

	// Embedded is true if the descriptor is in the header of a sparse file.
	Embedded bool

	listed   []Extent // in an embedded descriptor; outdated if the file was renamed
	desc     descriptor
	qemuText []byte // where QEMU searches for the parent
}

// Extent is a part of a disk.
type Extent struct {
	Access  string // "RW", "RDONLY" or "NOACCESS"
	Type    string // "FLAT", "SPARSE", "ZERO", "VMFS", ...
	File    string // relative to the descriptor's folder, or "" for a ZERO extent
	Sectors int64  // length in sectors of 512 bytes
	Offset  int64  // of a FLAT extent in its file, in sectors

	// HasOffset is true if the descriptor has an offset for the extent. QEMU opens only FLAT extents that have one.
	HasOffset bool
}

// ReadVMDK reads the descriptor of the disk at name inside root, from a text file or the header of a sparse file. It
// opens no other file, reads at most 1 MiB, and refuses more than 10,000 extents or 64 TiB. An error about the contents
// is a [*CheckError]. It is hostile if the file is not a VMDK.
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
		err = &CheckError{Reason: "the file is empty or truncated; it is not a VMDK"}
	case kind == formatSparse:
		v, err = readEmbedded(file, head, info.Size(), path.Base(name))
	case kind == formatText:
		v, err = readText(file, info.Size())
	case kind == formatCOWD:
		err = &CheckError{Reason: "the file is an extent of an ESX disk, not a disk; name its text descriptor"}
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
		return VMDK{}, &CheckError{Reason: fmt.Sprintf("the descriptor has %d bytes; the limit is %d", size, maxDescriptor-1)}
	}
	text, err := readAt(file, 0, maxDescriptor)
	if err != nil {
		return VMDK{}, err
	}
	if before, after, _ := bytes.Cut(text, []byte{0}); !isLeftover(before, bytes.TrimRight(after, "\x00")) {
		return VMDK{}, &CheckError{Reason: "the descriptor contains NUL bytes; it is not a text file"}
	}
	d, err := parseDescriptor(text)
	if err != nil {
		return VMDK{}, err
	}
	v := VMDK{CreateType: d.createType, Extents: d.extents, Parent: d.parent, desc: d}
	v.qemuText = text[:min(len(text), qemuWindow)]
	var sectors int64
	for _, e := range d.extents {
		sectors += e.Sectors // cannot overflow: at most 10,000 times 2^37
	}
	if sectors > maxSectors {
		return VMDK{}, &CheckError{Reason: "the extents add up to more than 64 TiB"}
	}
	v.Capacity = sectors * sectorSize
	return v, nil
}

// isLeftover reports whether what follows the end of a descriptor is what QEMU leaves there: if it replaces the CID by
// a shorter one, the text moves, and its last bytes stay behind a NUL byte.
func isLeftover(text, after []byte) bool { return len(after) < 8 && bytes.HasSuffix(text, after) }

func readEmbedded(file *os.File, head []byte, size int64, self string) (VMDK, error) {
	h, err := readSparseHeader(file, head, size)
	if err != nil {
		return VMDK{}, err
	}
	if h.descriptor == 0 || h.descriptorSize == 0 {
		return VMDK{}, &CheckError{Reason: "the file is an extent of a split disk, not a disk; name its text descriptor"}
	}
	text, err := readAt(file, h.descriptor*sectorSize, int(min(h.descriptorSize*sectorSize, maxDescriptor)))
	if err != nil {
		return VMDK{}, err
	}
	d, err := parseDescriptor(text)
	if err != nil {
		return VMDK{}, err
	}
	v := VMDK{CreateType: d.createType, Parent: d.parent, Embedded: true, listed: d.extents, desc: d}
	v.Capacity = h.capacity * sectorSize
	v.Extents = []Extent{{Access: "RW", Type: "SPARSE", File: self, Sectors: h.capacity}}
	// QEMU searches the parent here, even if the header says that the descriptor is elsewhere.
	v.qemuText, err = readAt(file, sectorSize, qemuWindow)
	return v, err
}

// openRegular opens a file inside root. It returns a [*CheckError] if checkRegular refuses the path.
func openRegular(root *os.Root, name string) (*os.File, error) {
	if err := checkRegular(root, name); err != nil {
		return nil, err
	}
	return root.Open(name)
}

// checkRegular refuses a path that does not lead through folders to a regular file.
func checkRegular(root *os.Root, name string) error {
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
			return &CheckError{File: name, Hostile: true, Reason: "the path is not that of a regular file in plain folders"}
		}
	}
	return nil
}

// readAt reads n bytes at an offset, or fewer at the end of the file.
func readAt(file *os.File, offset int64, n int) ([]byte, error) {
	return io.ReadAll(io.NewSectionReader(file, offset, int64(n)))
}
