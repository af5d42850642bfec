package config

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"unicode"
)

// path is the name of a file or folder, absolute once it is set.
type path struct {
	at       *string
	home     string
	optional bool
}

func (v path) String() string { return *v.at }

func (v path) Set(s string) error {
	if s == "" && v.optional {
		*v.at = ""
		return nil
	}
	name, err := absolute(s, v.home)
	if err != nil {
		return err
	}
	*v.at = name
	return nil
}

// absolute returns the absolute form of name. It does what a shell does with
// a leading ~/, since no shell sees the names in a file or a variable.
func absolute(name, home string) (string, error) {
	switch {
	case name == "":
		return "", errors.New("must name a path")
	case strings.TrimSpace(name) != name || strings.ContainsFunc(name, unicode.IsControl):
		return "", errors.New("must not begin or end with a blank, nor hold control characters")
	case name == "~" || strings.HasPrefix(name, "~/"):
		if !filepath.IsAbs(home) {
			return "", fmt.Errorf("HOME must be set to an absolute path, not %q; or give a path without ~", home)
		}
		name = filepath.Join(home, name[1:])
	case name[0] == '~':
		return "", errors.New("the home folder of another user must be written out")
	}
	return filepath.Abs(name)
}
