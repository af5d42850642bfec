// Package efivars adds boot entries to the files with the variables of EFI firmware.
//
// Installers put an EFI boot loader into a folder of the system's vendor and note that in a variable of the machine's
// firmware. The variables of a clone start as they are shipped, and the firmware then looks only for the loader of
// removable media. So the variables of a clone get an entry for each known folder, which the firmware tries on all disks.
// OVMF tries them after the disks that QEMU tells it to boot from, but it does not understand what QEMU 7.2 calls an NVMe
// disk. So removable media's own loader is among them.
package efivars

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"unicode/utf16"
)

// vendorFolders are the folders below \EFI of common systems.
var vendorFolders = []string{
	"debian", "ubuntu", "redhat", "centos", "rocky", "almalinux", "fedora", "oracle", "opensuse", "sles", "sled", "sle", "amzn",
	"photon", "arch", "kali", "manjaro", "gentoo", "neon", "parrot", "devuan",
}

// Loader is a boot loader on an EFI system partition.
type Loader struct {
	Name string // for people
	Path string // with backslashes
}

// Loaders lists where the guest's boot loader may be. suffix is the processor's in the names of loaders, "x64" or
// "aa64". The folders that the guest's name begins with come first, then the loader of removable media.
func Loaders(guestOS, suffix string) []Loader {
	guest := strings.TrimPrefix(strings.ToLower(guestOS), "arm-")
	var own, others []Loader
	add := func(isOwn bool, all ...Loader) {
		if isOwn {
			own = append(own, all...)
		} else {
			others = append(others, all...)
		}
	}
	add(strings.HasPrefix(guest, "win"), Loader{"Windows", `\EFI\Microsoft\Boot\bootmgfw.efi`})
	for _, folder := range vendorFolders {
		path := `\EFI\` + folder + `\`
		add(strings.HasPrefix(guest, folder) || folder == "redhat" && strings.HasPrefix(guest, "rhel"),
			Loader{folder + " (shim)", path + "shim" + suffix + ".efi"}, Loader{folder + " (grub)", path + "grub" + suffix + ".efi"})
	}
	add(false, Loader{"systemd-boot", `\EFI\systemd\systemd-boot` + suffix + ".efi"})
	return slices.Concat(own, []Loader{{"removable media", `\EFI\BOOT\BOOT` + strings.ToUpper(suffix) + ".EFI"}}, others)
}

// ErrFormat means that a file does not have the format of EFI's variables.
var ErrFormat = errors.New("the file of the firmware's variables has an unknown format")

var (
	// authenticatedStore and plainStore are the GUIDs that a store of variables begins with.
	authenticatedStore = []byte{0x78, 0x2c, 0xf3, 0xaa, 0x7b, 0x94, 0x9a, 0x43, 0xa1, 0x80, 0x2e, 0x14, 0x4e, 0xc3, 0x77, 0x92}
	plainStore         = []byte{0x16, 0x36, 0xcf, 0xdd, 0x75, 0x32, 0x64, 0x41, 0x98, 0xb6, 0xfe, 0x85, 0x70, 0x7f, 0xfe, 0x7d}

	// globalVariable is the GUID of the variables that the UEFI specification defines.
	globalVariable = []byte{0x61, 0xdf, 0xe4, 0x8b, 0xca, 0x93, 0xd2, 0x11, 0xaa, 0x0d, 0x00, 0xe0, 0x98, 0x03, 0x2b, 0x8c}
)

// variableStore is the part of a flash file that has the variables.
type variableStore struct {
	data          []byte // of the whole file
	end           int    // offset of the end of the store
	authenticated bool   // each variable has a time and a counter
}

const (
	variableStart = 0x55aa
	variableAdded = 0x3f
	storeHeader   = 28 // bytes
)

// openVariables finds the store in a flash file. The file begins with a header of a firmware volume.
func openVariables(data []byte) (*variableStore, error) {
	if len(data) < 64 || !bytes.Equal(data[40:44], []byte("_FVH")) {
		return nil, ErrFormat
	}
	at := int(binary.LittleEndian.Uint16(data[48:]))
	if at+storeHeader > len(data) {
		return nil, ErrFormat
	}
	s := &variableStore{data: data, authenticated: bytes.Equal(data[at:at+16], authenticatedStore)}
	s.end = at + int(binary.LittleEndian.Uint32(data[at+16:]))
	if !s.authenticated && !bytes.Equal(data[at:at+16], plainStore) || s.end > len(data) || s.end < at+storeHeader {
		return nil, ErrFormat
	}
	return s, nil
}

// headerSize is the length of a variable's header.
func (s *variableStore) headerSize() int {
	if s.authenticated {
		return 60
	}
	return 32
}

// free returns the offset after the last variable.
func (s *variableStore) free() (int, error) {
	at := int(binary.LittleEndian.Uint16(s.data[48:])) + storeHeader
	size := s.headerSize()
	for at+size <= s.end && binary.LittleEndian.Uint16(s.data[at:]) == variableStart {
		lengths := s.data[at+size-24:]
		next := at + size + int(binary.LittleEndian.Uint32(lengths)) + int(binary.LittleEndian.Uint32(lengths[4:]))
		if next <= at || next > s.end {
			return 0, ErrFormat
		}
		at = (next + 3) &^ 3
	}
	return at, nil
}

// add appends a global variable that lasts and that programs may read.
func (s *variableStore) add(at int, name string, value []byte) (next int, err error) {
	const attributes = 7 // non-volatile, boot service and runtime access
	text := wide(name)
	size := s.headerSize()
	if next = at + size + len(text) + len(value); next > s.end {
		return 0, ErrFormat
	}
	header := make([]byte, size)
	binary.LittleEndian.PutUint16(header, variableStart)
	header[2] = variableAdded
	binary.LittleEndian.PutUint32(header[4:], attributes)
	binary.LittleEndian.PutUint32(header[size-24:], uint32(len(text)))  // #nosec G115
	binary.LittleEndian.PutUint32(header[size-20:], uint32(len(value))) // #nosec G115
	copy(header[size-16:], globalVariable)
	copy(s.data[at:], slices.Concat(header, text, value))
	return (next + 3) &^ 3, nil
}

// Add adds an entry for each boot loader, in this order, to the variables of a flash file. After an error the data are
// not usable.
func Add(data []byte, all []Loader) error {
	s, err := openVariables(data)
	if err != nil {
		return err
	}
	at, err := s.free()
	if err != nil {
		return err
	}
	var order []byte
	for i, l := range all {
		order = binary.LittleEndian.AppendUint16(order, uint16(i)) // #nosec G115
		if at, err = s.add(at, bootName(i), loadOption(l)); err != nil {
			return err
		}
	}
	_, err = s.add(at, "BootOrder", order)
	return err
}

func bootName(i int) string {
	const digits = "0123456789ABCDEF"
	return "Boot00" + string(digits[i>>4&15]) + string(digits[i&15])
}

// loadOption is the value of a Boot#### variable whose device path has only the file. The firmware looks for it on all
// file systems.
func loadOption(l Loader) []byte {
	path := wide(l.Path)
	node := []byte{4, 4}                                               // media, file path
	node = binary.LittleEndian.AppendUint16(node, uint16(4+len(path))) // #nosec G115
	list := slices.Concat(node, path, []byte{0x7f, 0xff, 4, 0})
	option := []byte{1, 0, 0, 0}                                         // active
	option = binary.LittleEndian.AppendUint16(option, uint16(len(list))) // #nosec G115
	return slices.Concat(option, wide(l.Name), list)
}

// wide is UTF-16 with a final zero.
func wide(text string) (b []byte) {
	for _, unit := range utf16.Encode([]rune(text + "\x00")) {
		b = binary.LittleEndian.AppendUint16(b, unit)
	}
	return b
}
