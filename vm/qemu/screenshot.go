package qemu

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"image"
	"image/png"
	"io"
	"os"

	"osx-builder/vm"
	"osx-builder/vm/qemu/disk"
	"osx-builder/vm/qemu/process"
	"osx-builder/vm/qemu/qmp"
)

// maxScreen bounds the screen's width and height, in pixels, in case a guest took
// over its QEMU.
const maxScreen = 8192

// Screenshot asks QEMU for its screen as a PPM, which every version can write, and
// converts it to a PNG. (QEMU's own PNG needs version 7.1 and a library. It would
// also pass data unchecked from a process that guests can break into.)
//
// QEMU may run as a user that cannot write anywhere, so it gets an open file,
// which no longer has a name.
func (d *Driver) Screenshot(ctx context.Context, m vm.Machine) ([]byte, error) {
	pid, err := process.Holder(m.Dir)
	if err != nil {
		return nil, unreadable(m, process.PIDFile, err)
	}
	off := &vm.Error{Code: vm.CodePower, Message: fmt.Sprintf("machine %s is off, so its screen shows nothing", m.ID)}
	if pid == 0 {
		return nil, off
	}
	in, out, err := namelessFile(m.Dir)
	if err != nil {
		return nil, disk.FullError(err)
	}
	defer in.Close()
	defer out.Close()
	ended, err := askUntilEnded(ctx, m.Dir, pid, func() error {
		return d.withMonitor(ctx, m.Dir, func(q *qmp.Monitor) error { return dumpScreen(q, in) })
	})
	if ended && qmp.HungUp(err) {
		return nil, off
	}
	if err != nil {
		return nil, err
	}
	screen, err := readPPM(out)
	if err != nil {
		return nil, fmt.Errorf("reading QEMU's picture of the screen: %w", err)
	}
	var b bytes.Buffer
	err = (&png.Encoder{CompressionLevel: png.BestSpeed}).Encode(&b, screen)
	return b.Bytes(), err
}

// namelessFile creates a file without a name, open for writing and for reading.
func namelessFile(dir string) (in, out *os.File, err error) {
	if in, err = os.CreateTemp(dir, "screen-*"); err != nil {
		return nil, nil, err
	}
	name := in.Name()
	_ = in.Close()
	if in, err = os.OpenFile(name, os.O_WRONLY, 0); err == nil { // QEMU accepts only a write-only file
		if out, err = os.Open(name); err != nil {
			_ = in.Close()
		}
	}
	return in, out, errors.Join(err, os.Remove(name))
}

// dumpScreen makes QEMU write its screen to f.
func dumpScreen(q *qmp.Monitor, f *os.File) error {
	var set struct {
		ID int `json:"fdset-id"`
	}
	if err := q.AskWith("add-fd", nil, []*os.File{f}, &set); err != nil {
		return err
	}
	name := map[string]any{"filename": fmt.Sprintf("/dev/fdset/%d", set.ID)}
	return errors.Join(
		q.AskWith("screendump", name, nil, nil),
		q.AskWith("remove-fd", map[string]any{"fdset-id": set.ID}, nil, nil),
	)
}

// readPPM reads a picture in the only format that QEMU writes: P6 with 8 bits for
// each of red, green and blue.
func readPPM(r io.Reader) (image.Image, error) {
	b := bufio.NewReader(r)
	var width, height, most int
	if _, err := fmt.Fscanf(b, "P6\n%d %d\n%d\n", &width, &height, &most); err != nil {
		return nil, err
	}
	if width < 1 || height < 1 || width > maxScreen || height > maxScreen || most != 255 {
		return nil, fmt.Errorf("it is %d by %d of %d shades", width, height, most)
	}
	screen := image.NewRGBA(image.Rect(0, 0, width, height))
	line := make([]byte, 3*width)
	for y := range height {
		if _, err := io.ReadFull(b, line); err != nil {
			return nil, err
		}
		row := screen.Pix[y*screen.Stride:]
		for x := range width {
			copy(row[4*x:], line[3*x:3*x+3])
			row[4*x+3] = 0xff
		}
	}
	return screen, nil
}
