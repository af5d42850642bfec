//go:build vix && cgo

package vix

/*
#include "loader.h"
*/
import "C"

import (
	"context"
	"errors"
	"unsafe"

	"osx-builder/vm"
	"osx-builder/vm/vmware"
)

// maxScreenshot bounds a screenshot, in bytes.
const maxScreenshot = 64 << 20

var _ vm.Screenshotter = (*Driver)(nil)

// Screenshot implements [vm.Screenshotter]. It does not use govix's function, which passes VMware the address of one
// byte for a size and an address, and frees memory that is not its own.
func (d *Driver) Screenshot(ctx context.Context, m vm.Machine) ([]byte, error) {
	ref, err := d.vms.acquire(ctx, vmware.VMXPath(m), d.deadlines.Read)
	if err != nil {
		return nil, vmware.Unreadable(err)
	}
	defer ref.Release()
	screenshots := make(chan []byte, 1)
	err = ref.call(ctx, "read the machine's screen", d.deadlines.Read, func() error {
		if running, err := ref.vm.IsRunning(); err != nil {
			return err
		} else if !running {
			return &vm.Error{Code: vm.CodePower, Message: "machine " + m.ID + " does not run, so it has no screen"}
		}
		png, err := captureScreen(ref.handle)
		if err == nil {
			screenshots <- png
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return <-screenshots, nil
}

// captureScreen returns the machine's screen as a PNG.
func captureScreen(h handle) ([]byte, error) {
	var size C.int
	var data *C.uchar
	if err := vixError("CaptureScreenImage", C.osxb_screenshot(h, &size, &data)); err != nil {
		return nil, err
	}
	defer C.Vix_FreeBuffer(unsafe.Pointer(data))
	if data == nil || size <= 0 || size > maxScreenshot {
		return nil, errors.New("VMware's screenshot is empty or too large")
	}
	return C.GoBytes(unsafe.Pointer(data), size), nil
}
