package vmx

import (
	"bytes"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// descriptor is the text part of a VMDK.
type descriptor struct {
	createType string
	parent     string
	cid        string // of the disk's contents, in lower case
	parentCID  string
	extents    []Extent
	fileKeys   []setting // other keys that name files which VMware opens
}

type setting struct{ key, value string }

var (
	extentLine  = regexp.MustCompile(`^(\S+)[ \t]+([0-9]{1,18})[ \t]+([A-Za-z0-9]+)(?:[ \t]+"([^"]*)"(?:[ \t]+([0-9]{1,18}))?)?$`)
	settingLine = regexp.MustCompile(`^([A-Za-z0-9_.:-]+)[ \t]*=[ \t]*(.*)$`)
)

// noParent is the parentCID of a disk without a parent.
const noParent = "ffffffff"

// parseDescriptor reads a descriptor up to its first NUL byte. Every line must be a comment, an extent or a setting:
// what one reader ignores, another may read as an extent.
func parseDescriptor(text []byte) (descriptor, error) {
	text, _, _ = bytes.Cut(text, []byte{0})
	if formatOf(text) != formatText {
		return descriptor{}, &CheckError{Reason: `the descriptor does not begin with "# Disk DescriptorFile"`}
	}
	d := descriptor{parentCID: noParent}
	seen := map[string]bool{}
	for raw := range strings.SplitSeq(string(text), "\n") {
		l := strings.Trim(raw, " \t\r")
		if strings.IndexFunc(l, func(r rune) bool { return r != '\t' && isControl(r) }) >= 0 {
			return descriptor{}, &CheckError{Hostile: true, Key: "line", Value: l, Reason: "the descriptor contains control characters"}
		}
		if l == "" || l[0] == '#' {
			continue
		}
		var err error
		switch lower(strings.Fields(l)[0]) {
		case "rw", "rdonly", "noaccess":
			err = d.addExtent(l)
		default:
			err = d.addSetting(l, seen)
		}
		if err != nil {
			return descriptor{}, err
		}
	}
	return d, nil
}

func (d *descriptor) addExtent(l string) error {
	m := extentLine.FindStringSubmatch(l)
	if m == nil {
		return &CheckError{Key: "extent", Value: l, Reason: `the line must have the form: RW 4096 FLAT "file.vmdk" 0`}
	}
	if len(d.extents) == maxExtents {
		return &CheckError{Reason: fmt.Sprintf("the descriptor has more than %d extents", maxExtents)}
	}
	e := Extent{Access: m[1], Type: m[3], File: m[4]}
	e.Sectors, _ = strconv.ParseInt(m[2], 10, 64)
	if m[5] != "" {
		e.Offset, _ = strconv.ParseInt(m[5], 10, 64)
		e.HasOffset = true
	}
	if e.Sectors == 0 || e.Sectors > maxSectors || e.Offset > maxSectors {
		return &CheckError{Key: "extent", Value: l, Reason: "the extent is empty or reaches beyond 64 TiB"}
	}
	if e.Type == "FLAT" && m[5] == "" {
		return &CheckError{Key: "extent", Value: l, Reason: "a FLAT extent needs an offset after its file name"}
	}
	d.extents = append(d.extents, e)
	return nil
}

func (d *descriptor) addSetting(l string, seen map[string]bool) error {
	m := settingLine.FindStringSubmatch(l)
	if m == nil {
		return &CheckError{Key: "line", Value: l, Reason: "the line of the descriptor is no comment, extent or setting"}
	}
	key, value := lower(m[1]), m[2]
	if n := len(value); n >= 2 && value[0] == '"' && value[n-1] == '"' {
		value = value[1 : n-1]
	}
	switch key {
	case "createtype":
		d.createType = value
	case "parentfilenamehint":
		d.parent = value
	case "cid":
		d.cid = lower(value)
	case "parentcid":
		d.parentCID = lower(value)
	case "changetrackpath", "ddb.nativeparenthint", "ddb.objectparenturi", "ddb.sidecars":
		d.fileKeys = append(d.fileKeys, setting{m[1], value})
		return nil
	default:
		return nil
	}
	if seen[key] || strings.Contains(value, `"`) {
		return &CheckError{Key: m[1], Value: value, Reason: "the descriptor has this key twice or with stray quotes; set it once, in quotes"}
	}
	seen[key] = true
	return nil
}
