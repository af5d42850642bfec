package vmx

import (
	"errors"
	"io/fs"
	"strings"
)

// checkSnapshots checks the snapshot list at name, if it exists. It has the format of a .vmx. VMware opens the disks
// that it names, and deletes them with the machine.
func (c *checker) checkSnapshots(name string) error {
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
			return &CheckError{File: name, Key: l.key, Value: l.value, Hostile: leavesImage(l.value), Reason: reason}
		}
	}
	return nil
}
