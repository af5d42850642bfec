//go:build vix && cgo && !windows

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

const (
	fusion = "/Applications/VMware Fusion.app"
	// fusionMoved is where Fusion writes down the folder it was last run from.
	fusionMoved = "/Library/Preferences/VMware Fusion/lastLocationUsed"
	inFusion    = "Contents/Public/libvixAllProducts.dylib"
)

// libraryPlaces is where VMware's installers put the library on a system.
func libraryPlaces(goos string) []string {
	if goos != "darwin" {
		return []string{
			"/usr/lib/vmware-vix/libvixAllProducts.so",
			"/usr/lib/libvixAllProducts.so",
			"/usr/local/lib/vmware-vix/libvixAllProducts.so",
			"/usr/local/lib/libvixAllProducts.so",
		}
	}
	places := []string{filepath.Join(fusion, inFusion)}
	if moved, err := os.ReadFile(fusionMoved); err == nil {
		places = append(places, filepath.Join(strings.TrimSpace(string(moved)), inFusion))
	}
	return places
}

// The library is opened once for the process: what it starts cannot be undone.
var library struct {
	mu   sync.Mutex
	path string // of the library that is open, or ""
}

// load opens VMware's library, at path or where VMware installs it, and returns
// where it was. An error lists all that was tried.
func load(path, goos string) (string, error) {
	places := []string{path}
	if path == "" {
		places = libraryPlaces(goos)
	}
	library.mu.Lock()
	defer library.mu.Unlock()
	var tried []string
	for _, place := range places {
		err := loadAt(place)
		if err == nil {
			return place, nil
		}
		tried = append(tried, err.Error())
	}
	way := "install VMware Fusion or Workstation, or set -vix-library"
	if path != "" {
		way = "set -vix-library to the path of VMware's libvixAllProducts"
	}
	return "", fmt.Errorf("VMware's VIX library cannot be used: %s; %s", strings.Join(tried, "; "), way)
}

func loadAt(place string) error {
	if library.path != "" {
		if place == library.path {
			return nil
		}
		return fmt.Errorf("%s: another library, %s, is in use already", place, library.path)
	}
	// dlopen takes a bare name for one to be searched in the system's folders.
	if !filepath.IsAbs(place) {
		return fmt.Errorf("%s: the path is not absolute", place)
	}
	if _, err := os.Stat(place); err != nil {
		return err
	}
	why := (*C.char)(C.malloc(4096))
	defer C.free(unsafe.Pointer(why))
	cPlace := C.CString(place)
	defer C.free(unsafe.Pointer(cPlace))
	C.osxb_keep_signals()
	defer C.osxb_mend_signals()
	if C.osxb_load(cPlace, why, 4096) != 0 {
		reason := strings.TrimPrefix(C.GoString(why), place+": ")
		return fmt.Errorf("%s (this program is %s): %s", place, runtime.GOARCH, reason)
	}
	library.path = place
	return nil
}

// mendSignals undoes what VMware's library did to the handlers of signals.
func mendSignals() { C.osxb_mend_signals() }

// handle is a reference to something that VMware's library keeps.
type handle = C.VixHandle

// open opens the machine whose .vmx file is at path.
//
// govix's own OpenVM is not used. It loses the handle of its job every time,
// and it reads the .vmx with a parser that refuses, or panics at, lines that
// VMware itself writes. The machine is given to govix with an empty file in
// the .vmx's place, which only govix's editing functions look at.
//
// govix's finalizer is taken off: it would give the handle back while a call
// is under way. Whoever calls open calls release.
func open(host *govix.Host, path string) (*govix.VM, handle, error) {
	cPath := C.CString(path)
	defer C.free(unsafe.Pointer(cPath))
	hostHandle := C.VixHandle(reflect.ValueOf(host).Elem().FieldByName("handle").Int())
	var h C.VixHandle
	if err := failed("OpenVM", C.osxb_open_vm(hostHandle, cPath, &h)); err != nil {
		return nil, 0, err
	}
	v, err := adopt(h)
	if err != nil {
		release(h)
		return nil, 0, err
	}
	runtime.SetFinalizer(v, nil)
	return v, h, nil
}

// adopt calls govix.NewVirtualMachine. The type of its first parameter, an
// int32, can only be named inside govix.
func adopt(h handle) (*govix.VM, error) {
	construct := reflect.ValueOf(govix.NewVirtualMachine)
	out := construct.Call([]reflect.Value{
		reflect.ValueOf(h).Convert(construct.Type().In(0)),
		reflect.ValueOf(os.DevNull),
	})
	err, _ := out[1].Interface().(error)
	return out[0].Interface().(*govix.VM), err
}

func release(h handle) { C.Vix_ReleaseHandle(h) }

// cloneFrom makes a linked clone at destination of the machine at path, from
// its snapshot of the given name, which is taken if there is none.
func cloneFrom(host *govix.Host, path, snapshot, destination string) error {
	_, h, err := open(host, path)
	if err != nil {
		return err
	}
	defer release(h)
	cSnapshot, cDestination := C.CString(snapshot), C.CString(destination)
	defer C.free(unsafe.Pointer(cSnapshot))
	defer C.free(unsafe.Pointer(cDestination))
	return failed("Clone", C.osxb_clone(h, cSnapshot, cDestination))
}

// remove deletes the machine and its disks. govix's own Delete removes the
// machine's lock first, whoever holds it, and gives its handle back too early.
func remove(h handle) error { return failed("Delete", C.osxb_delete(h)) }

// failed makes of VIX's answer the error that govix makes of it.
func failed(operation string, err C.VixError) error {
	if err == C.VIX_OK {
		return nil
	}
	return &govix.Error{
		Operation: operation,
		Code:      int(err & 0xFFFF),
		Text:      C.GoString(C.Vix_GetErrorText(err, nil)),
	}
}
