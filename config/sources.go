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

// given is a value as it was given, and its source.
type given struct {
	value string
	from  string // "flag", "variable PORT", "/etc/osx-builder.conf, line 3", "default"
}

// A source holds the values that it gives, by the name of the setting.
type source map[string]given

// lookup returns the value of a setting from the first source that has it.
func lookup(name string, sources []source) given {
	for _, src := range sources {
		if v, ok := src[name]; ok {
			return v
		}
	}
	return given{}
}

// readFlags reads the settings in the program's arguments. If a flag is given twice, the last value counts, unless the
// setting is a list.
func readFlags(table []setting, args []string) (source, error) {
	src := make(source)
	fs := flag.NewFlagSet("osx-builder", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	for _, s := range table {
		store := func(value string) error {
			if old, ok := src[s.name]; ok && s.list {
				value = old.value + "," + value
			}
			src[s.name] = given{value, "flag"}
			return nil
		}
		if s.arg == "" {
			fs.BoolFunc(s.name, "", store)
		} else {
			fs.Func(s.name, "", store)
		}
	}
	err := fs.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		return nil, &HelpError{Text: help(table)}
	}
	if err != nil {
		return nil, fmt.Errorf("%w (osx-builder -help lists the flags)", err)
	}
	if fs.NArg() > 0 {
		return nil, fmt.Errorf("unexpected argument %q: osx-builder takes flags only, as in -creations 8 or -insecure=false (osx-builder -help lists the flags)", fs.Arg(0))
	}
	return src, nil
}

// readEnv reads the settings in the environment.
func readEnv(table []setting, getenv func(string) string) source {
	src := make(source)
	for _, s := range table {
		if s.scope == flagOnly {
			continue
		}
		if value := getenv(s.env()); value != "" {
			src[s.name] = given{value, "variable " + s.env()}
		}
	}
	return src
}

// readFile reads the settings in a configuration file.
func readFile(table []setting, name string) (source, error) {
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

func parseFile(table []setting, name, text string) (source, error) {
	known := make(map[string]setting)
	for _, s := range table {
		if s.scope == anySource {
			known[s.name] = s
		}
	}
	src := make(source)
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
		old, twice := src[key]
		switch {
		case !ok:
			errs = append(errs, fmt.Errorf("%s: the line %q must have the form name = value", at, line))
		case !isKnown:
			errs = append(errs, fmt.Errorf("%s: the setting %q does not exist or is not allowed in this file (osx-builder -help lists the settings)", at, key))
		case twice && !s.list:
			errs = append(errs, fmt.Errorf("%s: %s is already set (%s)", at, key, old.from))
		case twice:
			src[key] = given{old.value + "," + value, at}
		default:
			src[key] = given{value, at}
		}
	}
	return src, errors.Join(errs...)
}

// defaults returns the default values.
func defaults(table []setting, getenv func(string) string) source {
	src := make(source)
	for _, s := range table {
		src[s.name] = given{s.defaultValue, "default"}
	}
	if port := getenv("PORT"); port != "" {
		src["listen"] = given{"127.0.0.1:" + port, "variable PORT"}
	}
	return src
}
