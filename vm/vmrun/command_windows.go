package vmrun

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/windows"

	"osx-builder/vm/vmware"
)

// programPaths returns where VMware's installers put vmrun: where the registry says, and the usual folders.
func programPaths() (paths []string) {
	for _, key := range []string{`SOFTWARE\WOW6432Node\VMware, Inc.\VMware Workstation`, `SOFTWARE\VMware, Inc.\VMware Workstation`, `SOFTWARE\WOW6432Node\VMware, Inc.\VMware VIX`} {
		if dir := vmware.InstallPath(key); dir != "" {
			paths = append(paths, filepath.Join(dir, "vmrun.exe"))
		}
	}
	for _, variable := range []string{"ProgramFiles(x86)", "ProgramFiles"} {
		if dir := os.Getenv(variable); dir != "" {
			paths = append(paths, filepath.Join(dir, "VMware", "VMware Workstation", "vmrun.exe"))
		}
	}
	return paths
}

// ownGroup starts the process without a window, and so that Ctrl-C does not reach it. When its context ends, the
// process is killed: vmrun starts no processes that must end with it.
func ownGroup(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{
		HideWindow: true, CreationFlags: windows.CREATE_NO_WINDOW | windows.CREATE_NEW_PROCESS_GROUP,
	}
}
