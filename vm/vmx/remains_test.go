package vmx_test

import (
	"strings"
	"testing"

	"osx-builder/vm/vmx"
)

// QEMU leaves the end of the older text behind a descriptor whose content ID became
// shorter, in one of sixteen disks that qemu-img writes. More than that is not
// QEMU's doing, and could be text that another reader of the file obeys.
func TestDescriptorWithRemainsOfAnOlderOne(t *testing.T) {
	const text = "# Disk DescriptorFile\nversion=1\nCID=2345678\nparentCID=ffffffff\ncreateType=\"monolithicFlat\"\n" +
		"RW 8 FLAT \"d-flat.vmdk\" 0\nddb.adapterType = \"ide\"\n"
	for name, tt := range map[string]struct{ rest, refused string }{
		"padding":               {rest: strings.Repeat("\x00", 9000)},
		"the last byte":         {rest: "\x00\n\x00\x00"},
		"seven bytes":           {rest: "\x00 \"ide\"\n\x00\x00"},
		"an extent":             {rest: "\x00\nRW 8 FLAT \"other.vmdk\" 0\n", refused: "NUL"},
		"an extent far behind":  {rest: strings.Repeat("\x00", 9000) + "RW 8 FLAT \"other.vmdk\" 0\n", refused: "NUL"},
		"a few bytes far apart": {rest: "\x00a" + strings.Repeat("\x00", 20) + "b", refused: "NUL"},
	} {
		t.Run(name, func(t *testing.T) {
			v, err := vmx.ReadVMDK(folder(t, map[string]string{"d.vmdk": text + tt.rest}), "d.vmdk")
			switch {
			case tt.refused == "" && (err != nil || len(v.Extents) != 1 || v.Capacity != 8*512):
				t.Errorf("got %+v, %v, want one extent of 4 KiB", v, err)
			case tt.refused != "" && (err == nil || !strings.Contains(err.Error(), tt.refused)):
				t.Errorf("got %v, want an error that says %q", err, tt.refused)
			}
		})
	}
}
