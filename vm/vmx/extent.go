package vmx

import (
	"fmt"
	"strings"
)

// extentFormats says what the file of an extent must be, told by its content.
// The content of a flat extent is the guest's and may be anything.
//
// QEMU knows no others: it passes over ZERO extents and all that are not
// RW, and everything behind them moves up.
var extentFormats = map[string][]format{
	"FLAT":       nil,
	"VMFS":       nil,
	"SPARSE":     {formatSparse, formatCOWD},
	"VMFSSPARSE": {formatSparse, formatCOWD},
	"SESPARSE":   {formatSESparse},
}

// allowed refuses an extent by its type and name alone.
func allowed(name string, e Extent) error {
	kind := lower(e.Type)
	if strings.Contains(kind, "raw") || strings.Contains(kind, "rdm") || strings.Contains(kind, "device") {
		return &CheckError{File: name, Key: "extent type", Value: e.Type, Hostile: true, Reason: "disks of the host are not opened; convert the disk to monolithicSparse or streamOptimized"}
	}
	if reason := unsafeName(e.File); reason != "" {
		return &CheckError{File: name, Key: "extent", Value: e.File, Hostile: true, Reason: reason}
	}
	return nil
}

// extent checks an extent of the text descriptor at name, and the file that
// holds it.
func (c *checker) extent(name string, e Extent) error {
	if err := allowed(name, e); err != nil {
		return err
	}
	formats, known := extentFormats[e.Type]
	if !known {
		return &CheckError{File: name, Key: "extent type", Value: e.Type, Reason: "extents of this type cannot be opened everywhere; convert the disk to monolithicSparse or streamOptimized"}
	}
	if e.Access != "RW" {
		return &CheckError{File: name, Key: "extent access", Value: e.Access, Reason: "an extent that is not RW cannot be opened everywhere; convert the disk to monolithicSparse or streamOptimized"}
	}
	at, err := c.resolve(name, "extent", e.File)
	if err != nil {
		return err
	}
	file, err := openRegular(c.root, at)
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return fmt.Errorf("reading %s: %w", at, err)
	}
	if formats == nil {
		if need := (e.Offset + e.Sectors) * sectorSize; info.Size() < need {
			return &CheckError{File: name, Key: "extent", Value: e.File, Reason: fmt.Sprintf("the file has %d bytes and the extent reaches to %d; the image is incomplete", info.Size(), need)}
		}
		return nil
	}
	head, err := readAt(file, 0, headerSize)
	if err != nil {
		return fmt.Errorf("reading %s: %w", at, err)
	}
	kind := formatOf(head)
	for _, want := range formats {
		if kind != want {
			continue
		}
		if kind == formatSparse {
			_, err = readSparseHeader(file, head, info.Size())
		}
		return c.blame(name, "extent", e.File, c.blame(at, "", "", err))
	}
	return &CheckError{File: name, Key: "extent", Value: e.File, Hostile: kind.foreign(), Reason: fmt.Sprintf("the file is no %s extent; it is %s", e.Type, kind)}
}
