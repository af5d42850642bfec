//go:build vix && cgo

package vix

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	govix "github.com/hooklift/govix"

	"osx-builder/vm"
	"osx-builder/vm/vmware"
)

// codeOf returns VIX's code in err, or 0.
func codeOf(err error) int {
	if e, ok := errors.AsType[*govix.Error](err); ok {
		return e.Code
	}
	return vmware.CodeOf(err)
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
	paths := make([]string, len(vms))
	for i, v := range vms {
		paths[i] = v.path
	}
	return vmware.Explain(step, &vmware.Failure{Code: e.Code, Text: e.Text}, paths, wrapperLogHint(e.Code))
}

// wrapperLogHint names the log of VMware's wrapper library, if an error comes from that library.
func wrapperLogHint(code int) string {
	if code < vmware.CodeNoWorkstation || code > vmware.CodeNoProduct {
		return ""
	}
	file := fmt.Sprintf("vmware-vixWrapper-%d.log", os.Getpid())
	if runtime.GOOS == "windows" {
		return filepath.Join(os.TempDir(), "vmware-"+os.Getenv("USERNAME"), file) + " names the missing file"
	}
	name := "USER"
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	return fmt.Sprintf("/tmp/vmware-%s/%s names the missing file", name, file)
}

// timedOut is the error of a call that exceeds its limit. VMware continues the call.
func timedOut(step string, limit time.Duration) error {
	return &vm.Error{
		Code:    vm.CodeHypervisor,
		Message: fmt.Sprintf("VMware did not %s within %v; it may wait for an answer in a dialog, or hang", step, limit),
		Err:     context.DeadlineExceeded,
	}
}
