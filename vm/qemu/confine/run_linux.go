package confine

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Run runs cmd, which [Script] made, under r. It returns what [exec.Cmd.Run] returns. A measure that the host does not
// have is left out; [Measures] lists them.
//
// A thread of the daemon takes the restrictions upon itself and starts the program, which inherits them. The thread ends
// with Run.
func Run(cmd *exec.Cmd, r Rules) error {
	if r.User != 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(r.User), Gid: uint32(r.User)} // #nosec G115
		for _, g := range r.Groups {
			cmd.SysProcAttr.Credential.Groups = append(cmd.SysProcAttr.Credential.Groups, uint32(g)) // #nosec G115
		}
	}
	if !r.Free && !r.Network && hasCapability(unix.CAP_SYS_ADMIN) {
		cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWNET | unix.CLONE_NEWIPC
	}
	// What started the daemon may have left it files that are open; they are no program's business.
	_ = unix.CloseRange(3, math.MaxInt32, unix.CLOSE_RANGE_CLOEXEC) // fails before Linux 5.11
	done := make(chan error)
	go onOwnThread(func() {
		err := enter(cmd)
		if err == nil {
			err = restrictThread(r)
		}
		if err == nil {
			err = runIn(r.ControlGroup, cmd)
		}
		done <- err
	})
	return <-done
}

// runIn runs a shell, which reads its script only once it is in the control group, if there is one. (To start it there
// takes clone3, which service managers forbid where they forbid namespaces.)
func runIn(group *os.File, cmd *exec.Cmd) error {
	if group == nil {
		return cmd.Run()
	}
	script := &gate{reader: cmd.Stdin, open: make(chan struct{})}
	cmd.Stdin = script
	if err := cmd.Start(); err != nil {
		return err
	}
	_, err := fmt.Fprint(group, cmd.Process.Pid)
	if err != nil {
		err = fmt.Errorf("entering the control group: %w", err)
		script.reader = strings.NewReader("")
	}
	close(script.open)
	return errors.Join(err, cmd.Wait())
}

// gate is a reader that waits until it is open.
type gate struct {
	reader io.Reader
	open   chan struct{}
}

func (g *gate) Read(p []byte) (int, error) {
	<-g.open
	return g.reader.Read(p)
}

// onOwnThread calls f on a thread that ends with f. It is not the main thread, which cannot end.
func onOwnThread(f func()) {
	runtime.LockOSThread()
	if unix.Gettid() != unix.Getpid() {
		f()
		return // without UnlockOSThread, so that the thread ends
	}
	defer runtime.UnlockOSThread()
	done := make(chan struct{})
	go func() {
		defer close(done)
		onOwnThread(f)
	}()
	<-done
}

// enter makes cmd.Dir the working directory of the calling thread, which the program inherits. The program itself may
// lack the right to enter the folders above.
func enter(cmd *exec.Cmd) error {
	if cmd.Dir == "" {
		return nil
	}
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return os.NewSyscallError("unshare", err)
	}
	if err := unix.Chdir(cmd.Dir); err != nil {
		return &os.PathError{Op: "chdir", Path: cmd.Dir, Err: err}
	}
	cmd.Dir = ""
	return nil
}

// restrictThread applies r to the calling thread, except for what the new process does by itself.
func restrictThread(r Rules) error {
	// A daemon without root has capabilities for its networks, which its processes would inherit.
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return os.NewSyscallError("prctl", err)
	}
	if r.Free {
		return nil
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return os.NewSyscallError("prctl", err)
	}
	for c := range uintptr(unix.CAP_LAST_CAP + 1) {
		_ = unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0) // not permitted without CAP_SETPCAP, and then not needed
	}
	if err := restrictFiles(r); err != nil {
		return fmt.Errorf("restricting the program's files: %w", err)
	}
	if err := restrictCalls(r); err != nil {
		return fmt.Errorf("restricting the program's system calls: %w", err)
	}
	return nil
}

// Measures lists how programs are confined on this host if they run under rules with or without a network.
func Measures(network bool) []Measure {
	needsRoot := "the daemon is not root"
	if os.Geteuid() == 0 {
		needsRoot = ""
	}
	all := []Measure{{"user of its own", needsRoot}, {"no capabilities", ""}, landlock(), seccomp()}
	if !network {
		why := ""
		if !hasCapability(unix.CAP_SYS_ADMIN) {
			why = "the daemon lacks CAP_SYS_ADMIN; seccomp forbids sockets"
		}
		all = append(all, Measure{"network namespace", why})
	}
	return slices.Concat(all, []Measure{{"limits on memory, files and core dumps", ""}, {"limit on processes", needsRoot}, {"empty environment", ""}})
}

// hasCapability reports whether the daemon has the capability c.
func hasCapability(c int) bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return false
	}
	return data[c/32].Effective&(1<<(c%32)) != 0
}
