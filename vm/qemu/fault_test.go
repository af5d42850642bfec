package qemu_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"osx-builder/vm"
	"osx-builder/vm/vmtest/harness"
)

// A guest that cannot read its disk is a fault, also if the guest goes on. A guest that can is none.
func TestUnreadableDisk(t *testing.T) {
	t.Parallel()
	r := newTestDriver(t)
	gold := r.image(idleGuest, plain...)
	m := r.machine()
	r.clone(m, gold)
	r.start(m)
	until(t, harness.Timeout, "the guest", func() bool { return strings.Contains(serial(m), "OK") })
	if st := r.inspect(m); st.Fault != nil {
		t.Errorf("a whole disk: got %v, want no fault", st.Fault)
	}

	name := filepath.Join(filepath.Dir(gold), "disk.vmdk")
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	copy(data[bytes.Index(data, []byte{0x78, 0x9c}):], strings.Repeat("\xff", 20)) // the deflated data of the first grain
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
	m = r.machine()
	r.clone(m, gold)
	r.start(m)
	var st vm.Status
	until(t, harness.Timeout, "the fault of the disk", func() bool { st = r.inspect(m); return st.Fault != nil })
	if st.Power != vm.PoweredOn || st.Fault.Code != vm.CodeImageInvalid || !strings.Contains(st.Fault.Message, "scsi0:0 (disk.vmdk)") {
		t.Errorf("got %+v with fault %v, want a running machine and image-invalid for scsi0:0", st, st.Fault)
	}
}
