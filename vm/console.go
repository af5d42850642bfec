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
	// consolePause is the time between two reads at the end of a log.
	consolePause = 200 * time.Millisecond

	// followersAtOnce bounds the readers that follow a console: each holds a
	// connection and reads a file again and again.
	followersAtOnce = 64
)

// Console opens the last tail bytes of what a machine's guest wrote to its
// serial port, at most ConsoleTail. With follow, a reader at the end waits for
// more until ctx ends or the machine does not exist any more, which is io.EOF.
// It gets ErrSlow if what it is to read next is not kept any more.
func (m *Manager) Console(ctx context.Context, id string, tail int64, follow bool) (io.ReadCloser, error) {
	r, err := m.store.get(id)
	if err != nil {
		return nil, err
	}
	d, ok := m.opts.Driver.(Consoler)
	if !ok {
		return nil, notSupported(m.opts.Hypervisor, "consoles")
	}
	c := &console{ctx: ctx, store: m.store, manager: m.tasks.ctx, driver: d, machine: m.store.machine(r)}
	if err := c.open(min(tail, ConsoleTail)); err != nil {
		return nil, clientError(err)
	}
	if follow {
		select {
		case m.followers <- struct{}{}:
			c.follow, c.release = true, func() { <-m.followers }
		default:
			return nil, errors.Join(&Error{
				Code:    CodeBusy,
				Message: fmt.Sprintf("%d clients follow a console, which is the limit; end one or try again later", followersAtOnce),
			}, c.file.Close())
		}
	}
	return c, nil
}

// notSupported is the error for what the machines' hypervisor has not.
func notSupported(hypervisor, what string) error {
	return &Error{Code: CodeNotSupported, Message: fmt.Sprintf("the hypervisor %s does not support %s", hypervisor, what)}
}

// console reads a machine's log.
type console struct {
	ctx     context.Context
	manager context.Context // ends with the Manager
	store   *store
	driver  Consoler
	machine Machine
	follow  bool
	release func() // ends the follower; nil without follow

	file   io.ReadSeekCloser
	offset int64 // in file
}

// noConsole is the log of a machine that has none yet.
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
		c.offset, err = file.Seek(max(0, end-tail), io.SeekStart)
	}
	if err != nil {
		return errors.Join(err, file.Close())
	}
	c.file = file
	return nil
}

// Read implements [io.Reader].
func (c *console) Read(b []byte) (int, error) {
	for {
		n, err := c.next(b)
		if n > 0 || !errors.Is(err, io.EOF) || !c.follow {
			return n, err
		}
		if r, err := c.store.get(c.machine.ID); err != nil || r.Phase == Failed {
			return 0, io.EOF // no more will come
		}
		select {
		case <-time.After(consolePause):
		case <-c.ctx.Done():
			return 0, context.Cause(c.ctx)
		case <-c.manager.Done():
			return 0, context.Cause(c.manager)
		}
		if _, none := c.file.(noConsole); none {
			if err := c.open(ConsoleTail); err != nil {
				return 0, err
			}
		}
	}
}

// next reads what the log has. What is further back than ConsoleKept may have
// been dropped while it was read. A log that has become shorter was emptied.
func (c *console) next(b []byte) (int, error) {
	n, readErr := c.file.Read(b)
	end, err := c.file.Seek(0, io.SeekEnd)
	if err != nil {
		return 0, err
	}
	switch {
	case end < c.offset:
		n, c.offset = 0, 0
	case end-c.offset > ConsoleKept:
		return 0, ErrSlow
	default:
		c.offset += int64(n)
	}
	if _, err := c.file.Seek(c.offset, io.SeekStart); err != nil {
		return 0, err
	}
	if n == 0 && readErr == nil {
		readErr = io.EOF
	}
	return n, readErr
}

// Close implements [io.Closer].
func (c *console) Close() error {
	if c.release != nil {
		c.release()
	}
	return c.file.Close()
}
