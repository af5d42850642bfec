// Command hostile stands for a QEMU that a guest took over. Started in QEMU's place, with a real machine's descriptors,
// it tries to reach everything that is not its own, and writes to its standard error what it reached.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Marker begins the targets, which are JSON at the end of the program's own file: it gets no other input.
const marker = "\nHOSTILE-TARGETS:"

// targets are what there is to reach.
type targets struct {
	Data      string // the daemon's data folder
	Own       string // the folder of the machine in whose place this program runs
	Victim    string // the folder of another machine
	Gold      string // a disk of an image
	Record    string // a machine's record
	Token     string // a file with a token
	APISocket string // a listening Unix socket
	Abstract  string // a listening abstract Unix socket
	API       string // address of a TCP server on loopback
	LAN       string // address of a UDP server on another interface
	Daemon    int    // the daemon's process
	VictimPID int    // the other machine's QEMU
	Memory    int64  // bytes, more than the machine's QEMU needs
	Sleep     string // seconds that a process stays which is left behind; nobody else's process has this number
}

// attempt is one thing that a hostile QEMU tries. try returns nil if it succeeded.
type attempt struct {
	name string
	try  func(targets) error
}

// Result is what became of an attempt.
type result struct {
	Name      string
	Succeeded bool
	Why       string
}

func main() {
	if slices.Contains(os.Args, "-version") {
		fmt.Println("QEMU emulator version 7.2.0")
		return
	}
	signal.Ignore(unix.SIGXFSZ)
	t, err := readTargets()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	enc := json.NewEncoder(os.Stderr)
	for _, a := range slices.Concat(files(), memory(), network(), processes(), resources()) {
		r := result{Name: a.name, Succeeded: true}
		if err := a.try(t); err != nil {
			r.Succeeded, r.Why = false, err.Error()
		}
		_ = enc.Encode(r)
	}
	os.Exit(3)
}

func readTargets() (t targets, err error) {
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		return t, err
	}
	at := bytes.LastIndex(self, []byte(marker))
	if at < 0 {
		return t, fmt.Errorf("the program has no targets")
	}
	return t, json.Unmarshal(self[at+len(marker):], &t)
}

// descriptors returns the descriptors that the arguments name, those of sets first.
func descriptors() (all []int) {
	for _, a := range os.Args {
		for option := range strings.SplitSeq(a, ",") {
			var fd int
			if n, _ := fmt.Sscanf(option, "fd=%d", &fd); n == 1 {
				all = append(all, fd)
			}
		}
	}
	return all
}

// overlay is the descriptor of the machine's first disk.
func overlay() int { return descriptors()[0] }
