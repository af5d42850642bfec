package vmx

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strings"
)

// The limits of Check.
const (
	maxChain        = 32     // disks in a chain of parents; VMware allows 32 snapshots
	maxImageExtents = 20_000 // extents in one image
)

// Check returns nil if a hypervisor may open the unpacked image in root whose .vmx is at name, a path with slashes.
// Every hard disk, every file in a disk's descriptor, every parent of a disk, and the nvram file if there is one, must
// be a regular file inside root and of the stated type, and no reader may find other names in the files. The snapshot
// list beside the .vmx must not name files elsewhere either.
//
// Check ignores what [File.DisableHostAccess] disables. It writes nothing and reads only a small part of each file. An
// error about the image is a [*CheckError].
func Check(root *os.Root, name string) error { return Checker{}.Check(root, name) }

// Checker checks images with a limit of its own.
type Checker struct {
	MaxDisk int64 // largest virtual disk in bytes, the setting -image-max-disk; 0 means 64 TiB
}

// Check is [Check] with the limit. Of sparse disks it reads the grain tables.
func (l Checker) Check(root *os.Root, name string) error {
	f, err := readConfig(root, name)
	if err != nil {
		return err
	}
	c := &checker{
		root: root, vmx: name, maxDisk: l.MaxDisk,
		chainOf: map[string]int{}, checked: map[string]VMDK{}, diskAt: map[string]string{}, usedBy: map[string]string{}, chainLoad: map[string]int64{},
	}
	if err := c.locate(name, "", "", c.checkMachine(f)); err != nil {
		return err
	}
	return c.checkSnapshots(strings.TrimSuffix(name, path.Ext(name)) + ".vmsd")
}

// readConfig reads a file inside root that has the format of a .vmx.
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
	vmx     string          // path of the .vmx
	chainOf map[string]int  // by descriptor: the disk, from 1, in whose chain it was checked
	checked map[string]VMDK // by descriptor
	extents int             // checked so far

	maxDisk   int64             // bytes, or 0
	diskAt    map[string]string // by descriptor: the key of the disk that it is
	usedBy    map[string]string // by file: the descriptor that it is, or whose extent it is
	loaded    int64             // bytes that QEMU loads for the disks checked so far
	chainLoad map[string]int64  // by descriptor: of those, the bytes for it and its parents
	counter   grainCounter
}

// locate adds the file and the key to a CheckError that lacks them.
func (c *checker) locate(file, key, value string, err error) error {
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

// checkMachine checks everything that the .vmx names.
func (c *checker) checkMachine(f *File) error {
	if _, ok := f.Get("encryption.data"); ok && !f.isPartlyEncrypted() {
		return &CheckError{Key: "encryption.data", Value: "...", Reason: "the machine is encrypted; remove its encryption and pack the image again"}
	}
	if err := f.checkDuplicates(); err != nil {
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
		// VMware creates the file if it is missing.
		if refusal, ok := errors.AsType[*CheckError](err); err != nil && (!ok || refusal.Hostile) {
			return err
		}
	}
	for i, d := range h.Disks {
		if err := c.checkDisk(f, d, i+1); err != nil {
			return err
		}
	}
	return nil
}

// checkDuplicates refuses keys of disks and nvram that the file sets to two values, because readers use different ones.
func (f *File) checkDuplicates() error {
	for i, l := range f.lines {
		last := f.last[l.key]
		if l.key == "" || i == last || l.value == f.lines[last].value {
			continue
		}
		if l.key == "nvram" || slotKey.MatchString(l.key) {
			return &CheckError{Key: l.key, Value: l.value, Reason: fmt.Sprintf("the key is set again below, to %q; remove one of the lines", shorten(f.lines[last].value))}
		}
	}
	return nil
}

// checkDisk checks the n-th hard disk and its files.
func (c *checker) checkDisk(f *File, d Disk, n int) error {
	prefix := strings.TrimSuffix(d.Key, ".fileName")
	if kind := f.lowerValue(prefix + ".deviceType"); strings.Contains(kind, "raw") {
		return &CheckError{Key: prefix + ".deviceType", Value: kind, Hostile: true, Reason: "raw disks of the host are not allowed; the disk must be a VMDK in the image"}
	}
	if redo, _ := f.Get(prefix + ".redo"); redo != "" {
		if reason := unsafeName(redo); reason != "" {
			return &CheckError{Key: prefix + ".redo", Value: redo, Hostile: leavesImage(redo), Reason: reason}
		}
	}
	name, err := c.resolve(c.vmx, d.Key, d.File)
	if err != nil {
		return err
	}
	if c.chainOf[name] > 0 {
		return &CheckError{File: c.vmx, Key: d.Key, Value: d.File, Reason: "the file is also part of another disk of the machine; each disk needs files of its own"}
	}
	c.diskAt[name] = d.Key
	return c.checkChain(d, n, name)
}

// checkChain checks the file of the n-th hard disk at name, its parent, and so on.
func (c *checker) checkChain(d Disk, n int, name string) error {
	by, key, value := c.vmx, d.Key, d.File
	before := map[string]int64{}
	defer func() {
		for name, loaded := range before {
			c.chainLoad[name] = c.loaded - loaded
		}
	}()
	var child VMDK
	for level := range maxChain {
		switch seen := c.chainOf[name]; {
		case seen == n:
			return &CheckError{File: by, Key: key, Value: value, Reason: "the disk is its own parent"}
		case seen > 0 && c.diskAt[name] != "":
			return &CheckError{File: by, Key: key, Value: value, Reason: "the parent is also the disk " + c.diskAt[name] + " of the machine; each disk needs files of its own"}
		case seen > 0:
			if err := checkLink(by, name, child, c.checked[name]); err != nil {
				return err
			}
			return c.locate(by, key, value, c.load(c.chainLoad[name]))
		}
		c.chainOf[name] = n
		before[name] = c.loaded
		v, err := ReadVMDK(c.root, name)
		if err == nil {
			err = c.checkDescriptor(name, v)
		}
		if err != nil {
			return c.locate(by, key, value, err)
		}
		if level > 0 {
			if err := checkLink(by, name, child, v); err != nil {
				return err
			}
		}
		c.checked[name] = v
		if v.Parent == "" {
			return nil
		}
		by, key, value, child = name, "parentFileNameHint", v.Parent, v
		if name, err = c.resolve(by, key, value); err != nil {
			return err
		}
	}
	return &CheckError{File: by, Key: key, Value: value, Reason: fmt.Sprintf("the disk has more than %d parents; consolidate its snapshots", maxChain-1)}
}

// resolve returns the path inside root of a regular file. The file at by names it as value.
func (c *checker) resolve(by, key, value string) (string, error) {
	if value == "" {
		return "", &CheckError{File: by, Key: key, Value: value, Reason: "the name is empty; a hard disk needs a file inside the image"}
	}
	if reason := unsafeName(value); reason != "" {
		return "", &CheckError{File: by, Key: key, Value: value, Hostile: leavesImage(value), Reason: reason}
	}
	name := path.Join(path.Dir(by), value)
	return name, c.locate(by, key, value, checkRegular(c.root, name))
}
