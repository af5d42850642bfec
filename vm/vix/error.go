//go:build vix && cgo && !windows

package vix

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	govix "github.com/hooklift/govix"

	"osx-builder/vm"
)

// The error codes of VIX that are told apart here.
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
)

// hints say what a person can do about an error whose own text does not.
var hints = map[int]string{
	3:                  "this VMware product may not be able to clone: Fusion before 13.6 needs a Pro licence, Player cannot",
	codeCancelled:      "VMware may have no desktop session to ask in: run the daemon from the session of a logged-in user",
	codeLocked:         "another program uses it: close it in VMware's window",
	codeLicence:        "VMware's licence does not allow it: start VMware once and accept its licence, or set -vix-host-options 0x200 on macOS",
	codeHostPermission: "run the daemon as the user who runs VMware, and on macOS allow it to reach the data folder",
	codeDialog:         "VMware waits for an answer in a dialog: open the machine in VMware's window and answer, or set launch_gui",
	codeNoDisplay:      "there is no display: do not set launch_gui",
	codeUnreadable:     "its .vmx file is damaged",
	codeNeedPassword:   "encrypted images cannot be used",
	codeBadPassword:    "encrypted images cannot be used",
	22001:              "VMware Workstation is not installed, though its VIX library is",
	22002:              "the VIX library does not know the installed version of VMware: see vixwrapper-config.txt beside it, or install the VIX that came with it",
	22003:              "the VMware product that VIX looks for is not installed",
	22004:              "VMware Player is not installed, though its VIX library is",
	22005:              "no VMware product is installed, though a VIX library is",
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

// explain makes of what VIX answered the error that a client may see. step is
// what was tried, in the form "clone the image". Errors that are not VIX's pass.
func explain(step string, err error) error {
	e, ok := errors.AsType[*govix.Error](err)
	if !ok {
		return err
	}
	message := fmt.Sprintf("VMware could not %s: %s (VIX error %d)", step, e.Text, e.Code)
	if hint := hints[e.Code]; hint != "" {
		message += "; " + hint
	}
	return &vm.Error{Code: errorCode(e.Code), Message: message, Err: err}
}

func errorCode(vix int) vm.Code {
	switch vix {
	case codeLocked, codeUnreadable:
		return vm.CodeOpen
	case codeDiskFull:
		return vm.CodeDiskFull
	case codeLicence, 22001, 22002, 22003, 22004, 22005:
		return vm.CodeHypervisorUnavailable
	}
	return vm.CodeHypervisor
}

// unanswered is the error of a call that is past its limit. VMware is still at
// it, and it may be long over the time that it gets.
func unanswered(step string, limit time.Duration) error {
	return &vm.Error{
		Code:    vm.CodeHypervisor,
		Message: fmt.Sprintf("VMware did not %s within %v; it may wait for an answer in a dialog, or hang", step, limit),
		Err:     context.DeadlineExceeded,
	}
}

// unreadable makes of an error the one that a reader of the machine gets.
func unreadable(err error) error {
	if e, ok := errors.AsType[*vm.Error](err); ok && e.Code == vm.CodeHypervisor {
		return &vm.Error{Code: vm.CodeOpen, Message: e.Message, Err: err}
	}
	return err
}
