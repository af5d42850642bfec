package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"unicode"
)

// pathValue is the path of a file or folder. Set makes it absolute.
type pathValue struct {
	target   *string
	home     string
	optional bool
}

func (v pathValue) String() string { return *v.target }

func (v pathValue) Set(s string) error {
	if s == "" && v.optional {
		*v.target = ""
		return nil
	}
	name, err := absolute(s, v.home)
	if err != nil {
		return err
	}
	*v.target = name
	return nil
}

// absolute returns the absolute form of name. It expands a leading ~/ as a shell does, because no shell reads the paths
// in the configuration file and the environment.
func absolute(name, home string) (string, error) {
	switch {
	case name == "":
		return "", errors.New("must name a path")
	case strings.TrimSpace(name) != name || strings.ContainsFunc(name, unicode.IsControl):
		return "", errors.New("must not begin or end with a space or contain control characters")
	case name == "~" || name[0] == '~' && os.IsPathSeparator(name[1]):
		if !filepath.IsAbs(home) {
			return "", fmt.Errorf("%s must be set to an absolute path, not %q; or use a path without ~", homeVariable, home)
		}
		name = filepath.Join(home, name[1:])
	case name[0] == '~':
		return "", errors.New("the home folder of another user must be written as a full path")
	}
	return filepath.Abs(name)
}
