package qemu

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"

	"osx-builder/vm"
	"osx-builder/vm/qemu/disk"
	"osx-builder/vm/qemu/process"
	"osx-builder/vm/qemu/template"
)

// handed has what a QEMU is handed open, as names and descriptors for its
// options.
type handed struct {
	sets      []string // options that declare the names
	blockdevs []string // of each disk
	firmware  firmware // with EFI: first the files' paths, then QEMU's names
	random    string   // the host's source of random numbers
	serial    string   // the console's log
	monitor   int      // the listening socket of QEMU's monitor
	agent     int      // the listening socket of the guest's agent
	seed      string   // the NoCloud disk, or ""
	smbios    []string // values of -smbios with the credentials
	netdevs   []string // -netdev options of the NICs, without their ids
	tpm       int      // the socket of swtpm, if the machine has a TPM

	beside map[process.Beside]process.Command // the programs that run beside QEMU
}

// open opens every file and socket of the machine, after it has checked those that
// a former QEMU could have written, and fills in s.handed. The caller closes the
// files.
func (s *setup) open(ctx context.Context) (files *process.Files, err error) {
	files = &process.Files{}
	s.beside = map[process.Beside]process.Command{}
	defer func() {
		if err != nil {
			err = errors.Join(disk.FullError(err), process.Command{Files: files, Beside: s.beside}.Close())
		}
	}()
	for i := range s.Disks {
		option, err := s.Disks[i].Blockdev(nodeOf(i), s.Dir, files)
		if err != nil {
			return files, err
		}
		s.blockdevs = append(s.blockdevs, option)
	}
	if s.firmware.code != "" {
		if err := s.openFirmware(files); err != nil {
			return files, err
		}
	}
	for i := range s.NICs {
		netdev, err := s.of(i).open(i, files)
		if err != nil {
			return files, fmt.Errorf("opening the machine's network: %w", err)
		}
		s.netdevs = append(s.netdevs, netdev)
	}
	if err := s.openControls(files); err != nil {
		return files, err
	}
	if err := s.openMemory(files); err != nil {
		return files, err
	}
	if err := s.openGuestConfig(files); err != nil {
		return files, fmt.Errorf("handing over the guest's configuration: %w", err)
	}
	if err := s.openTPM(ctx, files); err != nil {
		return files, err
	}
	s.sets = files.Arguments()
	return files, nil
}

// openFirmware opens the EFI firmware's code and the machine's variables.
func (s *setup) openFirmware(files *process.Files) error {
	code, err := os.Open(s.firmware.code)
	if err != nil {
		return err
	}
	size, err := os.Stat(s.firmware.vars)
	if err != nil {
		return errors.Join(err, code.Close())
	}
	s.firmware.code = files.AddSet(code)
	vars, err := openState(s.Dir, varsFile, os.O_RDWR)
	if err != nil {
		return err
	}
	s.firmware.vars = files.AddSet(vars)
	if info, err := vars.Stat(); err != nil || info.Size() != size.Size() {
		return errors.Join(err, replaced(s.Dir, varsFile, fmt.Errorf("it should have %d bytes", size.Size())))
	}
	return nil
}

// openControls opens the files and sockets by which the daemon and the guest reach
// each other.
func (s *setup) openControls(files *process.Files) error {
	random, err := os.Open("/dev/urandom")
	if err != nil {
		return err
	}
	s.random = files.AddSet(random)
	log, err := openSerialLog(s.Dir)
	if err != nil {
		return err
	}
	s.serial = files.AddSet(log)
	if err := s.openTrimmer(files); err != nil {
		return err
	}
	for name, descriptor := range map[string]*int{qmpSocket: &s.monitor, agentSocket: &s.agent} {
		socket, err := listen(s.Dir, name)
		if err != nil {
			return fmt.Errorf("listening at %s: %w", filepath.Join(s.Dir, name), err)
		}
		*descriptor = files.Add(socket)
	}
	return nil
}

// openMemory hands over the memory that QEMU shares with others.
func (s *setup) openMemory(files *process.Files) error {
	if s.ram.memory == nil {
		return nil
	}
	memory, err := template.Duplicate(s.ram.memory)
	if err != nil {
		return err
	}
	s.ram.path = fmt.Sprintf("/proc/self/fd/%d", files.Add(memory))
	if !s.ram.incoming {
		return nil
	}
	socket, err := listen(s.Dir, eventsSocket)
	if err != nil {
		return fmt.Errorf("listening at %s: %w", filepath.Join(s.Dir, eventsSocket), err)
	}
	s.ram.events = files.Add(socket)
	return nil
}

// openState opens a file of the machine that a former QEMU could write to.
func openState(dir, name string, flag int) (*os.File, error) {
	f, err := process.OpenOwned(filepath.Join(dir, name), flag)
	if errors.Is(err, process.ErrReplaced) {
		return nil, replaced(dir, name, err)
	}
	return f, err
}

// replaced returns the client's error for a machine's file that is not as the
// daemon created it.
func replaced(dir, name string, err error) error {
	return &vm.Error{
		Code:    vm.CodeHypervisor,
		Message: fmt.Sprintf("the machine's file %s is not as it must be: %v; destroy the machine and create it again", filepath.Join(dir, name), err),
		Err:     err,
	}
}

// openSerialLog opens the console's log for QEMU, which appends to it. A log that
// has grown is replaced by one with its end, because [setup.rules] bounds its
// length.
func openSerialLog(dir string) (*os.File, error) {
	path := filepath.Join(dir, serialLog)
	old, err := openState(dir, serialLog, os.O_RDONLY)
	if missing(err) {
		return process.CreateOwned(path, os.O_WRONLY|os.O_APPEND)
	}
	if err != nil {
		return nil, err
	}
	defer old.Close()
	size, err := old.Seek(0, io.SeekEnd)
	if err != nil || size <= 2*vm.ConsoleKept {
		return openState(dir, serialLog, os.O_WRONLY|os.O_APPEND)
	}
	if _, err := old.Seek(-vm.ConsoleKept, io.SeekEnd); err != nil {
		return nil, err
	}
	log, err := process.CreateOwned(path, os.O_WRONLY|os.O_APPEND)
	if err != nil {
		return nil, err
	}
	if _, err := io.Copy(log, old); err != nil {
		return nil, errors.Join(err, log.Close())
	}
	return log, nil
}

// listen returns a listening socket at name in dir. It is bound to another name
// first, of which QEMU, which removes its sockets when it ends, finds no trace.
// Clients may connect at once; QEMU answers when it has started.
func listen(dir, name string) (*os.File, error) {
	bound := filepath.Join(dir, name[:2]) // no longer than name: see maxSocketPath
	if err := os.Remove(bound); err != nil && !missing(err) {
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: bound, Net: "unix"})
	if err != nil {
		return nil, err
	}
	defer l.Close()
	l.SetUnlinkOnClose(false)
	if err := errors.Join(os.Chmod(bound, 0o600), os.Rename(bound, filepath.Join(dir, name))); err != nil {
		return nil, err
	}
	return l.File()
}
