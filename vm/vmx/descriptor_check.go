package vmx

import (
	"bytes"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// createTypes are the types of disks in plain files that both VMware and QEMU open. The value says whether the
// descriptor is in the same file as the data.
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

// checkDescriptor checks the type of a disk file and everything that it names except its parent.
func (c *checker) checkDescriptor(name string, v VMDK) error {
	embedded, known := createTypes[v.CreateType]
	switch {
	case isHostDevice(v.CreateType):
		return &CheckError{File: name, Key: "createType", Value: v.CreateType, Hostile: true, Reason: "disks of the host are not allowed; convert the disk to monolithicSparse or streamOptimized"}
	case !known || embedded != v.Embedded:
		return &CheckError{File: name, Key: "createType", Value: v.CreateType, Reason: "some hypervisors cannot open disks of this type; convert the disk to monolithicSparse or streamOptimized"}
	case v.Parent == "" && v.desc.parentCID != noParent:
		return &CheckError{File: name, Key: "parentCID", Value: v.desc.parentCID, Reason: "the disk has a parent but does not name it; consolidate its snapshots"}
	case len(v.Extents) == 0:
		return &CheckError{File: name, Key: "extent", Reason: "the descriptor names no file with the disk's data"}
	}
	if err := checkParent(name, v); err != nil {
		return err
	}
	if err := checkCIDs(name, v); err != nil {
		return err
	}
	for _, s := range v.desc.fileKeys {
		if reason := unsafeName(s.value); reason != "" {
			return &CheckError{File: name, Key: s.key, Value: s.value, Hostile: leavesImage(s.value), Reason: reason}
		}
	}
	for _, e := range v.listed {
		if err := checkExtentName(name, e); err != nil {
			return err
		}
	}
	if err := c.locate(name, "", "", c.checkSize(v)); err != nil {
		return err
	}
	if err := c.locate(name, "", "", c.use(name, name)); err != nil {
		return err
	}
	if v.Embedded {
		return c.locate(name, "", "", c.checkEmbedded(name, v))
	}
	if c.extents += len(v.Extents); c.extents > maxImageExtents {
		return &CheckError{File: name, Reason: fmt.Sprintf("the image's disks have more than %d extents", maxImageExtents)}
	}
	for i, e := range v.Extents {
		if err := c.checkExtent(name, e, i == len(v.Extents)-1); err != nil {
			return err
		}
	}
	return nil
}

// isHostDevice reports whether disks of this type are devices of the host.
func isHostDevice(createType string) bool {
	kind := lower(createType)
	return strings.HasSuffix(kind, "device") || kind == "custom" || strings.Contains(kind, "raw") || strings.Contains(kind, "rdm")
}

// checkParent refuses a disk in which QEMU would find another parent than VMware. QEMU searches the first occurrence of
// the key, even in a comment, skips two bytes for the equals sign and the quote, and reads up to the next quote.
func checkParent(name string, v VMDK) error {
	const hint = "parentFileNameHint"
	_, after, found := bytes.Cut(v.qemuText, []byte(hint))
	if !found {
		return nil
	}
	value, _, closed := bytes.Cut(after[min(2, len(after)):], []byte(`"`))
	if closed && string(value) == v.Parent {
		return nil
	}
	return &CheckError{
		File: name, Key: hint, Value: string(value[:min(len(value), maxName)]), Hostile: true,
		Reason: fmt.Sprintf("hypervisors would read different parents of the disk, such as %q; name it once, as %s=\"FILE\"", shorten(v.Parent), hint),
	}
}

var validCID = regexp.MustCompile(`^[0-9a-f]{1,8}$`)

// checkCIDs refuses a disk in which QEMU would find other content IDs than VMware. QEMU searches the first occurrence of
// the key, even in a comment, and skips a byte for the equals sign.
func checkCIDs(name string, v VMDK) error {
	for _, id := range []setting{{"CID", v.desc.cid}, {"parentCID", v.desc.parentCID}} {
		_, after, _ := bytes.Cut(v.qemuText, []byte(id.key))
		if !validCID.MatchString(id.value) || !strings.HasPrefix(lower(string(after[:min(len(after), 9)])), "="+id.value) {
			return &CheckError{File: name, Key: id.key, Value: id.value, Reason: fmt.Sprintf("a disk needs a line with %s= and 1 to 8 hexadecimal digits near the beginning of its descriptor, CID before parentCID", id.key)}
		}
	}
	return nil
}

// checkLink refuses a disk whose parent has changed since the disk was created: its parentCID is no longer the parent's
// CID. VMware does not open it, and QEMU fails each read.
func checkLink(name, parent string, child, of VMDK) error {
	want, _ := strconv.ParseUint(child.desc.parentCID, 16, 32)
	got, _ := strconv.ParseUint(of.desc.cid, 16, 32)
	switch {
	case want == got:
		return nil
	case child.desc.parentCID == noParent:
		return &CheckError{File: name, Key: "parentCID", Value: noParent, Reason: fmt.Sprintf("the disk names the parent %s, but its parentCID says that it has none; pack the files of one powered-off machine", printable(parent))}
	}
	return &CheckError{File: name, Key: "parentCID", Value: child.desc.parentCID, Reason: fmt.Sprintf(
		"the parent %s has the CID %s, so it has changed since this disk was created, or belongs to another one; pack the files of one powered-off machine, or consolidate its snapshots first",
		printable(parent), printable(of.desc.cid),
	)}
}
