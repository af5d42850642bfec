//go:build vix && cgo && !windows

package vix

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"slices"
	"strings"
	"time"

	govix "github.com/hooklift/govix"

	"osx-builder/vm"
)

// The error codes of VIX that this package handles.
const (
	codeFileNotFound   = 4
	codeDiskFull       = 8
	codeCancelled      = 10
	codeFileReadOnly   = 11
	codeFileAccess     = 13
	codeLocked         = 15
	codeLicence        = 32
	codeNotRunning     = 3006
	codeRunning        = 3007
	codeHostPermission = 3014
	codeDialog         = 3028
	codeNoDisplay      = 3043
	codeVMNotFound     = 4000
	codeUnreadable     = 4002
	codeNeedPassword   = 17004
	codeBadPassword    = 17005

	// The wrapper library found no product of VMware's that it can use.
	codeNoWorkstation = 22001
	codeNoVersion     = 22002
	codeNoProvider    = 22003
	codeNoPlayer      = 22004
	codeNoProduct     = 22005
)

// hints say what a person can do about an error whose own text does not.
var hints = map[int]string{
	3:                  "this VMware product may not support clones: Fusion before 13.6 needs a Pro licence, and Player has none",
	codeCancelled:      "VMware may have no desktop session for its dialogs: run the daemon in the session of a logged-in user",
	codeLocked:         "another program uses it: close it in VMware's window",
	codeLicence:        "VMware's licence does not allow it: start VMware once and accept its licence, or set -vix-host-options 0x200 on macOS",
	codeHostPermission: "run the daemon as the user who runs VMware, and on macOS allow it to access the data folder",
	codeDialog:         "VMware waits for an answer in a dialog: open the machine in VMware's window and answer, or set launch_gui",
	codeNoDisplay:      "there is no display: do not set launch_gui",
	codeUnreadable:     "its .vmx file is damaged",
	codeNeedPassword:   "encrypted images are not supported",
	codeBadPassword:    "encrypted images are not supported",
	codeNoWorkstation:  "VMware Workstation is not installed, but its VIX library is",
	codeNoVersion:      "the VIX library does not know the installed version of VMware: check vixwrapper-config.txt beside it, or install the VIX of that version",
	codeNoProvider:     "the VMware product that VIX needs is not installed",
	codeNoPlayer:       "VMware Player is not installed, but its VIX library is",
}

// codeOf returns VIX's code in err, or 0.
func codeOf(err error) int {
	if e, ok := errors.AsType[*govix.Error](err); ok {
		return e.Code
	}
	return 0
}

// isCode reports whether err is an error of VIX with one of the codes.
func isCode(err error, codes ...int) bool {
	return slices.Contains(codes, codeOf(err))
}

// explain returns the error that a client may see for an error of VIX. step is what failed, in the form "clone the
// image"; vms are the machines that it needed. explain returns other errors unchanged.
func explain(step string, err error, vms []*vmRef) error {
	e, ok := errors.AsType[*govix.Error](err)
	if !ok {
		return err
	}
	message := fmt.Sprintf("VMware could not %s: %s (VIX error %d)", step, e.Text, e.Code)
	for _, hint := range []string{hints[e.Code], wrapperLogHint(e.Code), pathHint(e.Code, vms)} {
		if hint != "" {
			message += "; " + hint
		}
	}
	return &vm.Error{Code: errorCode(e.Code), Message: message, Err: err}
}

// wrapperLogHint names the log of VMware's wrapper library, if an error comes from that library.
func wrapperLogHint(code int) string {
	if code < codeNoWorkstation || code > codeNoProduct {
		return ""
	}
	name := "USER"
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	return fmt.Sprintf("/tmp/vmware-%s/vmware-vixWrapper-%d.log names the missing file", name, os.Getpid())
}

// pathHint names the data folder, if VMware does not find a file at a path with characters that it may not support.
func pathHint(code int, vms []*vmRef) string {
	if code != codeFileNotFound {
		return ""
	}
	for _, v := range vms {
		if strings.ContainsFunc(v.path, func(c rune) bool { return c <= ' ' || c > '~' }) {
			return fmt.Sprintf("VMware may not support the spaces or non-ASCII characters in %s: choose a data folder without them with -data", v.path)
		}
	}
	return ""
}

func errorCode(vix int) vm.Code {
	switch vix {
	case codeLocked, codeUnreadable:
		return vm.CodeOpen
	case codeDiskFull:
		return vm.CodeDiskFull
	case codeLicence, codeNoWorkstation, codeNoVersion, codeNoProvider, codeNoPlayer, codeNoProduct:
		return vm.CodeHypervisorUnavailable
	}
	return vm.CodeHypervisor
}

// timedOut is the error of a call that exceeds its limit. VMware continues the call.
func timedOut(step string, limit time.Duration) error {
	return &vm.Error{
		Code:    vm.CodeHypervisor,
		Message: fmt.Sprintf("VMware did not %s within %v; it may wait for an answer in a dialog, or hang", step, limit),
		Err:     context.DeadlineExceeded,
	}
}

// unreadable returns the error for a machine whose state cannot be read.
func unreadable(err error) error {
	if e, ok := errors.AsType[*vm.Error](err); ok && e.Code == vm.CodeHypervisor {
		return &vm.Error{Code: vm.CodeOpen, Message: e.Message, Err: err}
	}
	return err
}
