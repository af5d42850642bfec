package vmware

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"osx-builder/vm"
)

// The codes of VMware's errors that the drivers handle. They are those of VIX; other interfaces of VMware report the
// same errors by their texts.
const (
	CodeInvalidArgument  = 3
	CodeFileNotFound     = 4
	CodeBusy             = 5
	CodeUnsupported      = 6
	CodeDiskFull         = 8
	CodeCancelled        = 10
	CodeFileReadOnly     = 11
	CodeFileAccess       = 13
	CodeLocked           = 15
	CodeHostNotConnected = 26
	CodeLicence          = 32
	CodeConnectionLost   = 34
	CodeNotResponding    = 36
	CodeInvalidHandle    = 1000
	CodeNotRunning       = 3006
	CodeRunning          = 3007
	CodeHostPermission   = 3014
	CodeToolsNotRunning  = 3016
	CodeDialog           = 3028
	CodeNoDisplay        = 3043
	CodeVMNotFound       = 4000
	CodeUnreadable       = 4002
	CodeUnknownProperty  = 6000
	CodeNeedPassword     = 17004
	CodeBadPassword      = 17005

	// The wrapper library found no product of VMware's that it can use.
	CodeNoWorkstation = 22001
	CodeNoVersion     = 22002
	CodeNoProvider    = 22003
	CodeNoPlayer      = 22004
	CodeNoProduct     = 22005
)

// hints say what a person can do about an error whose own text does not.
var hints = map[int]string{
	CodeInvalidArgument: "this VMware product may not support clones: Fusion before 13.6 needs a Pro licence, and Player has none",
	CodeCancelled:       "VMware may have no desktop session for its dialogs: run the daemon in the session of a logged-in user",
	CodeLocked:          "another program uses it: close it in VMware's window",
	CodeLicence:         "VMware's licence does not allow it: start VMware once and accept its licence, or set -vix-host-options 0x200 on macOS",
	CodeHostPermission:  "run the daemon as the user who runs VMware, and on macOS allow it to access the data folder",
	CodeDialog:          "VMware waits for an answer in a dialog: open the machine in VMware's window and answer, or set launch_gui",
	CodeNoDisplay:       "there is no display: do not set launch_gui",
	CodeUnreadable:      "its .vmx file is damaged",
	CodeNeedPassword:    "encrypted images are not supported",
	CodeBadPassword:     "encrypted images are not supported",
	CodeNoWorkstation:   "VMware Workstation is not installed, but its VIX library is",
	CodeNoVersion:       "the VIX library does not know the installed version of VMware: check vixwrapper-config.txt beside it, or install the VIX of that version",
	CodeNoProvider:      "the VMware product that VIX needs is not installed",
	CodeNoPlayer:        "VMware Player is not installed, but its VIX library is",
}

// Failure is an error that VMware reports.
type Failure struct {
	Code int    // VIX's code, or 0 if it is not known
	Text string // in VMware's words
}

// Error implements error.
func (f *Failure) Error() string { return f.Text }

// CodeOf returns VMware's code in err, or 0.
func CodeOf(err error) int {
	if f, ok := errors.AsType[*Failure](err); ok {
		return f.Code
	}
	return 0
}

// IsCode reports whether err is an error of VMware with one of the codes.
func IsCode(err error, codes ...int) bool {
	return slices.Contains(codes, CodeOf(err))
}

// IsFailure reports whether VMware answered with an error.
func IsFailure(err error) bool {
	_, ok := errors.AsType[*Failure](err)
	return ok
}

// IsNotFound reports whether VMware answered that the machine does not exist.
func IsNotFound(err error) bool { return IsCode(err, CodeFileNotFound, CodeVMNotFound) }

// IsUnreadable reports whether VMware answered that it cannot read the machine's settings.
func IsUnreadable(err error) bool {
	return IsCode(err, CodeUnreadable, CodeNeedPassword, CodeBadPassword)
}

// Explain returns the error that a client may see for an error of VMware. step is what failed, in the form "clone the
// image"; paths are the .vmx files that it needed, and more are hints of the driver, which may be empty. Explain
// returns other errors unchanged.
func Explain(step string, err error, paths []string, more ...string) error {
	f, ok := errors.AsType[*Failure](err)
	if !ok {
		return err
	}
	message := fmt.Sprintf("VMware could not %s: %s", step, f.Text)
	if f.Code != 0 {
		message += fmt.Sprintf(" (VIX error %d)", f.Code)
	}
	for _, hint := range append([]string{hints[f.Code], pathHint(f.Code, paths)}, more...) {
		if hint != "" {
			message += "; " + hint
		}
	}
	return &vm.Error{Code: errorCode(f.Code), Message: message, Err: err}
}

// pathHint names the data folder, if VMware does not find a file at a path with characters that it may not support.
func pathHint(code int, paths []string) string {
	if code != CodeFileNotFound {
		return ""
	}
	for _, path := range paths {
		if strings.ContainsFunc(path, func(c rune) bool { return c <= ' ' || c > '~' }) {
			return fmt.Sprintf("VMware may not support the spaces or non-ASCII characters in %s: choose a data folder without them with -data", path)
		}
	}
	return ""
}

func errorCode(code int) vm.Code {
	switch code {
	case CodeLocked, CodeUnreadable:
		return vm.CodeOpen
	case CodeDiskFull:
		return vm.CodeDiskFull
	case CodeHostNotConnected, CodeConnectionLost, CodeNotResponding, CodeLicence, CodeNoWorkstation, CodeNoVersion, CodeNoProvider, CodeNoPlayer, CodeNoProduct:
		return vm.CodeHypervisorUnavailable
	}
	return vm.CodeHypervisor
}

// Unreadable returns the error for a machine whose state cannot be read.
func Unreadable(err error) error {
	if e, ok := errors.AsType[*vm.Error](err); ok && e.Code == vm.CodeHypervisor {
		return &vm.Error{Code: vm.CodeOpen, Message: e.Message, Err: err}
	}
	return err
}
