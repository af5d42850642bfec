//go:build vix && cgo

package vix

/*
#cgo CFLAGS: -I${SRCDIR}/include
#cgo linux LDFLAGS: -ldl
#include <stdlib.h>
#include "loader.h"
*/
import "C"

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"unsafe"

	govix "github.com/hooklift/govix"
)

// library is the library of this process. It is opened once, because what it starts cannot be undone.
var library struct {
	mu   sync.Mutex
	path string // of the open library, or ""
}

// load opens VMware's library at path, or where VMware's installers put it, and returns its path. An error lists all
// paths that were tried.
func load(path, goos string) (string, error) {
	paths := []string{path}
	if path == "" {
		paths = libraryPaths(goos)
	}
	library.mu.Lock()
	defer library.mu.Unlock()
	var tried []string
	for _, p := range paths {
		err := loadAt(p)
		if err == nil {
			return p, nil
		}
		tried = append(tried, err.Error())
	}
	hint := "install VMware Fusion or Workstation, or set -vix-library"
	if path != "" {
		hint = "set -vix-library to the path of VMware's " + libraryName
	}
	return "", fmt.Errorf("VMware's VIX library cannot be used: %s; %s", strings.Join(tried, "; "), hint)
}

func loadAt(path string) error {
	if library.path != "" {
		if path == library.path {
			return nil
		}
		return fmt.Errorf("%s: the library %s is already in use", path, library.path)
	}
	// dlopen would search a name without folders in the system's folders.
	if !filepath.IsAbs(path) {
		return fmt.Errorf("%s: the path is not absolute", path)
	}
	if _, err := os.Stat(path); err != nil {
		return err
	}
	reason := (*C.char)(C.malloc(4096))
	defer C.free(unsafe.Pointer(reason))
	cPath := C.CString(path)
	defer C.free(unsafe.Pointer(cPath))
	C.osxb_save_signals()
	defer C.osxb_repair_signals()
	if C.osxb_load(cPath, reason, 4096) != 0 {
		text := strings.TrimPrefix(C.GoString(reason), path+": ")
		return fmt.Errorf("%s (this program is %s): %s", path, runtime.GOARCH, text)
	}
	library.path = path
	return nil
}

// repairSignals restores the signal handlers that VMware's library has changed.
func repairSignals() { C.osxb_repair_signals() }

// operationOpen names the operation in errors of openVMX.
const operationOpen = "OpenVM"

// handle is a reference to an object of VMware's library.
type handle = C.VixHandle

// openVMX opens the machine whose .vmx is at path. The caller calls releaseHandle.
//
// It does not use govix's OpenVM, which leaks the handle of its job every time, and reads the .vmx with a parser that
// refuses, or panics at, lines that VMware itself writes. govix gets an empty file instead of the .vmx, which only its
// editing functions read.
//
// It removes govix's finalizer, which would release the handle while a call is running.
func openVMX(host *govix.Host, path string) (*govix.VM, handle, error) {
	cPath := C.CString(path)
	defer C.free(unsafe.Pointer(cPath))
	hostHandle := C.VixHandle(reflect.ValueOf(host).Elem().FieldByName("handle").Int())
	var h C.VixHandle
	err := vixError(operationOpen, C.osxb_open_vm(hostHandle, cPath, &h))
	repairSignals()
	if err != nil {
		return nil, 0, err
	}
	v, err := newGovixVM(h)
	if err != nil {
		releaseHandle(h)
		return nil, 0, err
	}
	runtime.SetFinalizer(v, nil)
	return v, h, nil
}

// newGovixVM calls govix.NewVirtualMachine. It needs reflection, because the type of the first parameter, an int32, is
// not exported.
func newGovixVM(h handle) (*govix.VM, error) {
	construct := reflect.ValueOf(govix.NewVirtualMachine)
	out := construct.Call([]reflect.Value{
		reflect.ValueOf(h).Convert(construct.Type().In(0)),
		reflect.ValueOf(os.DevNull),
	})
	err, _ := out[1].Interface().(error)
	return out[0].Interface().(*govix.VM), err
}

func releaseHandle(h handle) { C.Vix_ReleaseHandle(h) }

// cloneVMX makes a linked clone at destination of the machine at path, from its snapshot with this name. If there is no
// such snapshot, cloneVMX takes it.
func cloneVMX(host *govix.Host, path, snapshot, destination string) error {
	_, h, err := openVMX(host, path)
	if err != nil {
		return err
	}
	defer releaseHandle(h)
	cSnapshot, cDestination := C.CString(snapshot), C.CString(destination)
	defer C.free(unsafe.Pointer(cSnapshot))
	defer C.free(unsafe.Pointer(cDestination))
	return vixError("Clone", C.osxb_clone(h, cSnapshot, cDestination))
}

// deleteVM deletes the machine and its disks. It does not use govix's Delete, which removes the machine's lock first
// even if a process holds it, and releases the handle too early.
func deleteVM(h handle) error { return vixError("Delete", C.osxb_delete(h)) }

// vixError returns VIX's answer as govix's error.
func vixError(operation string, err C.VixError) error {
	if err == C.VIX_OK {
		return nil
	}
	return &govix.Error{
		Operation: operation,
		Code:      int(err & 0xFFFF),
		Text:      C.GoString(C.Vix_GetErrorText(err, nil)),
	}
}
