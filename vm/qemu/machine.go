package qemu

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"osx-builder/vm"
)

// Files in Machine.Dir, besides those of package process.
const (
	machineFile    = "machine.json" // exists once the clone is complete
	attachmentFile = "link.json"    // what the NICs were last attached to
	qmpSocket      = "qmp"          // of QEMU's monitor
	agentSocket    = "qga"          // of the guest's agent
	eventsSocket   = "events"       // of a second monitor, while a machine runs from memory
	varsFile       = "efivars.fd"
	serialLog      = "serial.log"
)

// cloneConfig is what Start and Inspect need to know about a clone.
type cloneConfig struct {
	Annotation string         `json:"annotation"`
	Warnings   vm.Warnings    `json:"warnings,omitempty"`
	Template   *templateStart `json:"template,omitempty"` // nil if the machine boots
	hardware
}

// readConfig reads the configuration of the clone in dir. If there is no complete
// clone, the error is [fs.ErrNotExist].
func readConfig(dir string) (cloneConfig, error) {
	var m cloneConfig
	err := readJSON(filepath.Join(dir, machineFile), &m)
	m.upgrade()
	return m, err
}

// writeConfig replaces the configuration of the clone in dir.
func writeConfig(dir string, clone cloneConfig) error {
	return writeJSON(filepath.Join(dir, machineFile), clone)
}

func readJSON(path string, into any) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, into); err != nil {
		return fmt.Errorf("reading %s: %w", path, err)
	}
	return nil
}

// writeJSON replaces the file. See [vm.WriteFile] for what a crash may leave.
func writeJSON(path string, value any) error {
	data, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return err
	}
	return vm.WriteFile(path, append(data, '\n'))
}

// unreadable returns the error for a machine that exists but has a file that
// cannot be read.
func unreadable(m vm.Machine, file string, err error) error {
	return &vm.Error{
		Code:    vm.CodeOpen,
		Message: fmt.Sprintf("the machine's file %s cannot be read; destroy the machine and create it again", filepath.Join(m.Dir, file)),
		Err:     err,
	}
}

// missing reports whether err means that there is no such file or folder.
func missing(err error) bool { return errors.Is(err, fs.ErrNotExist) }

// OwnsMachine reports whether the folder dir holds a machine of this driver.
func OwnsMachine(dir string) bool {
	_, err := os.Lstat(filepath.Join(dir, machineFile))
	return err == nil
}
