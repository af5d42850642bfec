package vmx

import (
	"errors"
	"io/fs"
	"strings"
)

// snapshots checks the list of snapshots at name, which may be missing. It is
// of the same form as a .vmx. VMware opens the disks that it names, and deletes
// them together with the machine.
func (c *checker) snapshots(name string) error {
	if _, err := c.root.Lstat(name); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	f, err := readConfig(c.root, name)
	if err != nil {
		return err
	}
	for _, l := range f.lines {
		if !strings.HasSuffix(l.key, "filename") {
			continue
		}
		if reason := unsafeName(l.value); reason != "" {
			return &CheckError{File: name, Key: l.key, Value: l.value, Hostile: true, Reason: reason}
		}
	}
	return nil
}
