// Package confine runs programs that untrusted code may take over, such as QEMU, with as few rights as the host allows.
package confine

import (
	"fmt"
	"os"
	"strings"
)

// Rules say what a program, and the processes that it starts, may do. The zero Rules allow nothing but to use the files
// that are open already.
type Rules struct {
	User   int   // user and group that the program becomes, or 0: those of the daemon
	Groups []int // further groups, if User is set

	Execute []string // files and folders that it may read and execute; missing ones are left out
	Read    []string // files and folders that it may read; missing ones are left out
	Write   []string // files and devices that it may read and write

	Network bool  // it may open sockets for TCP and UDP
	Listen  []int // TCP ports on which it may listen, if Network is set

	// Free lifts all rules but those about the user. A window needs it: its toolkit uses files, sockets and processes of
	// the desktop.
	Free bool

	Limits Limits

	// ControlGroup is the open file cgroup.procs of the control group (cgroup v2) that the program runs in, or nil: the
	// daemon's. Only Linux has it.
	ControlGroup *os.File
}

// Limits bound what each process uses. A limit of 0 is the daemon's own, except that there are never core dumps.
type Limits struct {
	Memory    int64 // bytes of address space; macOS ignores it
	FileSize  int64 // bytes up to which the process may write any file
	Files     int   // open files
	Processes int   // processes and threads of the user; ignored unless Rules.User is set
	Seconds   int64 // of processor time
}

// script returns the lines of a shell script that set the limits for the rest of it.
func (r Rules) script() string {
	var b strings.Builder
	b.WriteString("ulimit -c 0\n")
	set := func(option string, n int64) {
		if n > 0 {
			fmt.Fprintf(&b, "ulimit -%s %d 2>/dev/null\n", option, n)
		}
	}
	l := r.Limits
	set("v", l.Memory>>10)
	set("f", l.FileSize>>9)
	set("n", int64(l.Files))
	set("t", l.Seconds)
	if l.Processes > 0 && r.User != 0 {
		// bash and dash name this limit differently.
		fmt.Fprintf(&b, "ulimit -u %d 2>/dev/null || ulimit -p %d 2>/dev/null\n", l.Processes, l.Processes)
	}
	return b.String()
}

// Measure is a way of confining programs.
type Measure struct {
	Name string
	Why  string // why it is missing on this host, or ""
}

func (m Measure) String() string {
	if m.Why == "" {
		return m.Name
	}
	return "no " + m.Name + ": " + m.Why
}
