package vm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"
)

const (
	// consolePause lies between two looks at a log that has no more to read.
	consolePause = 200 * time.Millisecond

	// followersAtOnce bounds those who follow a console: each holds a
	// connection and looks at a file again and again.
	followersAtOnce = 64
)

// Console opens the last tail bytes of what a machine's guest wrote to its
// serial port, at most ConsoleTail. With follow, reading goes on as the guest
// writes: it waits for more until ctx ends or the machine is gone, which is
// io.EOF, and returns ErrSlow where what is to be read next is kept no more.
func (m *Manager) Console(ctx context.Context, id string, tail int64, follow bool) (io.ReadCloser, error) {
	r, err := m.record(id)
	if err != nil {
		return nil, err
	}
	d, ok := m.Driver.(Consoler)
	if !ok {
		return nil, m.notSupported("console")
	}
	c := &console{ctx: ctx, vms: m, driver: d, machine: m.machine(r), follow: follow}
	if err := c.open(min(tail, ConsoleTail)); err != nil {
		return nil, clientError(err)
	}
	if follow {
		select {
		case m.followers <- struct{}{}:
		default:
			return nil, errors.Join(&Error{
				Code:    CodeBusy,
				Message: fmt.Sprintf("%d follow a console already, which is as many as can; end one, or try again later", followersAtOnce),
			}, c.file.Close())
		}
	}
	return c, nil
}

func (m *Manager) notSupported(what string) error {
	return &Error{Code: CodeNotSupported, Message: fmt.Sprintf("machines on %s have no %s that can be read here", m.Hypervisor, what)}
}

// console reads a machine's log.
type console struct {
	ctx     context.Context
	vms     *Manager
	driver  Consoler
	machine Machine
	follow  bool

	file io.ReadSeekCloser
	at   int64 // the place in file
}

// noConsole stands for the log of a machine that has none yet.
type noConsole struct{ io.ReadSeeker }

func (noConsole) Read([]byte) (int, error)       { return 0, io.EOF }
func (noConsole) Seek(int64, int) (int64, error) { return 0, nil }
func (noConsole) Close() error                   { return nil }

// open opens the log at its last tail bytes.
func (c *console) open(tail int64) error {
	file, err := c.driver.Console(c.ctx, c.machine)
	if errors.Is(err, fs.ErrNotExist) {
		c.file = noConsole{}
		return nil
	}
	if err != nil {
		return err
	}
	end, err := file.Seek(0, io.SeekEnd)
	if err == nil {
		c.at, err = file.Seek(max(0, end-tail), io.SeekStart)
	}
	if err != nil {
		return errors.Join(err, file.Close())
	}
	c.file = file
	return nil
}

// Read implements io.Reader.
func (c *console) Read(b []byte) (int, error) {
	for {
		n, err := c.next(b)
		if n > 0 || !errors.Is(err, io.EOF) || !c.follow {
			return n, err
		}
		if r, err := c.vms.record(c.machine.ID); err != nil || r.Phase == Failed {
			return 0, io.EOF // there will be no more
		}
		select {
		case <-time.After(consolePause):
		case <-c.ctx.Done():
			return 0, context.Cause(c.ctx)
		case <-c.vms.ctx.Done():
			return 0, context.Cause(c.vms.ctx)
		}
		if _, none := c.file.(noConsole); none {
			if err := c.open(ConsoleTail); err != nil {
				return 0, err
			}
		}
	}
}

// next reads what there is. What lies further back than is kept may have been
// forgotten while it was read; a log that has become shorter was emptied.
func (c *console) next(b []byte) (int, error) {
	n, readErr := c.file.Read(b)
	end, err := c.file.Seek(0, io.SeekEnd)
	if err != nil {
		return 0, err
	}
	switch {
	case end < c.at:
		n, c.at = 0, 0
	case end-c.at > ConsoleKept:
		return 0, ErrSlow
	default:
		c.at += int64(n)
	}
	if _, err := c.file.Seek(c.at, io.SeekStart); err != nil {
		return 0, err
	}
	if n == 0 && readErr == nil {
		readErr = io.EOF
	}
	return n, readErr
}

// Close implements io.Closer.
func (c *console) Close() error {
	if c.follow {
		<-c.vms.followers
	}
	return c.file.Close()
}
