package e2e

import (
	"net"
	"os"
	"path/filepath"
	"strings"

	"osx-builder/vm/qemu/network"
)

// Leftovers lists what the machines of a data folder have on the host: processes
// with the folder in their arguments, network devices and files in /run of the
// folder's daemon, the files of machines, and DHCP leases. It lists nothing of
// other daemons on the same host.
func Leftovers(data string) []string {
	var found []string
	found = append(found, processes(data)...)
	prefix := network.DevicePrefix(data)
	devices, _ := net.Interfaces() // if they cannot be listed, there are none to report
	for _, d := range devices {
		if strings.HasPrefix(d.Name, prefix) {
			found = append(found, "device "+d.Name)
		}
	}
	runFiles, _ := filepath.Glob("/run/" + prefix + "*")
	files, _ := filepath.Glob(filepath.Join(data, "vms", "*"))
	for _, f := range append(runFiles, files...) {
		found = append(found, "file "+f)
	}
	return append(found, leases(data)...)
}

// processes lists the processes of QEMU and dnsmasq that use the data folder: their arguments name it, or, as QEMU gets
// its files open, they have files in it open.
func processes(data string) (found []string) {
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range files {
		b, err := os.ReadFile(file)
		args := strings.ReplaceAll(string(b), "\x00", " ")
		if err != nil || len(strings.Fields(args)) == 0 {
			continue
		}
		name := filepath.Base(strings.Fields(args)[0])
		if !strings.HasPrefix(name, "qemu") && name != "dnsmasq" {
			continue
		}
		if strings.Contains(args, data+"/") || HasOpen(filepath.Dir(file), data) {
			found = append(found, "process "+filepath.Base(filepath.Dir(file))+" "+name)
		}
	}
	return found
}

// HasOpen reports whether a process, given by its folder in /proc, has a file in the data folder open. It returns false
// for a process that it may not look at.
func HasOpen(process, data string) bool {
	descriptors, _ := filepath.Glob(process + "/fd/*")
	for _, d := range descriptors {
		if target, err := os.Readlink(d); err == nil && strings.HasPrefix(target, data+"/") {
			return true
		}
	}
	return false
}

// leases lists the current DHCP leases.
func leases(data string) (found []string) {
	_ = filepath.WalkDir(filepath.Join(data, "net"), func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() || !strings.Contains(e.Name(), "lease") {
			return nil
		}
		b, _ := os.ReadFile(path)
		for line := range strings.Lines(string(b)) {
			found = append(found, "lease "+strings.TrimSpace(line))
		}
		return nil
	})
	return found
}
