package vmx

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strings"
)

// Bounds on what Check follows.
const (
	maxChain     = 32     // disks in a chain of parents; VMware allows 32 snapshots
	maxImageWork = 20_000 // extents in one image
)

// Check says whether a hypervisor may open the unpacked image in root whose
// .vmx is at name, a path with slashes. It returns nil if every hard disk,
// every file that a disk's descriptor names, every parent of a disk, and the
// nvram file if there is one, is a regular file inside root and of the kind
// that it is said to be, and no reader could take the files to name others. The
// list of snapshots beside the .vmx must name no file elsewhere either.
//
// It does not judge what Disarm switches off. It writes nothing, and reads
// little of each file. An error about the image is a *CheckError.
func Check(root *os.Root, name string) error {
	f, err := readConfig(root, name)
	if err != nil {
		return err
	}
	c := &checker{root: root, vmx: name, chainOf: map[string]int{}}
	if err := c.blame(name, "", "", c.machine(f)); err != nil {
		return err
	}
	return c.snapshots(strings.TrimSuffix(name, path.Ext(name)) + ".vmsd")
}

// readConfig reads a .vmx file inside root, or one of the same form.
func readConfig(root *os.Root, name string) (*File, error) {
	file, err := openRegular(root, name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	data, err := readAt(file, 0, maxFile+1)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", name, err)
	}
	f, err := Parse(data)
	if err != nil {
		return nil, &CheckError{File: name, Reason: err.Error()}
	}
	return f, nil
}

type checker struct {
	root    *os.Root
	vmx     string         // path of the .vmx
	chainOf map[string]int // which disk's chain a descriptor was checked in, from 1
	extents int
}

// blame fills in where a refusal comes from, as far as err does not say.
func (c *checker) blame(file, key, value string, err error) error {
	if refusal, ok := errors.AsType[*CheckError](err); ok {
		if refusal.Key == "" && key != "" {
			refusal.File, refusal.Key, refusal.Value = file, key, value
		}
		if refusal.File == "" {
			refusal.File = file
		}
	}
	return err
}

// machine checks all that the .vmx names.
func (c *checker) machine(f *File) error {
	if _, ok := f.Get("encryption.data"); ok {
		return &CheckError{Key: "encryption.data", Value: "...", Reason: "the machine is encrypted; remove its encryption and pack it anew"}
	}
	if err := f.ambiguous(); err != nil {
		return err
	}
	h, err := f.Hardware()
	if err != nil {
		return err
	}
	if len(h.Disks) == 0 {
		return &CheckError{Reason: `the machine has no hard disk; one would look like scsi0:0.present = "TRUE" and scsi0:0.fileName = "disk.vmdk"`}
	}
	if h.NVRAM != "" {
		_, err := c.resolve(c.vmx, "nvram", h.NVRAM)
		// VMware makes the file anew where it is missing.
		if refusal, ok := errors.AsType[*CheckError](err); err != nil && (!ok || refusal.Hostile) {
			return err
		}
	}
	for i, d := range h.Disks {
		if err := c.disk(f, d, i+1); err != nil {
			return err
		}
	}
	return nil
}

// ambiguous refuses keys of disks and nvram that the file sets twice and not
// alike: readers differ on which one counts.
func (f *File) ambiguous() error {
	for i, l := range f.lines {
		last := f.last[l.key]
		if l.key == "" || i == last || l.value == f.lines[last].value {
			continue
		}
		if l.key == "nvram" || slotKey.MatchString(l.key) {
			return &CheckError{Key: l.key, Value: l.value, Reason: fmt.Sprintf("the key is set again further down, to %q; leave one", shorten(f.lines[last].value))}
		}
	}
	return nil
}

// disk checks the n-th hard disk and what it is made of.
func (c *checker) disk(f *File, d Disk, n int) error {
	prefix := strings.TrimSuffix(d.Key, ".fileName")
	if kind := f.word(prefix + ".deviceType"); strings.Contains(kind, "raw") {
		return &CheckError{Key: prefix + ".deviceType", Value: kind, Hostile: true, Reason: "raw disks of the host are not opened; the disk has to be a VMDK of the image"}
	}
	if redo, _ := f.Get(prefix + ".redo"); redo != "" {
		if reason := unsafeName(redo); reason != "" {
			return &CheckError{Key: prefix + ".redo", Value: redo, Hostile: true, Reason: reason}
		}
	}
	name, err := c.resolve(c.vmx, d.Key, d.File)
	if err != nil {
		return err
	}
	by, key, value := c.vmx, d.Key, d.File
	for range maxChain {
		if seen := c.chainOf[name]; seen == n {
			return &CheckError{File: by, Key: key, Value: value, Reason: "the disk is its own parent"}
		} else if seen > 0 {
			return nil
		}
		c.chainOf[name] = n
		v, err := ReadVMDK(c.root, name)
		if err == nil {
			err = c.descriptor(name, v)
		}
		if err != nil {
			return c.blame(by, key, value, err)
		}
		if v.Parent == "" {
			return nil
		}
		by, key, value = name, "parentFileNameHint", v.Parent
		if name, err = c.resolve(by, key, value); err != nil {
			return err
		}
	}
	return &CheckError{File: by, Key: key, Value: value, Reason: fmt.Sprintf("the disk has more than %d parents; consolidate its snapshots", maxChain-1)}
}

// resolve returns the path inside root of the regular file that the file at by
// names.
func (c *checker) resolve(by, key, value string) (string, error) {
	if value == "" {
		return "", &CheckError{File: by, Key: key, Value: value, Reason: "no file is named; a hard disk needs one inside the image"}
	}
	if reason := unsafeName(value); reason != "" {
		return "", &CheckError{File: by, Key: key, Value: value, Hostile: true, Reason: reason}
	}
	name := path.Join(path.Dir(by), value)
	return name, c.blame(by, key, value, mustBeRegular(c.root, name))
}
