// Package template keeps the memory and the disks of guests that were stopped
// right after they had booted. Machines that start from memory continue such a
// guest instead of booting.
//
// Each template is a folder of its own, which gets its name last, by one rename:
//
//	template.json    what it was made of, and when
//	disk0.qcow2      what the guest wrote while it booted; one file per disk, read-only
//	empty0.qcow2     an empty overlay over it, to be copied; one file per disk
//	efivars.fd       EFI's variables, if the image has EFI firmware
//	state            the state of QEMU's devices
//	ram              the guest's memory, as a sparse file
//
// Machines share the memory. They get it as a file in memory that is sealed: no
// process can change it, not even a QEMU that a guest took over. The file ram
// is read when the daemon has restarted.
package template

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"osx-builder/vm/qemu/network"
)

// The names of a template's files. Those of disks have a number in them.
const (
	infoFile  = "template.json"
	stateFile = "state"
	ramFile   = "ram"
	VarsFile  = "efivars.fd"
)

// tempPrefix begins the name of a folder that is not a template yet.
const tempPrefix = ".new-"

// Info is what is known about a template.
type Info struct {
	Key       string        `json:"key"`
	Image     string        `json:"image"` // folder of the gold image, such as "sha256-…"
	CPUs      int           `json:"cpus"`
	Memory    int           `json:"memory"` // MiB
	Network   network.Kind  `json:"network"`
	Inner     network.Inner `json:"inner"`
	Disks     int           `json:"disks"`
	Agent     bool          `json:"agent"` // the guest's agent answered
	CreatedAt time.Time     `json:"created_at"`
}

// Key returns the name of the template that was made of these parts.
func Key(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d:%s\n", len(p), p)
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// ValidKey reports whether key has the form of a [Key], so that it is a safe name
// of a file.
func ValidKey(key string) bool {
	_, err := hex.DecodeString(key)
	return err == nil && len(key) == 32 && key == strings.ToLower(key)
}

// Template is a whole template on the disk.
type Template struct {
	Info
	dir string
}

// Disk returns the path of the frozen disk i.
func (t Template) Disk(i int) string { return filepath.Join(t.dir, diskName(i)) }

// Empty returns the path of an empty overlay over the disk i.
func (t Template) Empty(i int) string { return filepath.Join(t.dir, emptyName(i)) }

// Vars returns the path of EFI's variables. The file is absent if the image has
// BIOS firmware.
func (t Template) Vars() string { return filepath.Join(t.dir, VarsFile) }

// OpenState opens the state of QEMU's devices, from its beginning.
func (t Template) OpenState() (*os.File, error) { return os.Open(filepath.Join(t.dir, stateFile)) }

func diskName(i int) string  { return fmt.Sprintf("disk%d.qcow2", i) }
func emptyName(i int) string { return fmt.Sprintf("empty%d.qcow2", i) }

// read reads the template in dir. Without one the error is [fs.ErrNotExist].
func read(dir string) (Template, error) {
	t := Template{dir: dir}
	b, err := os.ReadFile(filepath.Join(dir, infoFile))
	if err != nil {
		return t, err
	}
	if err := json.Unmarshal(b, &t.Info); err != nil {
		return t, fmt.Errorf("reading %s: %w", filepath.Join(dir, infoFile), err)
	}
	if t.Key != filepath.Base(dir) {
		return t, fmt.Errorf("the template in %s is named %.64q", dir, t.Key)
	}
	return t, nil
}

// removeTemplate removes a template so that at any time it is whole or has lost
// the name of one.
func removeTemplate(dir string) error {
	gone := filepath.Join(filepath.Dir(dir), tempPrefix+filepath.Base(dir)+"-gone")
	if err := os.RemoveAll(gone); err != nil {
		return err
	}
	if err := os.Rename(dir, gone); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	return os.RemoveAll(gone)
}
