package disk

import (
	"errors"
	"strings"
	"testing"

	"osx-builder/vm"
)

// An image whose disk takes more memory than qemu-img may have is refused, and not read by a machine instead.
func TestMemoryLimitRefusesImage(t *testing.T) {
	for _, stderr := range []string{
		"qemu-img: Could not open 'json:{}': Cannot allocate memory",
		"GLib: ../glib/gmem.c:136: failed to allocate 17179869184 bytes",
		"qemu-img: Could not allocate L1 table",
	} {
		err := error(&CommandError{What: "measuring disk", Stderr: stderr, Err: errors.New("signal: aborted")})
		if !isUnreadable(err) {
			t.Errorf("%q: a machine reads the disk instead", stderr)
		}
		var e *vm.Error
		if !errors.As(unreadableDisk(&Disk{Bus: "scsi", Backing: []string{"/gold/a.vmdk"}}, err), &e) || e.Code != vm.CodeImageInvalid || !strings.Contains(e.Message, "1.0 GiB") {
			t.Errorf("%q: got %v, want image-invalid with the limit", stderr, e)
		}
	}
}
