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
	"slices"
	"strings"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// FaultyDisk lets system calls fail by which a daemon changes files below a folder.
// A seccomp filter makes the kernel ask the FaultyDisk before each of these calls,
// so neither the file system nor the daemon has to be prepared for it.
type FaultyDisk struct {
	dir      string
	daemon   *exec.Cmd
	listener int

	mu     sync.Mutex // guards the fields below
	armed  bool
	writes int
	fault  Fault
	failed []string
}

// Fault says which writes fail: calls that change a file.
type Fault struct {
	At    int        // the first write that fails, counted from 1 since Arm; 0 for none
	Once  bool       // only that write fails, and no later one
	Errno unix.Errno // with ENOSPC, removals do not fail, because they need no space
	Kill  bool       // the daemon is killed before that write, which does not happen
	Below []string   // folders of the data folder in which writes count; nil for all
}

// Arm starts to count writes and to let them fail.
func (d *FaultyDisk) Arm(f Fault) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.armed, d.writes, d.fault, d.failed = true, 0, f, nil
}

// Failed lists the writes that failed since Arm.
func (d *FaultyDisk) Failed() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.failed
}

// execEnv is an environment variable that is set in processes in which
// [ExecFiltered] executes the daemon.
const execEnv = "OSX_BUILDER_E2E_LAUNCHED"

// wrap changes cmd so that it starts this program. ExecFiltered then installs the
// seccomp filter in the new process and executes the original command. The caller
// calls the returned function after it starts cmd.
func (d *FaultyDisk) wrap(cmd *exec.Cmd, dir string) (afterStart func() error, err error) {
	if d.dir, err = filepath.EvalSymlinks(dir); err != nil {
		return nil, err
	}
	d.daemon = cmd
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	childSocket := os.NewFile(uintptr(pair[1]), "seccomp listener")
	cmd.Args = append([]string{self, cmd.Path}, cmd.Args[1:]...)
	cmd.Path = self
	cmd.Env = append(cmd.Environ(), execEnv+"=1")
	cmd.ExtraFiles = []*os.File{childSocket} // file descriptor 3 of the new process
	return func() error {
		defer unix.Close(pair[0])
		if err := childSocket.Close(); err != nil {
			return err
		}
		rights := make([]byte, unix.CmsgSpace(4))
		_, n, _, _, err := unix.Recvmsg(pair[0], make([]byte, 1), rights, unix.MSG_CMSG_CLOEXEC)
		if err != nil {
			return err
		}
		messages, err := unix.ParseSocketControlMessage(rights[:n])
		if err != nil || len(messages) != 1 {
			return errors.Join(errors.New("the daemon did not install the seccomp filter"), err)
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

// ExecFiltered installs the seccomp filter of a [FaultyDisk] and executes the
// daemon, if the process was started for that. Otherwise it returns. TestMain calls
// it first.
func ExecFiltered() {
	if os.Getenv(execEnv) == "" {
		return
	}
	runtime.LockOSThread() // the filter belongs to this thread, which executes the daemon
	err := installFilterAndExec()
	fmt.Fprintln(os.Stderr, "executing the daemon with a seccomp filter:", err)
	os.Exit(1)
}

func installFilterAndExec() error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	filter := notifyFilter(writeCalls)
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	const flags = unix.SECCOMP_FILTER_FLAG_NEW_LISTENER | unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
	fd, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&program)))
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

// writeCalls are the system calls that can change a file.
var writeCalls = map[uint32]syscallInfo{
	unix.SYS_OPENAT:    {name: "open", path: true},
	unix.SYS_MKDIRAT:   {name: "mkdir", path: true},
	unix.SYS_RENAMEAT:  {name: "rename", path: true},
	unix.SYS_RENAMEAT2: {name: "rename", path: true},
	unix.SYS_UNLINKAT:  {name: "remove", path: true},
	unix.SYS_FCHMODAT:  {name: "chmod", path: true},
	unix.SYS_LINKAT:    {name: "link", path: true},
	unix.SYS_WRITE:     {name: "write"},
	unix.SYS_PWRITE64:  {name: "write"},
	unix.SYS_FSYNC:     {name: "sync"},
	unix.SYS_FDATASYNC: {name: "sync"},
	unix.SYS_FTRUNCATE: {name: "truncate"},
	unix.SYS_FALLOCATE: {name: "allocate"},
	unix.SYS_FCHMOD:    {name: "chmod"},
}

type syscallInfo struct {
	name string
	path bool // the second argument is a path relative to the first; otherwise the first is an open file
}

// notifyFilter returns the filter that notifies the listener of these calls and
// allows all others.
func notifyFilter(calls map[uint32]syscallInfo) []unix.SockFilter {
	filter := []unix.SockFilter{{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}} // loads the number of the call
	for number := range calls {
		filter = append(filter,
			unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: number},
			unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_USER_NOTIF})
	}
	return append(filter, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW})
}

// notification is the kernel's struct seccomp_notif.
type notification struct {
	id         uint64
	pid, flags uint32
	number     int32
	arch       uint32
	pointer    uint64
	args       [6]uint64
}

// response is the kernel's struct seccomp_notif_resp.
type response struct {
	id    uint64
	value int64
	errno int32
	flags uint32
}

// listen responds to each notification until the daemon has ended.
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
		if d.ioctl(unix.SECCOMP_IOCTL_NOTIF_RECV, unsafe.Pointer(&n)) != 0 {
			continue // the calling process was killed
		}
		r := response{id: n.id, flags: unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE}
		if errno := d.errnoFor(n); errno != 0 {
			r.flags, r.errno = 0, -int32(errno)
		}
		_ = d.ioctl(unix.SECCOMP_IOCTL_NOTIF_SEND, unsafe.Pointer(&r)) // the calling process may have been killed
	}
}

func (d *FaultyDisk) ioctl(request uintptr, arg unsafe.Pointer) unix.Errno {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(d.listener), request, uintptr(arg))
	return errno
}

// errnoFor returns the error with which a call fails, or 0.
func (d *FaultyDisk) errnoFor(n notification) unix.Errno {
	c := writeCalls[uint32(n.number)]
	if c.name == "open" && n.args[2]&(unix.O_CREAT|unix.O_TRUNC|unix.O_WRONLY|unix.O_RDWR) == 0 {
		return 0
	}
	path := writtenPath(n, c)
	if !strings.HasPrefix(path, d.dir+"/") {
		return 0
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	f := d.fault
	if !d.armed || !f.counts(strings.TrimPrefix(path, d.dir+"/")) {
		return 0
	}
	d.writes++
	if f.At == 0 || d.writes < f.At || (f.Once && len(d.failed) > 0) || (f.Errno == unix.ENOSPC && c.name == "remove") {
		return 0
	}
	d.failed = append(d.failed, c.name+" "+strings.TrimPrefix(path, d.dir))
	if f.Kill {
		_ = d.daemon.Process.Kill() // it may have been killed already
		return unix.EIO             // which nobody sees
	}
	return f.Errno
}

// counts reports whether a write to a file, relative to the data folder, counts.
func (f Fault) counts(file string) bool {
	return f.Below == nil || slices.ContainsFunc(f.Below, func(folder string) bool { return strings.HasPrefix(file, folder+"/") })
}

// writtenPath returns the path of the file that a call changes.
func writtenPath(n notification, c syscallInfo) string {
	proc := fmt.Sprintf("/proc/%d/", n.pid)
	fdPath := func(fd uint64) string {
		name := fmt.Sprintf("fd/%d", int32(fd))
		if int32(fd) == unix.AT_FDCWD {
			name = "cwd"
		}
		path, _ := os.Readlink(proc + name) // if it fails, the path is not below the folder
		return path
	}
	if !c.path {
		return fdPath(n.args[0])
	}
	mem, err := os.Open(proc + "mem")
	if err != nil {
		return ""
	}
	defer mem.Close()
	text := make([]byte, unix.PathMax)
	k, _ := mem.ReadAt(text, int64(n.args[1])) // the mapped memory may be shorter
	name, _, _ := bytes.Cut(text[:k], []byte{0})
	if filepath.IsAbs(string(name)) {
		return filepath.Clean(string(name))
	}
	return filepath.Join(fdPath(n.args[0]), string(name))
}
