package vmware

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"osx-builder/vm"
)

// completeName is the file that Clone writes last: if it exists, the machine is complete.
const completeName = "osx-builder.json"

// OwnsMachine reports whether the folder dir holds a machine of VMware.
func OwnsMachine(dir string) bool {
	_, err := os.Lstat(filepath.Join(dir, completeName))
	return err == nil
}

// completeClone is the content of the file that Clone writes last.
type completeClone struct {
	ID       string      `json:"id"`
	Gold     string      `json:"gold"`
	Warnings vm.Warnings `json:"warnings,omitempty"`
}

func readComplete(m vm.Machine) (c completeClone, err error) {
	path := filepath.Join(m.Dir, completeName)
	data, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(data, &c)
	}
	if err != nil {
		return c, fmt.Errorf("reading %s: %w", path, err)
	}
	return c, nil
}

// VMXPath returns the path of a machine's .vmx.
func VMXPath(m vm.Machine) string { return filepath.Join(m.Dir, m.ID+".vmx") }

// HasVMX reports whether the machine's .vmx exists. If that cannot be found out, it returns true.
func HasVMX(m vm.Machine) bool {
	_, err := os.Stat(VMXPath(m))
	return !errors.Is(err, fs.ErrNotExist)
}

// IsComplete reports whether a machine exists and is complete. Without its .vmx it is not: VMware deletes that first.
func IsComplete(m vm.Machine) (bool, error) {
	for _, path := range []string{filepath.Join(m.Dir, completeName), VMXPath(m)} {
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			return false, nil
		} else if err != nil {
			return false, err
		}
	}
	return true, nil
}

// CheckComplete returns an error if the machine cannot be started because it is not complete.
func CheckComplete(m vm.Machine) error {
	complete, err := IsComplete(m)
	if err == nil && !complete {
		err = fmt.Errorf("there is no complete machine in %s", m.Dir)
	}
	return err
}

// finish makes a new clone what the machine's request asks for, and marks it as complete.
func finish(m vm.Machine, gold string) error {
	if err := customize(VMXPath(m), m); err != nil {
		return err
	}
	// VMware sets a mode of its own.
	if err := os.Chmod(m.Dir, 0o700); err != nil {
		return err
	}
	warnings, err := readWarnings(gold)
	if err != nil {
		return err
	}
	data, err := json.Marshal(completeClone{ID: m.ID, Gold: gold, Warnings: warnings})
	if err != nil {
		return err
	}
	return vm.WriteFile(filepath.Join(m.Dir, completeName), data)
}

func removeUnfinished(m vm.Machine) error {
	if err := os.RemoveAll(m.Dir); err != nil {
		return fmt.Errorf("removing an unfinished clone: %w", err)
	}
	return nil
}
