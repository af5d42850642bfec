//go:build !windows

package config

const (
	// homeVariable names the user's home folder.
	homeVariable = "HOME"

	defaultData = "~/.osx-builder"
)
