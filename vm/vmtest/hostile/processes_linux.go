package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// processes are attempts to reach other processes and other rights.
func processes() []attempt {
	return []attempt{
		{"read the daemon's memory", func(t targets) error {
			return first(open(fmt.Sprintf("/proc/%d/mem", t.Daemon), os.O_RDONLY), open(fmt.Sprintf("/proc/%d/environ", t.Daemon), os.O_RDONLY), peek(t.Daemon))
		}},
		{"open a file of another QEMU", func(t targets) error {
			return first(open(fmt.Sprintf("/proc/%d/fd/8", t.VictimPID), os.O_RDONLY), takeFile(t.VictimPID, 8))
		}},
		{"debug the daemon or another QEMU", func(t targets) error { return first(unix.PtraceSeize(t.Daemon), unix.PtraceSeize(t.VictimPID)) }},
		{"kill the daemon or another QEMU", func(t targets) error { return first(unix.Kill(t.Daemon, 0), unix.Kill(t.VictimPID, 0)) }},
		{"become root", func(targets) error {
			return first(syscall.Setuid(0), syscall.Setgid(0), syscall.Setgroups([]int{0}), regain())
		}},
		{"make namespaces or mounts", func(targets) error {
			return first(unix.Unshare(unix.CLONE_NEWUSER), unix.Unshare(unix.CLONE_NEWNS), unix.Mount("none", "/tmp", "tmpfs", 0, ""), unix.Chroot("/"))
		}},
		{"use rarely tested parts of the kernel", func(targets) error {
			return first(call(unix.SYS_IO_URING_SETUP, 1), call(unix.SYS_BPF, 0), call(unix.SYS_USERFAULTFD, 0), call(unix.SYS_KEYCTL, 0), call(unix.SYS_PERF_EVENT_OPEN, 0))
		}},
		{"leave a process behind", func(t targets) error {
			unix.CloseOnExec(3) // by which the daemon would notice at once
			cmd := exec.Command("/bin/sleep", cmp.Or(t.Sleep, "1000"))
			cmd.Env = []string{}
			cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
			if err := cmd.Start(); err != nil {
				return err
			}
			return errors.New("the next Destroy decides")
		}},
	}
}

// peek reads a byte of another process.
func peek(pid int) error {
	var b [1]byte
	local := []unix.Iovec{{Base: &b[0], Len: 1}}
	_, err := unix.ProcessVMReadv(pid, local, []unix.RemoteIovec{{Base: 0x400000, Len: 1}}, 0)
	return err
}

// takeFile gets another process's descriptor.
func takeFile(pid, fd int) error {
	p, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return err
	}
	got, err := unix.PidfdGetfd(p, fd, 0)
	if err == nil {
		unix.Close(got)
	}
	return err
}

// regain takes a capability back.
func regain() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	data := [2]unix.CapUserData{{Effective: 1 << unix.CAP_NET_ADMIN, Permitted: 1 << unix.CAP_NET_ADMIN}}
	return unix.Capset(&header, &data[0])
}

// call makes a system call with arguments that are wrong at most. An error other than a refusal is a success: the kernel
// looked at the arguments.
func call(number uintptr, argument uintptr) error {
	var zero [128]byte
	_, _, errno := unix.Syscall6(number, argument, uintptr(unsafe.Pointer(&zero)), 0, 0, 0, 0)
	if errno == unix.EPERM || errno == unix.ENOSYS {
		return errno
	}
	return nil
}
