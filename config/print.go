package config

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// helpWidth is the longest line of -help, in bytes.
const helpWidth = 78

// PrintInfo writes the help, the version, the configuration or a unit, if the arguments ask for it instead of a daemon,
// and reports whether they do. c and err are the results of [Load]; version is the line for -version.
func PrintInfo(w io.Writer, c Config, err error, version string) (asked bool, _ error) {
	text := version + "\n"
	if help, ok := errors.AsType[*HelpError](err); ok {
		text = help.Text
	} else if err != nil {
		return false, err
	}
	switch {
	case err != nil, c.Version:
	case c.PrintConfig:
		return true, c.Print(w)
	case c.PrintUnit != "":
		program, err := os.Executable()
		if err != nil {
			return true, fmt.Errorf("finding this program: %w", err)
		}
		if text, err = Unit(c.PrintUnit, program); err != nil {
			return true, err
		}
	default:
		return false, nil
	}
	_, err = io.WriteString(w, text)
	return true, err
}

// Print writes every setting and the source of its value, in the form of a configuration file. Settings that such a
// file cannot contain are comments.
func (c Config) Print(w io.Writer) error {
	for _, s := range c.settings("") {
		line := fmt.Sprintf("%s = %s", s.name, s.value)
		switch s.scope {
		case flagOnly:
			continue
		case notInFile:
			line = "# " + line
		}
		if _, err := fmt.Fprintf(w, "# %s\n%s\n", c.from[s.name], strings.TrimSpace(line)); err != nil {
			return err
		}
	}
	return nil
}

// help returns the text that -help prints.
func help(table []setting) string {
	var b strings.Builder
	b.WriteString(`osx-builder creates and destroys virtual machines from VMware images, on request
over HTTP.

Usage: osx-builder [flags]    the daemon
       osx-builder VERB ...   the command line; osx-builder help lists the verbs

A flag takes precedence over its environment variable, that over the
configuration file, and that over the default.

`)
	for _, s := range table {
		fmt.Fprintf(&b, "  -%s\n", strings.TrimSpace(s.name+" "+s.arg))
		wrap(&b, "      ", s.help)
		if s.scope != flagOnly {
			wrap(&b, "      ", fmt.Sprintf("Variable %s. Default %s.", s.env(), cmp.Or(s.defaultValue, "none")))
		}
		b.WriteString("\n")
	}
	b.WriteString("  -help\n      Print this text and exit.\n")
	return b.String()
}

// wrap writes text in lines that begin with indent.
func wrap(b *strings.Builder, indent, text string) {
	line := indent
	for word := range strings.FieldsSeq(text) {
		if line != indent && len(line)+1+len(word) > helpWidth {
			b.WriteString(line + "\n")
			line = indent
		}
		if line != indent {
			line += " "
		}
		line += word
	}
	b.WriteString(line + "\n")
}
