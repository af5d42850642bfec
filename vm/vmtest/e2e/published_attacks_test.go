package e2e_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"osx-builder/vm"
	"osx-builder/vm/vmtest/harness"
)

// attack is an image that must not be accepted.
type attack struct {
	archive []byte
	want    vm.Code
	message []string // parts of it
}

// publishedAttacks returns attacks by their identifiers. They try to read the file
// secret, or to write to its folder.
func publishedAttacks(t *testing.T, secret string) map[string]attack {
	t.Helper()
	jsonName := fmt.Sprintf(`json:{"driver":"file","filename":"%s"}`, secret)
	outside := filepath.Dir(secret)
	return map[string]attack{
		// OpenStack: a flat VMDK whose extent is a file of the host.
		"CVE-2022-47951": {
			harness.Archive(t, "a.vmx", harness.VMX("d.vmdk"), "d.vmdk", harness.Descriptor(secret)),
			vm.CodeImageUnsafe,
			[]string{"d.vmdk", "extent", secret},
		},
		// OpenStack: a QCOW2 image whose data is a file of the host.
		"CVE-2024-32498": {
			harness.Archive(t, "a.vmx", harness.VMX("d.vmdk"), "d.vmdk", qcow2WithDataFile(t, secret)),
			vm.CodeImageUnsafe,
			[]string{"a.vmx", "scsi0:0.fileName", "d.vmdk", "QCOW"},
		},
		// QEMU: the same, with a json: name that qemu-img info follows.
		"CVE-2024-4467": {
			harness.Archive(t, "a.vmx", harness.VMX("d.vmdk"), "d.vmdk", qcow2WithDataFile(t, jsonName)),
			vm.CodeImageUnsafe,
			[]string{"scsi0:0.fileName", "d.vmdk", "QCOW"},
		},
		"CVE-2024-4467 in the .vmx": {
			harness.Archive(t, "a.vmx", harness.VMX(strings.ReplaceAll(jsonName, `"`, "|22"))),
			vm.CodeImageUnsafe,
			[]string{"a.vmx", "scsi0:0.fileName", "json:"},
		},
		// Nomad: a decompression bomb.
		"CVE-2023-0821": {
			harness.Archive(t, "a.vmx", harness.VMX("d.vmdk"), "d.vmdk", strings.Repeat("A", 64<<20)),
			vm.CodeImageRatio,
			[]string{"200 bytes"},
		},
		// Incus: a link at the top that leads outside, and a file below it.
		"GHSA-vxp5-584q-c479": {
			harness.Archive(t, "a.vmx", harness.VMX("d.vmdk"), "templates", "-> "+outside, "templates/gotcha", "x"),
			vm.CodeImageUnsafe,
			[]string{"templates", outside},
		},
	}
}

// Published attacks on programs that accept untrusted images. A machine of such an
// image fails with the right code, the message names the file at fault, and no file
// outside of the image is read or written.
func TestPublishedAttacks(t *testing.T) {
	t.Parallel()
	outside := t.TempDir()
	secret := filepath.Join(outside, "secret")
	const content = "the content of a secret"
	harness.Must(t, os.WriteFile(secret, []byte(strings.Repeat(content, 8*512/len(content)+1)), 0o600))
	attacks := publishedAttacks(t, secret)
	archives := map[string][]byte{}
	for name, a := range attacks {
		archives[strings.ReplaceAll(name, " ", "")] = a.archive
	}
	s := harness.New(t)
	s.Serve(archives)
	for name, a := range attacks {
		v := s.WaitSettled(s.Create(s.ImageOf(strings.ReplaceAll(name, " ", ""), a.archive).Body(harness.SmallVM(nil))).ID)
		if v.Error == nil || v.Error.Code != a.want {
			t.Errorf("%s: got %s, %+v, want %s", name, v.Phase, v.Error, a.want)
			continue
		}
		for _, word := range a.message {
			if !strings.Contains(v.Error.Message, word) {
				t.Errorf("%s: the message does not contain %q: %s", name, word, v.Error.Message)
			}
		}
	}
	if files := imageFiles(s); len(files) > 0 {
		t.Errorf("got %v, want no file in the cache", files)
	}
	if files := harness.FilesWith(t, s.Data, content); len(files) > 0 {
		t.Errorf("the secret was copied to %q", files)
	}
	if entries, err := os.ReadDir(outside); err != nil || len(entries) != 1 {
		t.Errorf("the folder outside: got %v, %v, want only the secret", entries, err)
	}
}

// qcow2WithDataFile returns a QCOW2 image whose external data file has that name.
func qcow2WithDataFile(t *testing.T, name string) string {
	t.Helper()
	dir := t.TempDir()
	placeholder := strings.Repeat("x", len(name)) // qemu-img would write to the file itself
	options := "data_file=" + placeholder + ",data_file_raw=on"
	cmd := exec.Command("qemu-img", "create", "-q", "-f", "qcow2", "-o", options, "d", "4096")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	b, err := os.ReadFile(filepath.Join(dir, "d"))
	harness.Must(t, err)
	if !bytes.Contains(b, []byte(placeholder)) {
		t.Fatal("the image does not name its data file")
	}
	return strings.ReplaceAll(string(b), placeholder, name)
}
