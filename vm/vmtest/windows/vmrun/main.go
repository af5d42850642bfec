// Command vmrun is a double of VMware's vmrun for systems without a shell. It runs no guest, but manages machines as
// vmrun does, with the same output. A running machine is a process of this program, which holds the machine's lock.
//
// OSXB_VMRUN_DOUBLE names a control folder:
//
//	hang.COMMAND   while the file exists, the command does not end
//	running/       a file for each running machine: its process, and the path of its .vmx
//	log            a line for each call
package main

import (
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

func main() {
	args := os.Args[1:]
	if len(args) == 2 && args[0] == machineCommand {
		runMachine(args[1])
		return
	}
	d := &double{control: os.Getenv("OSXB_VMRUN_DOUBLE")}
	if err := d.run(args); err != nil {
		fmt.Printf("Error: %v\n", err)
		os.Exit(255)
	}
}

// double has the state of all machines.
type double struct{ control string }

// failure is an error in vmrun's own words.
type failure string

func (f failure) Error() string { return string(f) }

const (
	errNotFound   = failure("The virtual machine cannot be found")
	errOff        = failure("The virtual machine is not powered on")
	errRunning    = failure("The virtual machine should not be powered on. It is already running.")
	errNoSnapshot = failure("The snapshot was not found")
	errExists     = failure("The snapshot already exists")
	errUnknown    = failure("Unrecognized command")
)

func (d *double) run(args []string) error {
	if err := os.MkdirAll(filepath.Join(d.control, "running"), 0o755); err != nil {
		return err
	}
	if len(args) < 3 || args[0] != "-T" || args[1] != "ws" {
		return fmt.Errorf("%w: %q", errUnknown, args)
	}
	args = args[2:]
	log, err := os.OpenFile(filepath.Join(d.control, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(log, strings.Join(args, " "))
	if err := errors.Join(err, log.Close()); err != nil {
		return err
	}
	for exists(filepath.Join(d.control, "hang."+args[0])) {
		time.Sleep(20 * time.Millisecond)
	}
	if args[0] == "list" {
		return d.list()
	}
	if len(args) < 2 {
		return fmt.Errorf("%w: %q", errUnknown, args)
	}
	m := &machine{double: d, vmx: args[1]}
	if !exists(m.vmx) {
		return errNotFound
	}
	return m.run(args[0], args[2:])
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// list prints the paths of the running machines.
func (d *double) list() error {
	files, err := filepath.Glob(filepath.Join(d.control, "running", "*"))
	if err != nil {
		return err
	}
	var paths []string
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // it was stopped meanwhile
		}
		if _, path, ok := strings.Cut(string(text), " "); ok {
			paths = append(paths, path)
		}
	}
	fmt.Printf("Total running VMs: %d\r\n", len(paths))
	for _, path := range paths {
		fmt.Printf("%s\r\n", path)
	}
	return nil
}

// machine is the machine with this .vmx, which exists.
type machine struct {
	*double
	vmx string
}

// stateFile is the file that exists while the machine runs.
func (m *machine) stateFile() string {
	return filepath.Join(m.control, "running", fmt.Sprintf("%08x", crc32.ChecksumIEEE([]byte(strings.ToLower(m.vmx)))))
}

func (m *machine) base() string { return strings.TrimSuffix(m.vmx, ".vmx") }

// run executes a command of the machine.
func (m *machine) run(command string, args []string) error {
	running := exists(m.stateFile())
	needsOff := map[string]bool{"clone": true, "start": true, "deleteVM": true}
	needsOn := map[string]bool{"stop": true, "suspend": true, "reset": true, "checkToolsState": true, "getGuestIPAddress": true, "captureScreen": true}
	switch {
	case needsOff[command] && running:
		return errRunning
	case needsOn[command] && !running:
		return errOff
	}
	switch command {
	case "listSnapshots":
		text, _ := os.ReadFile(m.base() + ".vmsd") // without the file there is none
		fmt.Printf("Total snapshots: %d\r\n%s", strings.Count(string(text), "\n"), text)
		return nil
	case "snapshot":
		return m.snapshot(args[0])
	case "clone":
		return m.clone(args[0], strings.TrimPrefix(args[2], "-snapshot="))
	case "start":
		return m.start()
	case "stop":
		return m.stop()
	case "suspend":
		return errors.Join(os.WriteFile(m.base()+".vmss", nil, 0o644), m.stop())
	case "reset":
		return nil
	case "deleteVM":
		return m.remove()
	case "checkToolsState":
		fmt.Println("running")
	case "getGuestIPAddress":
		fmt.Println("192.168.99.7")
	case "captureScreen":
		return os.WriteFile(args[0], []byte("\x89PNG\r\n\x1a\n"), 0o644)
	default:
		return errUnknown
	}
	return nil
}

var diskLine = regexp.MustCompile(`(?im)^([a-z]+\d+:\d+\.filename\s*=\s*)"([^"]*\.vmdk)"`)

// grow writes the machine's .vmx at to, with a child of each disk.
func (m *machine) grow(to, name string) error {
	text, err := os.ReadFile(m.vmx)
	if err != nil {
		return err
	}
	n, dir := 0, filepath.Dir(to)
	var errs []error
	grown := diskLine.ReplaceAllStringFunc(string(text), func(line string) string {
		parts := diskLine.FindStringSubmatch(line)
		parent := parts[2]
		if !filepath.IsAbs(parent) {
			parent = filepath.Join(filepath.Dir(m.vmx), parent)
		}
		child := fmt.Sprintf("%s-%d.vmdk", name, n)
		n++
		descriptor := fmt.Sprintf("# Disk DescriptorFile\r\nversion=1\r\nparentFileNameHint=%q\r\n", parent)
		errs = append(errs, os.WriteFile(filepath.Join(dir, child), []byte(descriptor), 0o644))
		return parts[1] + `"` + child + `"`
	})
	return errors.Join(append(errs, os.WriteFile(to, []byte(grown), 0o644))...)
}

func (m *machine) hasSnapshot(name string) bool {
	text, _ := os.ReadFile(m.base() + ".vmsd")
	return strings.Contains("\n"+string(text), "\n"+name+"\r\n")
}

func (m *machine) snapshot(name string) error {
	if m.hasSnapshot(name) {
		return errExists
	}
	if err := m.grow(m.vmx, "snapshot"); err != nil {
		return err
	}
	return os.WriteFile(m.base()+".vmsd", []byte(name+"\r\n"), 0o644)
}

func (m *machine) clone(to, snapshot string) error {
	if !m.hasSnapshot(snapshot) {
		return errNoSnapshot
	}
	if entries, _ := os.ReadDir(filepath.Dir(to)); len(entries) > 0 {
		return errExists
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	return m.grow(to, "clone")
}

// remove deletes the machine's files, but not what others have put into its folder.
func (m *machine) remove() error {
	var errs []error
	for _, pattern := range []string{"*.vmdk", "*.vmsd", "*.vmss", "*.vmx"} {
		files, err := filepath.Glob(filepath.Join(filepath.Dir(m.vmx), pattern))
		errs = append(errs, err)
		for _, file := range files {
			errs = append(errs, os.Remove(file))
		}
	}
	return errors.Join(errs...)
}
