package confine

import (
	"os"

	ll "github.com/landlock-lsm/go-landlock/landlock"
	llsys "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"
)

// files are the files that every program may use: those that the dynamic linker reads, and the device that shells
// redirect to.
var (
	systemFolders = []string{"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"}
	systemFiles   = []string{"/etc/ld.so.cache"}
	systemDevices = []string{"/dev/null"}
)

// restrictFiles confines the calling thread with Landlock to the files of r, to the network of r, and to signals,
// debugging and abstract sockets among the program's own processes. Files that are open already stay usable.
func restrictFiles(r Rules) error {
	config := ll.Config{HandledAccessFS: ll.V9.HandledAccessFS, HandledAccessNet: ll.V11.HandledAccessNet, Scoped: ll.V9.Scoped}
	if r.Network {
		config.HandledAccessNet = llsys.AccessNetBindTCP
	}
	fd, flags, err := config.BestEffort().NewRulesetFD(rulesOf(r)...)
	if err != nil || fd < 0 {
		return err
	}
	defer unix.Close(fd)
	return os.NewSyscallError("landlock_restrict_self", llsys.LandlockRestrictSelf(fd, flags))
}

func rulesOf(r Rules) (rules []ll.Rule) {
	for _, path := range append(r.Execute, systemFolders...) {
		if isFolder(path) {
			rules = append(rules, ll.RODirs(path).IgnoreIfMissing())
		} else {
			rules = append(rules, ll.ROFiles(path).IgnoreIfMissing())
		}
	}
	for _, path := range append(r.Read, systemFiles...) {
		access := ll.AccessFSSet(llsys.AccessFSReadFile)
		if isFolder(path) {
			access |= llsys.AccessFSReadDir
		}
		rules = append(rules, ll.PathAccess(access, path).IgnoreIfMissing())
	}
	write := ll.AccessFSSet(llsys.AccessFSReadFile | llsys.AccessFSWriteFile | llsys.AccessFSTruncate | llsys.AccessFSIoctlDev)
	rules = append(rules, ll.PathAccess(write, append(r.Write, systemDevices...)...))
	for _, port := range r.Listen {
		rules = append(rules, ll.BindTCP(uint16(port))) // #nosec G115 -- a port
	}
	return rules
}

func isFolder(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// landlock reports whether the kernel has Landlock.
func landlock() Measure {
	m := Measure{Name: "Landlock"}
	if version, err := llsys.LandlockGetABIVersion(); err != nil || version < 1 {
		m.Why = "the kernel does not have it or does not enable it (lsm=landlock)"
	}
	return m
}
