package network

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// OpenTap opens a tap that [Manager.Attach] returned. What is written to the file reaches the bridge, and the guest's
// frames are read from it, so that QEMU needs no other access to the host's network. Each tap can be open once.
func OpenTap(name string) (*os.File, error) {
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
