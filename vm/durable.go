package vm

import "osx-builder/image"

// WriteFile is [image.WriteFile], for drivers, which do not import package image.
func WriteFile(path string, data []byte) error { return image.WriteFile(path, data) }

// SyncPath is [image.SyncPath], for drivers, which do not import package image.
func SyncPath(path string) error { return image.SyncPath(path) }

// IsDiskFull is [image.IsDiskFull], for drivers, which do not import package image.
func IsDiskFull(err error) bool { return image.IsDiskFull(err) }
