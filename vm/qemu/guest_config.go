package qemu

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"osx-builder/vm/cloudinit"
	"osx-builder/vm/qemu/disk"
	"osx-builder/vm/qemu/process"
)

// seedFile is the NoCloud disk in Machine.Dir. It has this name only while a machine is being started.
const seedFile = "seed.iso"

// pipeTimeout bounds how long the daemon writes into a pipe that nobody reads yet. Linux gives a user who has very many
// pipes smaller ones.
const pipeTimeout = time.Second

// openGuestConfig hands over what the machine's guest configures itself with. The record has it: in the machine's folder
// nothing of it remains.
func (s *setup) openGuestConfig(files *process.Files) error {
	if s.Guest == nil {
		return nil
	}
	seed, err := nameless(filepath.Join(s.Dir, seedFile), cloudinit.NoCloud(s.Machine))
	if err != nil {
		return err
	}
	s.seed = files.AddSet(seed)
	for _, c := range cloudinit.Credentials(s.Machine) {
		if !c.Secret {
			s.smbios = append(s.smbios, "type=11,value="+c.Text)
			continue
		}
		r, err := filledPipe(c.Text, s.user)
		if err != nil {
			return err
		}
		s.smbios = append(s.smbios, "type=11,path="+descriptorPath(files.Add(r)))
	}
	return nil
}

// nameless returns a file with this content, open for reading, whose name is gone.
func nameless(path string, content []byte) (*os.File, error) {
	w, err := process.CreateOwned(path, os.O_WRONLY)
	if err != nil {
		return nil, err
	}
	_, err = w.Write(content)
	f, opening := os.Open(path)
	if err = errors.Join(err, w.Close(), opening, os.Remove(path)); err != nil {
		if f != nil {
			f.Close()
		}
		return nil, err
	}
	return f, nil
}

// filledPipe returns the end of a pipe from which a QEMU of the user can read the text. QEMU reads the option for SMBIOS
// before those that give names to the files that it was handed, so it opens the pipe by its descriptor, for which it
// needs the right to.
func filledPipe(text string, user int) (*os.File, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer w.Close()
	err = w.SetWriteDeadline(time.Now().Add(pipeTimeout))
	if err == nil {
		_, err = w.WriteString(text)
	}
	if err == nil && user != 0 {
		err = r.Chown(user, user)
	}
	if err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

// descriptorPath returns the file name that stands for an open file in QEMU.
func descriptorPath(n int) string {
	if runtime.GOOS == "linux" {
		return fmt.Sprintf("/proc/self/fd/%d", n)
	}
	return fmt.Sprintf("/dev/fd/%d", n)
}

// guestConfig returns the options of what the guest configures itself with: the NoCloud disk in a CD drive, and
// credentials in a table of SMBIOS. Other users of the host see the command line, so it has no secret.
func guestConfig(s setup) (args []string) {
	if s.Guest == nil {
		return nil
	}
	for _, value := range s.smbios {
		args = append(args, "-smbios", value)
	}
	// cloud-init looks for its sources before a kernel whose first file system lacks the driver has found the CD, and
	// disables itself if there are none. The serial number says that there is one.
	args = append(args, "-smbios", "type=1,serial=ds=nocloud")
	return append(args, "-blockdev", disk.RawBlockdev("seed", s.seed, true), "-device", seedDevice(s.hardware)+",drive=seed")
}

// seedDevice returns the device of the NoCloud disk: a CD drive at a free place of the board's own controller, so that
// neither the disks nor the PCI devices of the guest change. If there is none, it is a virtio disk.
func seedDevice(h hardware) string {
	taken := func(bus string, controller, unit int) bool {
		return slices.ContainsFunc(h.Disks, func(d disk.Disk) bool {
			return d.Bus == bus && d.Controller == controller && d.Unit == unit
		})
	}
	for n := range sataUnits {
		if unit := sataUnits - 1 - n; h.Board == boardQ35 && !taken("sata", 0, unit) {
			return fmt.Sprintf("ide-cd,bus=ide.%d", unit)
		}
	}
	for n := range ideDisks {
		if c, unit := 1-n/2, 1-n%2; h.Board == boardPC && !taken("ide", c, unit) {
			return fmt.Sprintf("ide-cd,bus=ide.%d,unit=%d", c, unit)
		}
	}
	return "virtio-blk-pci"
}
