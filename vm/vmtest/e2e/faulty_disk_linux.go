//go:build amd64 || arm64

package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Disk makes calls fail by which a daemon changes files below a folder. The
// kernel tells it of each such call before it is made, so no file system has
// to fail and no code has to know: what is seen is what the daemon really does.
type FaultyDisk struct {
	dir      string
	listener int

	mu     sync.Mutex // guards what follows
	armed  bool
	seen   int
	fault  Fault
	failed []string
}

// Fault says which calls fail, from when Arm was called.
type Fault struct {
	At    int // the first, counted from 1; 0 for none
	Once  bool
	Errno unix.Errno // ENOSPC spares removals, which need no room
}

// Arm begins to count.
func (d *FaultyDisk) Arm(f Fault) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.armed, d.seen, d.fault, d.failed = true, 0, f, nil
}

// Failed lists the calls that failed since.
func (d *FaultyDisk) Failed() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.failed
}

// launched marks the process that is to become the daemon.
const launched = "OSX_BUILDER_E2E_LAUNCHED"

// wrap makes cmd start this program instead, which becomes what cmd was to
// start once Launch has put it under the Disk's eyes. The result is called
// after the start.
func (d *FaultyDisk) wrap(cmd *exec.Cmd, dir string) (watch func() error, err error) {
	if d.dir, err = filepath.EvalSymlinks(dir); err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	theirs := os.NewFile(uintptr(pair[1]), "launch")
	cmd.Args = append([]string{self, cmd.Path}, cmd.Args[1:]...)
	cmd.Path = self
	cmd.Env = append(cmd.Environ(), launched+"=1")
	cmd.ExtraFiles = []*os.File{theirs} // its descriptor 3
	return func() error {
		defer unix.Close(pair[0])
		if err := theirs.Close(); err != nil {
			return err
		}
		rights := make([]byte, unix.CmsgSpace(4))
		_, n, _, _, err := unix.Recvmsg(pair[0], make([]byte, 1), rights, unix.MSG_CMSG_CLOEXEC)
		if err != nil {
			return err
		}
		messages, err := unix.ParseSocketControlMessage(rights[:n])
		if err != nil || len(messages) != 1 {
			return errors.Join(errors.New("the daemon could not be put under seccomp"), err)
		}
		fds, err := unix.ParseUnixRights(&messages[0])
		if err != nil {
			return err
		}
		d.listener = fds[0]
		go d.listen() // ends with the daemon
		return nil
	}, nil
}

// Launch turns the process into the daemon that a Disk watches, where it was
// started for that; TestMain calls it first.
func Launch() {
	if os.Getenv(launched) == "" {
		return
	}
	runtime.LockOSThread() // the filter is this thread's, and so that of the program that it becomes
	err := launch()
	fmt.Fprintln(os.Stderr, "launching the daemon under seccomp:", err)
	os.Exit(1)
}

func launch() error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	filter := notifyOf(changes)
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	fd, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER,
		unix.SECCOMP_FILTER_FLAG_NEW_LISTENER|unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, uintptr(unsafe.Pointer(&program)))
	if errno != 0 {
		return errno
	}
	if err := unix.Sendmsg(3, []byte{0}, unix.UnixRights(int(fd)), nil, 0); err != nil {
		return err
	}
	unix.CloseOnExec(3)
	unix.CloseOnExec(int(fd))
	return unix.Exec(os.Args[1], os.Args[1:], os.Environ())
}

// changes are the calls that can change a file, and how they name it.
var changes = map[uint32]call{
	unix.SYS_OPENAT: {name: "open", path: true}, unix.SYS_MKDIRAT: {name: "mkdir", path: true},
	unix.SYS_RENAMEAT: {name: "rename", path: true}, unix.SYS_RENAMEAT2: {name: "rename", path: true},
	unix.SYS_UNLINKAT: {name: "remove", path: true}, unix.SYS_FCHMODAT: {name: "chmod", path: true}, unix.SYS_LINKAT: {name: "link", path: true},
	unix.SYS_WRITE: {name: "write"}, unix.SYS_PWRITE64: {name: "write"}, unix.SYS_FSYNC: {name: "sync"}, unix.SYS_FDATASYNC: {name: "sync"},
	unix.SYS_FTRUNCATE: {name: "truncate"}, unix.SYS_FALLOCATE: {name: "allocate"}, unix.SYS_FCHMOD: {name: "chmod"},
}

type call struct {
	name string
	path bool // the second argument is a path below the first; else the first is an open file
}

// notifyOf is the filter that tells of these calls and lets all others pass.
func notifyOf(calls map[uint32]call) []unix.SockFilter {
	filter := []unix.SockFilter{{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}} // the call's number
	for number := range calls {
		filter = append(filter,
			unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: number},
			unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_USER_NOTIF})
	}
	return append(filter, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW})
}

// notification and verdict are the kernel's seccomp_notif and
// seccomp_notif_resp.
type notification struct {
	id         uint64
	pid, flags uint32
	number     int32
	arch       uint32
	pointer    uint64
	args       [6]uint64
}

type verdict struct {
	id    uint64
	value int64
	errno int32
	flags uint32
}

// listen judges each call until the daemon has ended.
func (d *FaultyDisk) listen() {
	defer unix.Close(d.listener)
	for {
		poll := []unix.PollFd{{Fd: int32(d.listener), Events: unix.POLLIN}}
		if _, err := unix.Poll(poll, -1); err == unix.EINTR {
			continue
		} else if err != nil || poll[0].Revents&unix.POLLIN == 0 {
			return
		}
		var n notification
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(d.listener), unix.SECCOMP_IOCTL_NOTIF_RECV, uintptr(unsafe.Pointer(&n))); errno != 0 {
			continue // the one who made the call was killed
		}
		v := verdict{id: n.id, flags: unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE}
		if errno := d.judge(n); errno != 0 {
			v.flags, v.errno = 0, -int32(errno)
		}
		_, _, _ = unix.Syscall(unix.SYS_IOCTL, uintptr(d.listener), unix.SECCOMP_IOCTL_NOTIF_SEND, uintptr(unsafe.Pointer(&v))) // killed meanwhile
	}
}

// judge returns the error that a call is to have, or 0.
func (d *FaultyDisk) judge(n notification) unix.Errno {
	c := changes[uint32(n.number)]
	if c.name == "open" && n.args[2]&(unix.O_CREAT|unix.O_TRUNC|unix.O_WRONLY|unix.O_RDWR) == 0 {
		return 0
	}
	path := target(n, c)
	if !strings.HasPrefix(path, d.dir+"/") {
		return 0
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.armed {
		return 0
	}
	d.seen++
	f := d.fault
	if f.At == 0 || d.seen < f.At || (f.Once && len(d.failed) > 0) || (f.Errno == unix.ENOSPC && c.name == "remove") {
		return 0
	}
	d.failed = append(d.failed, c.name+" "+strings.TrimPrefix(path, d.dir))
	return f.Errno
}

// target is the file that a call is about.
func target(n notification, c call) string {
	proc := fmt.Sprintf("/proc/%d/", n.pid)
	folder := func(fd uint64) string {
		name := fmt.Sprintf("fd/%d", int32(fd))
		if int32(fd) == unix.AT_FDCWD {
			name = "cwd"
		}
		path, _ := os.Readlink(proc + name) // none is none of ours
		return path
	}
	if !c.path {
		return folder(n.args[0])
	}
	mem, err := os.Open(proc + "mem")
	if err != nil {
		return ""
	}
	defer mem.Close()
	text := make([]byte, unix.PathMax)
	k, _ := mem.ReadAt(text, int64(n.args[1])) // it may end before
	name, _, _ := bytes.Cut(text[:k], []byte{0})
	if filepath.IsAbs(string(name)) {
		return filepath.Clean(string(name))
	}
	return filepath.Join(folder(n.args[0]), string(name))
}
