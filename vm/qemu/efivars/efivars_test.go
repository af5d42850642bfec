package efivars

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"
)

// The loader of the guest's own vendor comes first, and no two entries have one name.
func TestLoaders(t *testing.T) {
	for guest, want := range map[string]string{
		"debian12-64": `\EFI\debian\shimx64.efi`, "ubuntu-64": `\EFI\ubuntu\shimx64.efi`, "rhel9-64": `\EFI\redhat\shimx64.efi`,
		"windows11-64": `\EFI\Microsoft\Boot\bootmgfw.efi`, "centos-64": `\EFI\centos\shimx64.efi`, "other": `\EFI\BOOT\BOOTX64.EFI`,
	} {
		all := Loaders(guest, "x64")
		seen := map[string]bool{}
		for _, l := range all {
			seen[l.Path] = true
		}
		if all[0].Path != want || len(seen) != len(all) || len(all) > 250 {
			t.Errorf("%s: got %d loaders, %d of them different, the first %s; want %s", guest, len(all), len(seen), all[0].Path, want)
		}
	}
	arm := Loaders("arm-fedora-64", "aa64")
	if arm[1].Path != `\EFI\fedora\grubaa64.efi` || arm[2].Path != `\EFI\BOOT\BOOTAA64.EFI` {
		t.Errorf("got %v for ARM", arm[:3])
	}
}

// A file of another format is refused and not changed, wherever it is damaged.
func TestVariablesOfUnknownFormat(t *testing.T) {
	good := variables()
	changed := bytes.Clone(good)
	if err := Add(changed, Loaders("debian12-64", "x64")); err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(changed, wide(`\EFI\debian\grubx64.efi`)) || bytes.Equal(changed, good) {
		t.Error("the variables have no entry for Debian's loader")
	}
	// Again, after the variables that the file has by now.
	if err := Add(changed, Loaders("debian12-64", "x64")[:1]); err != nil {
		t.Errorf("adding to variables that are there: %v", err)
	}
	for name, damage := range map[string]func(b []byte) []byte{
		"empty":           func([]byte) []byte { return nil },
		"short":           func(b []byte) []byte { return b[:50] },
		"no volume":       func(b []byte) []byte { b[40] = 0; return b },
		"header too long": func(b []byte) []byte { binary.LittleEndian.PutUint16(b[48:], 0xffff); return b[:1000] },
		"another store":   func(b []byte) []byte { b[72] ^= 1; return b },
		"store too long":  func(b []byte) []byte { binary.LittleEndian.PutUint32(b[72+16:], 0x7fffffff); return b },
		"store too short": func(b []byte) []byte { binary.LittleEndian.PutUint32(b[72+16:], 1); return b },
		"store full":      func(b []byte) []byte { binary.LittleEndian.PutUint32(b[72+16:], 200); return b },
		"endless variable": func(b []byte) []byte {
			copy(b[100:], []byte{0xaa, 0x55})
			binary.LittleEndian.PutUint32(b[100+36:], 0xffffffff)
			return b
		},
	} {
		if err := Add(damage(bytes.Clone(good)), Loaders("", "x64")); err == nil || !strings.Contains(err.Error(), "format") {
			t.Errorf("%s: got %v, want an error about the format", name, err)
		}
	}
}

// variables returns a file with an empty store, as firmware with Secure Boot has it.
func variables() []byte {
	b := bytes.Repeat([]byte{0xff}, 64<<10)
	copy(b[40:], "_FVH")
	binary.LittleEndian.PutUint16(b[48:], 72)
	copy(b[72:], authenticatedStore)
	binary.LittleEndian.PutUint32(b[72+16:], 60<<10)
	return b
}
