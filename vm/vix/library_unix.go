//go:build vix && cgo && !windows

package vix

import (
	"os"
	"path/filepath"
	"strings"
)

// libraryName is the library's name in messages, without the suffix, which depends on the system.
const libraryName = "libvixAllProducts"

const (
	fusion = "/Applications/VMware Fusion.app"
	// fusionLocation is the file in which Fusion stores the folder that it last ran from.
	fusionLocation = "/Library/Preferences/VMware Fusion/lastLocationUsed"
	inFusion       = "Contents/Public/libvixAllProducts.dylib"
)

// libraryPaths returns where VMware's installers put the library on a system.
func libraryPaths(goos string) []string {
	if goos != "darwin" {
		return []string{
			"/usr/lib/vmware-vix/libvixAllProducts.so",
			"/usr/lib/libvixAllProducts.so",
			"/usr/local/lib/vmware-vix/libvixAllProducts.so",
			"/usr/local/lib/libvixAllProducts.so",
		}
	}
	paths := []string{filepath.Join(fusion, inFusion)}
	if location, err := os.ReadFile(fusionLocation); err == nil {
		paths = append(paths, filepath.Join(strings.TrimSpace(string(location)), inFusion))
	}
	return paths
}
