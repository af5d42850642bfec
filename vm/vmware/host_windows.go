package vmware

import (
	"errors"
	"math"
	"os"
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/windows"
	"golang.org/x/sys/windows/registry"

	"osx-builder/vm"
)

var globalMemoryStatusEx = windows.NewLazySystemDLL("kernel32.dll").NewProc("GlobalMemoryStatusEx")

// memoryStatus is Windows' MEMORYSTATUSEX.
type memoryStatus struct {
	length, load        uint32
	physical, available uint64
	_                   [5]uint64
}

// HostMemory returns the host's memory in MiB.
func HostMemory() int {
	status := memoryStatus{}
	status.length = uint32(unsafe.Sizeof(status))
	if ok, _, _ := globalMemoryStatusEx.Call(uintptr(unsafe.Pointer(&status))); ok == 0 {
		return math.MaxInt32 // let VMware refuse
	}
	return int(status.physical >> 20)
}

// LeaseFiles returns the lease file of VMware Workstation's DHCP server, which serves all networks.
func LeaseFiles() map[vm.NetworkType]string {
	file := filepath.Join(os.Getenv("ProgramData"), `VMware\vmnetdhcp.leases`)
	return map[vm.NetworkType]string{vm.NAT: file, vm.HostOnly: file}
}

// InstallPath returns the folder that one of VMware's installers has written into the registry, below the key of
// HKEY_LOCAL_MACHINE, or "". The installers are programs of 32 bits, whose keys are in SOFTWARE\WOW6432Node.
func InstallPath(key string) string {
	k, err := registry.OpenKey(registry.LOCAL_MACHINE, key, registry.QUERY_VALUE)
	if err != nil {
		return ""
	}
	defer k.Close()
	dir, _, err := k.GetStringValue("InstallPath")
	if err != nil {
		return ""
	}
	return dir
}

// reflink returns an error: NTFS has no copies that share their blocks.
func reflink(string, string) error { return errors.ErrUnsupported }
