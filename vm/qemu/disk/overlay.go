package disk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"osx-builder/vm/qemu/process"
)

// The layout of an empty overlay, which is that of qemu-img: a cluster each for the header, the table of refcount blocks
// and the first of these, then the L1 table, which is empty.
const (
	clusterBits  = 16
	clusterBytes = 1 << clusterBits
	l1Cluster    = 3
	l1Bytes      = clusterBytes / 8 * clusterBytes // of the disk for each entry of the L1 table
	maxL1Entries = 32 << 20 / 8                    // QEMU's own limit

	headerLength = 112 // with the compression type, which is zero
	nameOffset   = 512 // of the backing file's name
	maxName      = 1023
)

// CreateOverlay creates the disk's empty overlay in dir and syncs it. It writes the file itself, because starting
// qemu-img takes ten times as long. [Disk.Blockdev] checks the same header before each start.
func (d *Disk) CreateOverlay(dir string) error {
	f, err := process.CreateOwned(filepath.Join(dir, d.Overlay), os.O_RDWR)
	if err != nil {
		return err
	}
	err = d.writeEmpty(f)
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("creating the overlay of disk %s: %w", d.Slot(), err)
	}
	return nil
}

// writeEmpty writes the overlay into an empty file. What it leaves out is zero.
func (d *Disk) writeEmpty(f *os.File) error {
	entries := (d.Size + l1Bytes - 1) / l1Bytes
	if entries > maxL1Entries {
		return InvalidImage("disk %s has %d bytes; on QEMU it can have at most %d", d.Slot(), d.Size, int64(maxL1Entries)*l1Bytes)
	}
	header, err := d.emptyHeader(uint32(entries)) // #nosec G115
	if err != nil {
		return err
	}
	clusters := l1Cluster + (entries*8+clusterBytes-1)/clusterBytes
	if err := f.Truncate(clusters * clusterBytes); err != nil {
		return err
	}
	counts := bytes.Repeat([]byte{0, 1}, int(clusters)) // each cluster is used once
	for _, part := range []struct {
		cluster int64
		content []byte
	}{
		{0, header},
		{1, binary.BigEndian.AppendUint64(nil, 2*clusterBytes)},
		{2, counts},
	} {
		if _, err := f.WriteAt(part.content, part.cluster*clusterBytes); err != nil {
			return err
		}
	}
	return f.Sync()
}

// emptyHeader returns the header of an overlay whose L1 table has so many entries.
func (d *Disk) emptyHeader(entries uint32) ([]byte, error) {
	format, below := d.below()
	if len(below) > maxName {
		return nil, fmt.Errorf("the path %s has %d bytes; QEMU allows %d; choose a shorter one with -data", below, len(below), maxName)
	}
	var b bytes.Buffer
	err := binary.Write(&b, binary.BigEndian, qcow2Header{
		Magic: qcow2Magic, Version: 3,
		BackingOffset: nameOffset, BackingSize: uint32(len(below)), // #nosec G115
		ClusterBits: clusterBits, Size: uint64(d.Size), // #nosec G115
		L1Size: entries, L1Offset: l1Cluster * clusterBytes,
		RefcountOffset: clusterBytes, RefcountClusters: 1,
		RefcountOrder: 4, HeaderLength: headerLength,
	})
	if err != nil {
		return nil, err
	}
	header := make([]byte, nameOffset, nameOffset+len(below))
	copy(header, b.Bytes())
	extension := header[headerLength:]
	binary.BigEndian.PutUint32(extension, extensionBackingFormat)
	binary.BigEndian.PutUint32(extension[4:], uint32(len(format))) // #nosec G115
	copy(extension[8:], format)                                    // the zeroes that follow end the extensions
	return append(header, below...), nil
}
