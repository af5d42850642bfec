package vmx

import (
	"bytes"
	"fmt"
	"strings"
)

// createTypes are the kinds of disk that both VMware and QEMU open from plain
// files, and whether their descriptor is in the disk's own file.
var createTypes = map[string]bool{
	"monolithicSparse":     true,
	"streamOptimized":      true,
	"monolithicFlat":       false,
	"twoGbMaxExtentSparse": false,
	"twoGbMaxExtentFlat":   false,
	"vmfs":                 false,
	"vmfsSparse":           false,
	"seSparse":             false,
}

// descriptor checks one disk file: what it is, and what it names but its
// parent.
func (c *checker) descriptor(name string, v VMDK) error {
	embedded, known := createTypes[v.CreateType]
	switch {
	case reachesDevice(v.CreateType):
		return &CheckError{File: name, Key: "createType", Value: v.CreateType, Hostile: true, Reason: "disks of the host are not opened; convert the disk to monolithicSparse or streamOptimized"}
	case !known || embedded != v.Embedded:
		return &CheckError{File: name, Key: "createType", Value: v.CreateType, Reason: "disks of this type cannot be opened everywhere; convert the disk to monolithicSparse or streamOptimized"}
	case v.Parent == "" && v.desc.parentCID != noParent:
		return &CheckError{File: name, Key: "parentCID", Value: v.desc.parentCID, Reason: "the disk holds changes to a parent that it does not name; consolidate its snapshots"}
	case len(v.Extents) == 0:
		return &CheckError{File: name, Key: "extent", Reason: "the descriptor names no file that holds the disk's data"}
	}
	if err := oneParent(name, v); err != nil {
		return err
	}
	for _, s := range v.desc.named {
		if reason := unsafeName(s.value); reason != "" {
			return &CheckError{File: name, Key: s.key, Value: s.value, Hostile: true, Reason: reason}
		}
	}
	for _, e := range v.claimed {
		if err := allowed(name, e); err != nil {
			return err
		}
	}
	if v.Embedded {
		return nil
	}
	if c.extents += len(v.Extents); c.extents > maxImageWork {
		return &CheckError{File: name, Reason: fmt.Sprintf("the image's disks have more than %d extents", maxImageWork)}
	}
	for _, e := range v.Extents {
		if err := c.extent(name, e); err != nil {
			return err
		}
	}
	return nil
}

func reachesDevice(createType string) bool {
	kind := lower(createType)
	return strings.HasSuffix(kind, "device") || kind == "custom" || strings.Contains(kind, "raw") || strings.Contains(kind, "rdm")
}

// oneParent refuses a disk in which QEMU would find another parent than VMware.
// QEMU takes the first place where the key's letters stand, even in a comment,
// skips two bytes for the equals sign and the quote, and reads to the next quote.
func oneParent(name string, v VMDK) error {
	const hint = "parentFileNameHint"
	_, after, found := bytes.Cut(v.qemu, []byte(hint))
	if !found {
		return nil
	}
	value, _, closed := bytes.Cut(after[min(2, len(after)):], []byte(`"`))
	if closed && string(value) == v.Parent {
		return nil
	}
	return &CheckError{
		File: name, Key: hint, Value: string(value[:min(len(value), maxName)]), Hostile: true,
		Reason: fmt.Sprintf("hypervisors would not agree on the disk's parent, which is %q; say it once, as %s=\"FILE\"", shorten(v.Parent), hint),
	}
}
