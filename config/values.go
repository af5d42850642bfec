package config

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
)

const (
	// minImage catches a size that was meant in larger units.
	minImage = 1 << 20

	// maxLifetime is the longest that a machine can be given.
	maxLifetime = 365 * 24 * time.Hour
)

// The types of this file and of path.go and address.go are the kinds of
// values that settings have. Each is a flag.Value: Set parses a value, checks
// it and stores it where the pointer leads, with an error that says what would
// be right; String writes what is stored so that Set takes it again.

// toggle is a switch.
type toggle struct{ at *bool }

func (v toggle) String() string { return strconv.FormatBool(*v.at) }

func (v toggle) Set(s string) error {
	on, err := strconv.ParseBool(s)
	if err != nil {
		return errors.New("must be true or false")
	}
	*v.at = on
	return nil
}

// number is a whole number from least to most.
type number struct {
	at          *int
	least, most int
}

func (v number) String() string { return strconv.Itoa(*v.at) }

func (v number) Set(s string) error {
	n, err := strconv.Atoi(s)
	if err != nil || n < v.least || n > v.most {
		return fmt.Errorf("must be a whole number from %d to %d", v.least, v.most)
	}
	*v.at = n
	return nil
}

// bits is a number whose bits mean something, at most 31 of them.
type bits struct{ at *int }

func (v bits) String() string {
	if *v.at == 0 {
		return "0"
	}
	return fmt.Sprintf("%#x", *v.at)
}

func (v bits) Set(s string) error {
	n, err := strconv.ParseInt(s, 0, 32)
	if err != nil || n < 0 {
		return errors.New("must be a number from 0 to 0x7fffffff, as in 0x200")
	}
	*v.at = int(n)
	return nil
}

// choice is one of several words.
type choice struct {
	at    *string
	words []string
}

func (v choice) String() string { return *v.at }

func (v choice) Set(s string) error {
	if !slices.Contains(v.words, s) {
		return errors.New("must be one of " + strings.Join(v.words, ", "))
	}
	*v.at = s
	return nil
}

// level is the least severity of a log line.
type level struct{ at *slog.Level }

func (v level) String() string { return strings.ToLower(v.at.String()) }

func (v level) Set(s string) error {
	var word string
	if err := (choice{&word, []string{"debug", "info", "warn", "error"}}).Set(s); err != nil {
		return err
	}
	return v.at.UnmarshalText([]byte(word))
}

// ports is a list of the guest's TCP ports.
type ports struct{ at *[]int }

func (v ports) String() string {
	var words []string
	for _, n := range *v.at {
		words = append(words, strconv.Itoa(n))
	}
	return strings.Join(words, ",")
}

func (v ports) Set(s string) error {
	var list []int
	for word := range strings.SplitSeq(s, ",") {
		word = strings.TrimSpace(word)
		if word == "" {
			continue
		}
		n, err := strconv.Atoi(word)
		switch {
		case err != nil || n < 1 || n > math.MaxUint16:
			return fmt.Errorf("%q must be a port from 1 to 65535, and several are separated by commas", word)
		case n == 22:
			return errors.New("port 22 is always forwarded, leave it out")
		case slices.Contains(list, n):
			return fmt.Errorf("port %d is there twice", n)
		}
		list = append(list, n)
	}
	*v.at = list
	return nil
}

// size is a number of bytes in IEC units.
type size struct {
	at    *int64
	least int64
}

func (v size) String() string {
	s := strings.NewReplacer(" ", "", ".0", "").Replace(humanize.IBytes(uint64(*v.at)))
	if n, err := humanize.ParseBytes(s); err == nil && n == uint64(*v.at) && n >= 1<<10 {
		return s
	}
	return strconv.FormatInt(*v.at, 10)
}

func (v size) Set(s string) error {
	unit := strings.ToLower(strings.TrimSpace(strings.TrimLeft(s, "0123456789.")))
	n, err := humanize.ParseBytes(s)
	switch {
	case err != nil || !slices.Contains([]string{"", "kib", "mib", "gib", "tib", "pib", "ki", "mi", "gi", "ti", "pi"}, unit):
		return errors.New("must be a number of bytes, or a size in KiB, MiB, GiB, TiB or PiB, as in 256GiB")
	case n > math.MaxInt64 || int64(n) < v.least:
		return fmt.Errorf("must be at least %s and less than 8192PiB", size{at: &v.least})
	}
	*v.at = int64(n)
	return nil
}

// lifetime is a duration that may be missing.
type lifetime struct{ at *time.Duration }

func (v lifetime) String() string {
	if *v.at == 0 {
		return ""
	}
	return v.at.String()
}

func (v lifetime) Set(s string) error {
	if s == "" {
		*v.at = 0
		return nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < time.Second || d > maxLifetime || d%time.Second != 0 {
		return fmt.Errorf("must be a duration in whole seconds from 1s to %v, as in 90m or 12h, or empty for no bound", maxLifetime)
	}
	*v.at = d
	return nil
}

// unitKind names a service manager.
func unitKind(at *string) choice { return choice{at, []string{"", "systemd", "launchd"}} }
