package qemu

import (
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"osx-builder/vm/qemu/cgroup"
	"osx-builder/vm/qemu/confine"
	"osx-builder/vm/qemu/process"
)

const (
	// memoryOverhead is the address space that a QEMU may use besides the
	// machine's memory: 1 GiB for translated code, the stacks of up to 64 threads
	// that read and write disks, its program and libraries, and as much again.
	memoryOverhead = 3 << 30

	// processorOverhead is the address space for each virtual processor: the
	// stack of its thread, and buffers.
	processorOverhead = 16 << 20

	// arenas bounds the address space that the C library reserves for QEMU's
	// threads, 64 MiB each.
	arenas = "MALLOC_ARENA_MAX=4"

	// extraThreads is how many threads a QEMU may have besides its processors':
	// its main loop, up to 64 that read and write disks, and as many again.
	extraThreads = 130

	// extraFiles is how many files a QEMU may open besides those that it was
	// handed and its own copies of them. Devices use a few for each queue.
	extraFiles = 1024

	// groupWeight is the weight of a machine's control group, and lowGroupWeight
	// that of a template's guest, whose priority counts only within its group.
	groupWeight    = 100
	lowGroupWeight = 10

	// consoleBytes bounds how long a guest's console can become, holes
	// included, if nothing trims it.
	consoleBytes = 8 << 30
)

// rules say what the machine's QEMU may do: use what it was handed open, and read
// its own program, libraries and firmware. A QEMU that shows a window is not
// restricted; see [confine.Rules].
func (s setup) rules(program string, files *process.Files) confine.Rules {
	if s.hasWindow() {
		return confine.Rules{Free: true}
	}
	r := confine.Rules{
		User:    s.user,
		Execute: programFiles(program),
		Read:    []string{"/etc/localtime"},
		Limits: confine.Limits{
			Memory:    s.addressSpace(),
			Files:     extraFiles + 2*files.Len(),
			Processes: s.CPUs + extraThreads,
			FileSize:  consoleBytes,
		},
	}
	for _, d := range s.Disks {
		// qcow2's tables take less than a thousandth of the disk.
		r.Limits.FileSize = max(r.Limits.FileSize, d.Size+d.Size>>8+consoleBytes)
	}
	if s.accel == "kvm" {
		r.Write = append(r.Write, kvmDevice)
		r.Groups = groupsOf(kvmDevice)
	}
	for i := range s.NICs {
		if a := s.of(i); a.Tap == "" {
			r.Network = true
			for _, f := range a.Forwards {
				r.Listen = append(r.Listen, f.Host)
			}
		}
	}
	if r.Network {
		r.Read = append(r.Read, "/etc", "/run/systemd/resolve") // resolv.conf, which other programs replace
	}
	return r
}

// groupLimits bound the machine's QEMU together with what runs beside it. Those of its address space also bound its
// memory.
func (s setup) groupLimits() cgroup.Limits {
	l := cgroup.Limits{Memory: s.addressSpace(), Processes: s.CPUs + extraThreads, Weight: groupWeight}
	if s.ram.share {
		l.Weight = lowGroupWeight
	}
	return l
}

// addressSpace is how many bytes of memory QEMU may map.
func (s setup) addressSpace() int64 {
	return int64(s.Memory)<<20 + memoryOverhead + int64(s.CPUs)*processorOverhead
}

// kvmDevice is the device of Linux's hardware acceleration.
const kvmDevice = "/dev/kvm"

// programFiles returns QEMU's program, and the folders below its prefix where it
// finds its firmware and modules. Those of /usr are always readable.
func programFiles(program string) []string {
	if real, err := filepath.EvalSymlinks(program); err == nil {
		program = real
	}
	prefix := filepath.Dir(filepath.Dir(program))
	all := []string{program, "/nix/store", "/gnu/store"}
	for _, folder := range []string{"share/qemu", "share/seabios", "lib", "lib64"} {
		all = append(all, filepath.Join(prefix, folder))
	}
	return all
}

// groupsOf returns the group that may use a device, unless everybody may.
func groupsOf(device string) []int {
	var st unix.Stat_t
	if err := unix.Stat(device, &st); err != nil || st.Mode&0o006 == 0o006 || st.Mode&0o060 != 0o060 {
		return nil
	}
	return []int{int(st.Gid)}
}

// confinementOf lists what confines machines on a network of this kind.
func confinementOf(n networkBackend, groups *cgroup.Groups) string {
	_, user := n.(*userBackend)
	var all []string
	group, why := groups.Describe()
	for _, measure := range append(confine.Measures(user), confine.Measure{Name: group, Why: why}) {
		all = append(all, measure.String())
	}
	if user {
		all = append(all, "network: TCP and UDP, since machines are on the user network")
	}
	return strings.Join(all, "; ")
}

// environment is the environment of QEMU. Only a window needs the daemon's: it
// says where the desktop is. A guest with local time needs the time zone.
func (s setup) environment() []string {
	if s.hasWindow() {
		return os.Environ()
	}
	env := []string{arenas}
	if zone, set := os.LookupEnv("TZ"); set {
		env = append(env, "TZ="+zone)
	}
	return env
}
