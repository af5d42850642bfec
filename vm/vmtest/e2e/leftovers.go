package e2e

import (
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"osx-builder/vm/qemu/network"
)

// Leftovers lists what the machines of a data folder leave on a host: processes
// that name the folder, network devices and files in /run of its daemon, and,
// below the folder, files other than gold images and the daemon's own. It shows
// nothing of other daemons on the same host.
func Leftovers(data string) []string {
	var found []string
	found = append(found, processes(data)...)
	prefix := network.DevicePrefix(data)
	devices, _ := net.Interfaces() // without a list there is nothing to show
	for _, d := range devices {
		if strings.HasPrefix(d.Name, prefix) {
			found = append(found, "device "+d.Name)
		}
	}
	inRun, _ := filepath.Glob("/run/" + prefix + "*")
	files, _ := filepath.Glob(filepath.Join(data, "vms", "*"))
	for _, f := range append(inRun, files...) {
		found = append(found, "file "+f)
	}
	return append(found, leases(data)...)
}

// processes finds those of QEMU and dnsmasq that work in the data folder.
func processes(data string) (found []string) {
	dirs, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range dirs {
		b, err := os.ReadFile(file)
		args := strings.ReplaceAll(string(b), "\x00", " ")
		if err != nil || !strings.Contains(args, data+"/") {
			continue
		}
		if name := filepath.Base(strings.Fields(args)[0]); strings.HasPrefix(name, "qemu") || name == "dnsmasq" {
			found = append(found, "process "+filepath.Base(filepath.Dir(file))+" "+name)
		}
	}
	return found
}

// leases lists the DHCP leases that are held.
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

// Diff lists what is in after and was not in before.
func Diff(before, after []string) (added []string) {
	for _, a := range after {
		if !slices.Contains(before, a) {
			added = append(added, a)
		}
	}
	return added
}
