package network

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// tapPatience bounds how long a tap is opened again that is still open. A child
	// of this process has a copy of each descriptor until it runs its program, also
	// of that by which the tap was made a moment ago.
	tapPatience = 5 * time.Second
	tapPause    = 2 * time.Millisecond
)

// OpenTap opens a tap that [Manager.Attach] returned. What is written to the file reaches the bridge, and the guest's
// frames are read from it, so that QEMU needs no other access to the host's network. Each tap can be open once. One that
// is open is waited for, for some seconds.
func OpenTap(name string) (*os.File, error) {
	for end := time.Now().Add(tapPatience); ; time.Sleep(tapPause) {
		f, err := openTap(name)
		if !errors.Is(err, unix.EBUSY) || time.Now().After(end) {
			return f, err
		}
	}
}

func openTap(name string) (*os.File, error) {
	f, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("opening tap %s: %w", name, err)
	}
	request, err := unix.NewIfreq(name)
	if err == nil {
		request.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
		err = unix.IoctlIfreq(int(f.Fd()), unix.TUNSETIFF, request)
	}
	if err == nil {
		err = unix.SetNonblock(int(f.Fd()), true) // as QEMU needs it
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("opening tap %s: %w", name, err)
	}
	return f, nil
}
