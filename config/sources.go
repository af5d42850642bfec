package config

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
)

// maxFile bounds the configuration file, in bytes.
const maxFile = 1 << 20

// An entry is a value as it was given, and where.
type entry struct {
	value string
	from  string // "flag", "variable PORT", "/etc/osx-builder.conf, line 3", "default"
}

// A layer is what one source gives, by the setting's name.
type layer map[string]entry

// find returns what the first layer that has the setting says of it.
func find(name string, layers []layer) entry {
	for _, l := range layers {
		if e, ok := l[name]; ok {
			return e
		}
	}
	return entry{}
}

// readFlags takes the settings from the program's arguments. The last of a
// flag that is given twice holds, unless it is a list.
func readFlags(table []setting, args []string) (layer, error) {
	l := make(layer)
	fs := flag.NewFlagSet("osx-builder", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	for _, s := range table {
		keep := func(value string) error {
			if old, ok := l[s.name]; ok && s.list {
				value = old.value + "," + value
			}
			l[s.name] = entry{value, "flag"}
			return nil
		}
		if s.arg == "" {
			fs.BoolFunc(s.name, "", keep)
		} else {
			fs.Func(s.name, "", keep)
		}
	}
	err := fs.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		return nil, &HelpError{Text: help(table)}
	}
	if err != nil {
		return nil, fmt.Errorf("%w (osx-builder -help explains every flag)", err)
	}
	if fs.NArg() > 0 {
		return nil, fmt.Errorf("unexpected argument %q: osx-builder takes flags only, as in -creations 8 or -insecure=false (osx-builder -help explains every flag)", fs.Arg(0))
	}
	return l, nil
}

// readEnv takes the settings from the environment.
func readEnv(table []setting, getenv func(string) string) layer {
	l := make(layer)
	for _, s := range table {
		if s.reach == flagOnly {
			continue
		}
		if value := getenv(s.env()); value != "" {
			l[s.name] = entry{value, "variable " + s.env()}
		}
	}
	return l
}

// readFile takes the settings from a configuration file.
func readFile(table []setting, name string) (layer, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("reading the configuration file: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("reading the configuration file: %w", err)
	}
	if len(text) > maxFile {
		return nil, fmt.Errorf("reading the configuration file %s: it is larger than %d bytes", name, maxFile)
	}
	return parseFile(table, name, string(text))
}

func parseFile(table []setting, name, text string) (layer, error) {
	known := make(map[string]setting)
	for _, s := range table {
		if s.reach == anywhere {
			known[s.name] = s
		}
	}
	l := make(layer)
	var errs []error
	number := 0
	for line := range strings.Lines(text) {
		number++
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		at := fmt.Sprintf("%s, line %d", name, number)
		key, value, ok := strings.Cut(line, "=")
		key, value = strings.TrimSpace(key), strings.TrimSpace(value)
		s, isKnown := known[key]
		old, twice := l[key]
		switch {
		case !ok:
			errs = append(errs, fmt.Errorf("%s: got %q, want name = value", at, line))
		case !isKnown:
			errs = append(errs, fmt.Errorf("%s: there is no setting %q for this file (osx-builder -help explains every one)", at, key))
		case twice && !s.list:
			errs = append(errs, fmt.Errorf("%s: %s was set before (%s)", at, key, old.from))
		case twice:
			l[key] = entry{old.value + "," + value, at}
		default:
			l[key] = entry{value, at}
		}
	}
	return l, errors.Join(errs...)
}

// defaults returns what holds where nothing was given.
func defaults(table []setting, getenv func(string) string) layer {
	l := make(layer)
	for _, s := range table {
		l[s.name] = entry{s.standard, "default"}
	}
	if port := getenv("PORT"); port != "" {
		l["listen"] = entry{"127.0.0.1:" + port, "variable PORT"}
	}
	return l
}
