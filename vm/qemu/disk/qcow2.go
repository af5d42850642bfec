package disk

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"

	"osx-builder/vm"
)

// The parts of a qcow2 header that the check needs, as in QEMU's docs/interop/qcow2.txt.
const (
	qcow2Magic = 0x514649fb // "QFI\xfb"

	dirty = 1 << 0 // incompatible feature: QEMU did not close the file; it repairs it

	extensionEnd           = 0
	extensionBackingFormat = 0xe2792aca
	extensionFeatureNames  = 0x6803f857

	// headerBytes is how much of the file the check reads: a cluster, in which qemu-img puts the whole header.
	headerBytes = 64 << 10
)

// qcow2Header is the fixed part of the header of version 3.
type qcow2Header struct {
	Magic, Version              uint32
	BackingOffset               uint64
	BackingSize                 uint32
	ClusterBits                 uint32
	Size                        uint64
	CryptMethod                 uint32
	L1Size                      uint32
	L1Offset                    uint64
	RefcountOffset              uint64
	RefcountClusters            uint32
	Snapshots                   uint32
	SnapshotsOffset             uint64
	Incompatible                uint64
	Compatible, Autoclear       uint64
	RefcountOrder, HeaderLength uint32
}

// headerError is what is wrong with an overlay's header.
type headerError string

func (e headerError) Error() string { return string(e) }

// checkOverlay returns an error unless the header of the disk's overlay says what CreateOverlay wrote: the size, the
// backing file and its format, and nothing that makes QEMU open another file. A QEMU that a guest took over may have
// changed it.
func (d *Disk) checkOverlay(f io.ReaderAt) error {
	head := make([]byte, headerBytes)
	n, err := f.ReadAt(head, 0)
	if err != nil && err != io.EOF {
		return fmt.Errorf("reading the header: %w", err)
	}
	head = head[:n]
	var h qcow2Header
	if err := binary.Read(bytes.NewReader(head), binary.BigEndian, &h); err != nil {
		return headerError("it is too short for a qcow2 file")
	}
	format, below := d.below()
	switch {
	case h.Magic != qcow2Magic || h.Version != 3:
		return headerError(fmt.Sprintf("it is no qcow2 file of version 3 (magic %#x, version %d)", h.Magic, h.Version))
	case h.Incompatible&^dirty != 0:
		return headerError(fmt.Sprintf("it has the incompatible features %#x", h.Incompatible))
	case h.Autoclear != 0:
		return headerError(fmt.Sprintf("it has the autoclear features %#x", h.Autoclear))
	case h.CryptMethod != 0:
		return headerError("it is encrypted")
	case h.Snapshots != 0:
		return headerError(fmt.Sprintf("it has %d internal snapshots", h.Snapshots))
	case h.Size != uint64(d.Size): // #nosec G115
		return headerError(fmt.Sprintf("its disk has %d bytes, not %d", h.Size, d.Size))
	case h.HeaderLength < 104 || h.HeaderLength%8 != 0 || int(h.HeaderLength) > len(head):
		return headerError(fmt.Sprintf("its header claims %d bytes", h.HeaderLength))
	case !contains(head, h.BackingOffset, uint64(h.BackingSize), below):
		return headerError("its backing file is not the image's")
	}
	return checkExtensions(head[h.HeaderLength:min(h.BackingOffset, uint64(len(head)))], format)
}

// contains reports whether the text at the offset is want.
func contains(head []byte, offset, size uint64, want string) bool {
	return size == uint64(len(want)) && offset <= uint64(len(head)) && size <= uint64(len(head))-offset && string(head[offset:offset+size]) == want
}

// checkExtensions checks the header extensions: a type, a length, and data that is padded to a multiple of 8 bytes.
func checkExtensions(b []byte, format string) error {
	for len(b) >= 8 {
		kind, size := binary.BigEndian.Uint32(b), int(binary.BigEndian.Uint32(b[4:]))
		b = b[8:]
		if size > len(b) {
			return headerError(fmt.Sprintf("its header extension %#x is longer than the header", kind))
		}
		switch kind {
		case extensionEnd:
			return nil
		case extensionFeatureNames:
		case extensionBackingFormat:
			if string(b[:size]) != format {
				return headerError(fmt.Sprintf("its backing file's format is %q, not %s", b[:size], format))
			}
		default:
			return headerError(fmt.Sprintf("it has the header extension %#x", kind))
		}
		b = b[min(len(b), (size+7)&^7):]
	}
	return headerError("its header extensions have no end")
}

// below returns the format and the path of the file right below the overlay.
func (d *Disk) below() (format, path string) {
	switch {
	case d.Frozen != "":
		return "qcow2", d.Frozen
	case d.Base != "":
		return "qcow2", d.Base
	}
	return "vmdk", d.Backing[0]
}

// replaced returns the client's error for a machine's file that is not as the daemon left it.
func replaced(path string, err error) error {
	return &vm.Error{
		Code:    vm.CodeHypervisor,
		Message: fmt.Sprintf("the machine's file %s is not as it must be: %v; destroy the machine and create it again", path, err),
		Err:     err,
	}
}
