//go:build vix && cgo

package vix

import (
	"os"
	"path/filepath"

	"osx-builder/vm/vmware"
)

// libraryName is the library's name in messages.
const libraryName = "Vix64AllProductsDyn.dll"

// libraryPaths returns where VMware's installers put the library: where the registry says, and the usual folder. The
// installers are programs of 32 bits, whose part of the registry has a name of its own.
func libraryPaths(string) (paths []string) {
	for _, key := range []string{`SOFTWARE\WOW6432Node\VMware, Inc.\VMware VIX`, `SOFTWARE\VMware, Inc.\VMware VIX`} {
		if dir := vmware.InstallPath(key); dir != "" {
			paths = append(paths, filepath.Join(dir, libraryName))
		}
	}
	for _, variable := range []string{"ProgramFiles(x86)", "ProgramFiles"} {
		if dir := os.Getenv(variable); dir != "" {
			paths = append(paths, filepath.Join(dir, "VMware", "VMware VIX", libraryName))
		}
	}
	return paths
}
