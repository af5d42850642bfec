package disk

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"osx-builder/vm/qemu/process"
	"osx-builder/vm/vmx"
)

// handOver gives an open file to a program and returns the name under which the program opens it. It takes f over.
type handOver func(f *os.File) (name string)

// Blockdev returns QEMU's -blockdev option for the disk, of the machine in dir, as the node of this name. It adds all
// files of the disk to files. The option describes every layer, so that QEMU uses no format or file name that it finds
// in a file. If the overlay is not as the daemon created it, the error is a *vm.Error that names the file.
func (d *Disk) Blockdev(node, dir string, files *process.Files) (string, error) {
	overlay, err := d.openOverlay(dir)
	if err != nil {
		return "", err
	}
	option := map[string]any{
		"node-name": node, "driver": "qcow2", "discard": "unmap",
		"file": map[string]any{"driver": "file", "filename": files.AddSet(overlay), "discard": "unmap"},
	}
	var below map[string]any
	if d.Base != "" {
		base, err := os.Open(d.Base)
		if err != nil {
			return "", fmt.Errorf("opening the prepared disk: %w", err)
		}
		below = layer("qcow2", files.AddSet(base), nil)
	} else if below, err = vmdkChain(d.Backing, files.AddSet); err != nil {
		return "", err
	}
	if d.Frozen != "" {
		frozen, err := os.Open(filepath.Join(dir, filepath.Base(d.Frozen))) // nobody but the daemon could write to it
		if err != nil {
			return "", fmt.Errorf("opening the template's disk: %w", err)
		}
		below = layer("qcow2", files.AddSet(frozen), below)
	}
	option["backing"] = below
	return jsonText(option), nil
}

// Check returns an error if the disk's overlay in dir is not as the daemon created it, or may lead to other files.
func (d *Disk) Check(dir string) error {
	f, err := d.openOverlay(dir)
	if err != nil {
		return err
	}
	return f.Close()
}

// openOverlay opens the disk's overlay in dir and checks that a former QEMU has not made it lead to other files.
func (d *Disk) openOverlay(dir string) (*os.File, error) {
	path := filepath.Join(dir, d.Overlay)
	if d.Overlay != filepath.Base(d.Overlay) {
		return nil, replaced(path, errors.New("its name leads out of the machine's folder"))
	}
	f, err := process.OpenOwned(path, os.O_RDWR)
	if err == nil {
		if err = d.checkOverlay(f); err == nil {
			return f, nil
		}
		f.Close()
	}
	var header headerError
	if errors.As(err, &header) || errors.Is(err, process.ErrReplaced) {
		return nil, replaced(path, err)
	}
	return nil, fmt.Errorf("opening the disk %s: %w", path, err)
}

// RawBlockdev returns QEMU's -blockdev option for a raw file as the node of this name.
func RawBlockdev(node, file string, readOnly bool) string {
	return jsonText(map[string]any{
		"node-name": node, "driver": "raw", "read-only": readOnly,
		"file": map[string]any{"driver": "file", "filename": file},
	})
}

// vmdkChain describes VMDK files, the uppermost first, and hands over their files.
func vmdkChain(paths []string, give handOver) (below map[string]any, err error) {
	for _, path := range slices.Backward(paths) {
		name, err := giveVMDK(path, give)
		if err != nil {
			return nil, fmt.Errorf("opening %s: %w", path, err)
		}
		below = layer("vmdk", name, below)
	}
	return below, nil
}

func layer(format, name string, below map[string]any) map[string]any {
	return map[string]any{
		"driver": format, "read-only": true, "backing": below,
		"file": map[string]any{"driver": "file", "filename": name},
	}
}

// giveVMDK hands over the VMDK at path and returns its name. If it is a text descriptor, it hands over each extent, and
// a copy of the descriptor in which the extents have the names under which the program opens them.
func giveVMDK(path string, give handOver) (name string, err error) {
	root, err := os.OpenRoot(filepath.Dir(path))
	if err != nil {
		return "", err
	}
	defer root.Close()
	v, err := vmx.ReadVMDK(root, filepath.Base(path))
	if err != nil {
		return "", ImageError(err)
	}
	if v.Embedded {
		f, err := root.Open(filepath.Base(path))
		if err != nil {
			return "", err
		}
		return give(f), nil
	}
	text, err := root.ReadFile(filepath.Base(path))
	if err != nil {
		return "", err
	}
	var names []string
	for _, e := range v.Extents {
		f, err := root.Open(filepath.FromSlash(e.File))
		if err != nil {
			return "", err
		}
		names = append(names, give(f))
	}
	f, err := nameless(renameExtents(string(text), names))
	if err != nil {
		return "", err
	}
	return give(f), nil
}

// renameExtents replaces the file names of the extents in a descriptor that package vmx has read.
func renameExtents(text string, names []string) string {
	lines := strings.Split(text, "\n")
	next := 0
	for i, l := range lines {
		words := strings.Fields(strings.ToLower(l))
		isExtent := len(words) > 0 && slices.Contains([]string{"rw", "rdonly", "noaccess"}, words[0])
		from, to := strings.Index(l, `"`), strings.LastIndex(l, `"`)
		if isExtent && from < to && next < len(names) {
			lines[i] = l[:from+1] + names[next] + l[to:]
			next++
		}
	}
	return strings.Join(lines, "\n")
}

// nameless returns a file with this text, open for reading, that has no name.
func nameless(text string) (*os.File, error) {
	w, err := os.CreateTemp("", "osxb-descriptor-")
	if err != nil {
		return nil, err
	}
	defer w.Close()
	_, err = w.WriteString(text)
	err = errors.Join(err, w.Chmod(0o444)) // for a qemu-img of another user, which opens it again
	f, opening := os.Open(w.Name())
	if err = errors.Join(err, opening, os.Remove(w.Name())); err != nil {
		if f != nil {
			f.Close()
		}
		return nil, err
	}
	return f, nil
}

// jsonText writes an option as JSON, in which file names with commas need no escape.
func jsonText(value map[string]any) string {
	text, err := json.Marshal(value)
	if err != nil {
		panic(fmt.Sprintf("writing %v as JSON: %v", value, err)) // it has only strings, booleans and maps
	}
	return string(text)
}
