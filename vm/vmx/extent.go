package vmx

import (
	"fmt"
	"strings"
)

// extentFormats are the formats that the file of an extent may have. A flat extent contains the guest's data, which may
// look like any format.
//
// QEMU supports no other types: it ignores ZERO extents and those that are not RW, so that all following data moves.
var extentFormats = map[string][]format{
	"FLAT":       nil,
	"VMFS":       nil,
	"SPARSE":     {formatSparse, formatCOWD},
	"VMFSSPARSE": {formatSparse, formatCOWD},
	"SESPARSE":   {formatSESparse},
}

// checkExtentName checks the type and the file name of an extent.
func checkExtentName(name string, e Extent) error {
	kind := lower(e.Type)
	if strings.Contains(kind, "raw") || strings.Contains(kind, "rdm") || strings.Contains(kind, "device") {
		return &CheckError{File: name, Key: "extent type", Value: e.Type, Hostile: true, Reason: "disks of the host are not allowed; convert the disk to monolithicSparse or streamOptimized"}
	}
	if reason := unsafeName(e.File); reason != "" {
		return &CheckError{File: name, Key: "extent", Value: e.File, Hostile: leavesImage(e.File), Reason: reason}
	}
	return nil
}

// checkExtent checks an extent of the text descriptor at name, and its file. last is true for the last extent.
func (c *checker) checkExtent(name string, e Extent, last bool) error {
	if err := checkExtentName(name, e); err != nil {
		return err
	}
	formats, known := extentFormats[e.Type]
	if !known {
		return &CheckError{File: name, Key: "extent type", Value: e.Type, Reason: "some hypervisors cannot open extents of this type; convert the disk to monolithicSparse or streamOptimized"}
	}
	if e.Access != "RW" {
		return &CheckError{File: name, Key: "extent access", Value: e.Access, Reason: "some hypervisors cannot open an extent that is not RW; convert the disk to monolithicSparse or streamOptimized"}
	}
	if e.HasOffset && e.Type != "FLAT" {
		return &CheckError{File: name, Key: "extent offset", Value: fmt.Sprint(e.Offset), Reason: fmt.Sprintf("some hypervisors cannot open %s extents with an offset; remove the number behind the file name of %s if it is 0, and otherwise convert the disk to monolithicSparse", e.Type, printable(e.File))}
	}
	at, err := c.resolve(name, "extent", e.File)
	if err != nil {
		return err
	}
	if err := c.locate(name, "extent", e.File, c.use(at, name)); err != nil {
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
			return &CheckError{File: name, Key: "extent", Value: e.File, Reason: fmt.Sprintf("the file has %d bytes, but the extent ends at byte %d; the image is incomplete", info.Size(), need)}
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
		err = c.checkTables(file, kind, head, e.Sectors, last)
		return c.locate(name, "extent", e.File, c.locate(at, "", "", err))
	}
	return &CheckError{File: name, Key: "extent", Value: e.File, Hostile: kind.isForeign(), Reason: fmt.Sprintf("the file is no %s extent; it is %s", e.Type, kind)}
}
