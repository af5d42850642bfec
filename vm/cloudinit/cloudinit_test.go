package cloudinit_test

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/google/go-cmp/cmp"

	"osx-builder/vm"
	"osx-builder/vm/cloudinit"
)

const id = "282ee68a-2e4d-4bd7-9c0e-7f37e12fc489"

func machine(g vm.GuestConfig) vm.Machine { return vm.Machine{ID: id, Name: "web", Guest: &g} }

// readDisk returns the label and the files of an ISO 9660 image, as its descriptor at this sector has them.
func readDisk(t *testing.T, image []byte, at int, decode func([]byte) string) (label string, files map[string]string) {
	t.Helper()
	d := image[at*2048:]
	if string(d[1:6]) != "CD001" || int(binary.LittleEndian.Uint32(d[80:]))*2048 != len(image) {
		t.Fatalf("sector %d is no descriptor of a disk of %d bytes: % x", at, len(image), d[:88])
	}
	files = make(map[string]string)
	root := image[int(binary.LittleEndian.Uint32(d[158:]))*2048:][:binary.LittleEndian.Uint32(d[166:])]
	for len(root) > 0 && root[0] > 0 {
		entry := root[:root[0]]
		root = root[root[0]:]
		for n := 2; n < 18; n += 8 { // both byte orders say the same
			if binary.LittleEndian.Uint32(entry[n:]) != binary.BigEndian.Uint32(entry[n+4:]) {
				t.Errorf("an entry differs by its byte order: % x", entry)
			}
		}
		if entry[25]&2 == 0 {
			from, size := int(binary.LittleEndian.Uint32(entry[2:]))*2048, int(binary.LittleEndian.Uint32(entry[10:]))
			files[decode(entry[33:33+entry[32]])] = string(image[from : from+size])
		}
	}
	return strings.TrimRight(decode(d[40:72]), " "), files
}

func plain(b []byte) string { return string(b) }

func joliet(b []byte) string {
	var units []uint16
	for ; len(b) > 1; b = b[2:] {
		units = append(units, binary.BigEndian.Uint16(b))
	}
	return string(utf16.Decode(units))
}

// The NoCloud disk has the same files by the names of both standards, whatever their lengths.
func TestNoCloud(t *testing.T) {
	for _, n := range []int{0, 1, 2047, 2048, 2049, vm.MaxUserData} {
		data := strings.Repeat("u", n)
		image := cloudinit.NoCloud(machine(vm.GuestConfig{UserData: data, SSHAuthorizedKeys: []string{"ssh-ed25519 A <a>", "ssh-rsa B"}}))
		meta := `{"instance-id":"` + id + `","local-hostname":"web","public-keys":["ssh-ed25519 A \u003ca\u003e","ssh-rsa B"]}` + "\n"
		for at, c := range map[int]struct {
			decode     func([]byte) string
			meta, user string
		}{16: {plain, "META-DATA.;1", "USER-DATA.;1"}, 17: {joliet, "meta-data;1", "user-data;1"}} {
			label, files := readDisk(t, image, at, c.decode)
			if diff := cmp.Diff(map[string]string{c.meta: meta, c.user: data}, files); diff != "" || label != "cidata" {
				t.Errorf("%d bytes, sector %d: got the label %q and files (-want +got):\n%s", n, at, label, diff)
			}
		}
	}
}

// VMware's settings are base64, compressed if they would be too long for VMware's messages.
func TestGuestInfo(t *testing.T) {
	if got := cloudinit.GuestInfo(vm.Machine{ID: id}); got != nil {
		t.Errorf("got %v for a machine without configuration, want nothing", got)
	}
	noise := make([]byte, vm.MaxUserData/2)
	for i := range noise {
		noise[i] = byte('a' + rand.IntN(16))
	}
	for name, c := range map[string]struct{ data, encoding string }{
		"none": {"", ""}, "short": {"#!/bin/sh\n", "base64"}, "long": {strings.Repeat(string(noise), 2), "gzip+base64"},
	} {
		settings := make(map[string]string)
		for _, s := range cloudinit.GuestInfo(machine(vm.GuestConfig{UserData: c.data, Hostname: "db", SSHAuthorizedKeys: []string{"a", "b"}})) {
			settings[s.Key] = s.Value
			if len(s.Value) > 64000 {
				t.Errorf("%s: %s has %d bytes", name, s.Key, len(s.Value))
			}
		}
		var meta map[string]string
		text, err := base64.StdEncoding.DecodeString(settings["guestinfo.metadata"])
		if err == nil {
			err = json.Unmarshal(text, &meta)
		}
		want := map[string]string{"instance-id": id, "local-hostname": "db", "public-keys-data": "a\nb\n"}
		if diff := cmp.Diff(want, meta); diff != "" || err != nil || settings["guestinfo.metadata.encoding"] != "base64" {
			t.Errorf("%s: got metadata %q, %v (-want +got):\n%s", name, text, err, diff)
		}
		if got := settings["guestinfo.userdata.encoding"]; got != c.encoding {
			t.Errorf("%s: got encoding %q, want %q", name, got, c.encoding)
		}
		data, err := base64.StdEncoding.DecodeString(settings["guestinfo.userdata"])
		if err == nil && c.encoding == "gzip+base64" {
			var z *gzip.Reader
			if z, err = gzip.NewReader(bytes.NewReader(data)); err == nil {
				data, err = io.ReadAll(z)
			}
		}
		if err != nil || string(data) != c.data {
			t.Errorf("%s: got %d bytes of user data, %v, want %d", name, len(data), err, len(c.data))
		}
	}
}

// Keys are secret, and what follows their text is a comment. The host name is the request's, otherwise the machine's.
func TestCredentials(t *testing.T) {
	got := cloudinit.Credentials(machine(vm.GuestConfig{SSHAuthorizedKeys: []string{"ssh-ed25519 A a", "ssh-rsa B"}}))
	want := []cloudinit.Credential{
		{Text: "io.systemd.credential:system.hostname=web"},
		{Text: "io.systemd.credential:ssh.authorized_keys.root=ssh-ed25519 A a\nssh-rsa B\n#", Secret: true},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if got := cloudinit.Credentials(vm.Machine{ID: id, Name: "web"}); got != nil {
		t.Errorf("got %v for a machine without configuration, want nothing", got)
	}
}
