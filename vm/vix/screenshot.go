//go:build vix && cgo && !windows

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
)

// maxScreenshot bounds what is taken for a picture.
const maxScreenshot = 64 << 20

// Screenshot implements vm.Screenshotter. govix's own gives VMware the address
// of one byte where it writes a size and an address, and frees what is not its.
func (d *Driver) Screenshot(ctx context.Context, m vm.Machine) ([]byte, error) {
	h, err := d.take(ctx, vmxPath(m), d.Deadlines.Look)
	if err != nil {
		return nil, unreadable(err)
	}
	defer h.drop()
	shots := make(chan []byte, 1)
	err = h.do(ctx, "read the machine's screen", d.Deadlines.Look, func() error {
		if running, err := h.vm.IsRunning(); err != nil {
			return err
		} else if !running {
			return &vm.Error{Code: vm.CodePower, Message: "machine " + m.ID + " does not run, so its screen shows nothing"}
		}
		shot, err := capture(h.handle)
		shots <- shot
		return err
	})
	if err != nil {
		return nil, err
	}
	return <-shots, nil
}

// capture returns the machine's screen as VMware's PNG.
func capture(h handle) ([]byte, error) {
	var size C.int
	var data *C.uchar
	if err := failed("CaptureScreenImage", C.osxb_screenshot(h, &size, &data)); err != nil {
		return nil, err
	}
	defer C.Vix_FreeBuffer(unsafe.Pointer(data))
	if data == nil || size <= 0 || size > maxScreenshot {
		return nil, errors.New("VMware's picture of the screen is empty or too large")
	}
	return C.GoBytes(unsafe.Pointer(data), size), nil
}
