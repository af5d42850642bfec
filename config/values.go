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
	// minImage refuses a size that was meant in larger units.
	minImage = 1 << 20

	// maxLifetime is the longest lifetime that a machine can have.
	maxLifetime = 365 * 24 * time.Hour
)

// The types below, and those in address.go, hosts.go, network.go and path.go, are the types of the settings' values.
// Each is a [flag.Value]: Set parses and checks a value and stores it in target, or returns an error that says what is
// allowed. String returns the stored value in a form that Set accepts.

// boolValue is true or false.
type boolValue struct{ target *bool }

func (v boolValue) String() string { return strconv.FormatBool(*v.target) }

func (v boolValue) Set(s string) error {
	on, err := strconv.ParseBool(s)
	if err != nil {
		return errors.New("must be true or false")
	}
	*v.target = on
	return nil
}

// intValue is a whole number from min to max.
type intValue struct {
	target   *int
	min, max int
}

func (v intValue) String() string { return strconv.Itoa(*v.target) }

func (v intValue) Set(s string) error {
	n, err := strconv.Atoi(s)
	if err != nil || n < v.min || n > v.max {
		return fmt.Errorf("must be a whole number from %d to %d", v.min, v.max)
	}
	*v.target = n
	return nil
}

// bitsValue is a bit mask of at most 31 bits.
type bitsValue struct{ target *int }

func (v bitsValue) String() string {
	if *v.target == 0 {
		return "0"
	}
	return fmt.Sprintf("%#x", *v.target)
}

func (v bitsValue) Set(s string) error {
	n, err := strconv.ParseInt(s, 0, 32)
	if err != nil || n < 0 {
		return errors.New("must be a number from 0 to 0x7fffffff, as in 0x200")
	}
	*v.target = int(n)
	return nil
}

// enumValue is one of several words.
type enumValue struct {
	target *string
	words  []string
}

func (v enumValue) String() string { return *v.target }

func (v enumValue) Set(s string) error {
	if !slices.Contains(v.words, s) {
		return errors.New("must be one of " + strings.Join(v.words, ", "))
	}
	*v.target = s
	return nil
}

// levelValue is the lowest level that is logged.
type levelValue struct{ target *slog.Level }

func (v levelValue) String() string { return strings.ToLower(v.target.String()) }

func (v levelValue) Set(s string) error {
	var word string
	if err := (enumValue{&word, []string{"debug", "info", "warn", "error"}}).Set(s); err != nil {
		return err
	}
	return v.target.UnmarshalText([]byte(word))
}

// portsValue is a list of the guest's TCP ports.
type portsValue struct{ target *[]int }

func (v portsValue) String() string {
	var words []string
	for _, n := range *v.target {
		words = append(words, strconv.Itoa(n))
	}
	return strings.Join(words, ",")
}

func (v portsValue) Set(s string) error {
	var list []int
	for word := range strings.SplitSeq(s, ",") {
		word = strings.TrimSpace(word)
		if word == "" {
			continue
		}
		n, err := strconv.Atoi(word)
		switch {
		case err != nil || n < 1 || n > math.MaxUint16:
			return fmt.Errorf("%q must be a port from 1 to 65535; separate several by commas", word)
		case n == 22:
			return errors.New("port 22 is always forwarded; remove it")
		case slices.Contains(list, n):
			return fmt.Errorf("port %d is listed twice", n)
		}
		list = append(list, n)
	}
	*v.target = list
	return nil
}

// sizeValue is a number of bytes in IEC units.
type sizeValue struct {
	target *int64
	min    int64
}

func (v sizeValue) String() string {
	s := strings.NewReplacer(" ", "", ".0", "").Replace(humanize.IBytes(uint64(*v.target)))
	if n, err := humanize.ParseBytes(s); err == nil && n == uint64(*v.target) && n >= 1<<10 {
		return s
	}
	return strconv.FormatInt(*v.target, 10)
}

func (v sizeValue) Set(s string) error {
	unit := strings.ToLower(strings.TrimSpace(strings.TrimLeft(s, "0123456789.")))
	n, err := humanize.ParseBytes(s)
	switch {
	case err != nil || !slices.Contains([]string{"", "kib", "mib", "gib", "tib", "pib", "ki", "mi", "gi", "ti", "pi"}, unit):
		return errors.New("must be a number of bytes, or a size in KiB, MiB, GiB, TiB or PiB, as in 256GiB")
	case n > math.MaxInt64 || int64(n) < v.min:
		return fmt.Errorf("must be at least %s and less than 8192PiB", sizeValue{target: &v.min})
	}
	*v.target = int64(n)
	return nil
}

// optionalDurationValue is a duration or empty.
type optionalDurationValue struct{ target *time.Duration }

func (v optionalDurationValue) String() string {
	if *v.target == 0 {
		return ""
	}
	return v.target.String()
}

func (v optionalDurationValue) Set(s string) error {
	if s == "" {
		*v.target = 0
		return nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < time.Second || d > maxLifetime || d%time.Second != 0 {
		return fmt.Errorf("must be a duration in whole seconds from 1s to %v, as in 90m or 12h, or empty for no limit", maxLifetime)
	}
	*v.target = d
	return nil
}

// unitKind returns the value for the name of a service manager.
func unitKind(target *string) enumValue {
	return enumValue{target, []string{"", "systemd", "launchd", "windows"}}
}

// durationValue is a duration from min to max.
type durationValue struct {
	target   *time.Duration
	min, max time.Duration
}

func (v durationValue) String() string { return v.target.String() }

func (v durationValue) Set(s string) error {
	d, err := time.ParseDuration(s)
	if err != nil || d < v.min || d > v.max {
		return fmt.Errorf("must be a duration from %v to %v, as in 90s or 5m", v.min, v.max)
	}
	*v.target = d
	return nil
}
