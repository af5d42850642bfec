//go:build !windows

package vmrun

import (
	"os/exec"
	"runtime"
	"syscall"
)

// programPaths returns where VMware's installers put vmrun.
func programPaths() []string {
	if runtime.GOOS == "darwin" {
		return []string{
			"/Applications/VMware Fusion.app/Contents/Library/vmrun",
			"/Applications/VMware Fusion.app/Contents/Public/vmrun",
		}
	}
	return []string{"/usr/bin/vmrun", "/usr/local/bin/vmrun"}
}

// ownGroup starts the process in a group of its own, all of which is killed when its context ends.
func ownGroup(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
}
