package client

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// durationType is the type of a duration in the help.
const durationType = "duration"

// durationValue is a flag with a duration. A number without a unit is seconds, as in the API.
type durationValue time.Duration

func (d *durationValue) Set(text string) error {
	parsed, err := parseDuration(text)
	if err != nil || parsed < 0 {
		return errors.New("invalid duration")
	}
	*d = durationValue(parsed)
	return nil
}

func (d *durationValue) String() string { return durationText(time.Duration(*d)) }

// Type implements [pflag.Value].
func (d *durationValue) Type() string { return durationType }

// parseDuration reads a number of seconds or a duration in Go's notation.
func parseDuration(text string) (time.Duration, error) {
	if seconds, err := strconv.ParseUint(text, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second, nil
	}
	return time.ParseDuration(text)
}

// durationJSON returns a duration as the API expects it: a number of seconds, or a text that the daemon checks.
func durationJSON(text string) json.RawMessage {
	if _, err := strconv.ParseUint(text, 10, 31); err == nil {
		return json.RawMessage(text)
	}
	return jsonString(text)
}

// durationText returns a duration for people: "12 s", "3 min", "2 h 5 min", "3 days". Below ten seconds it has one
// decimal.
func durationText(d time.Duration) string {
	switch {
	case d == 0:
		return "0"
	case d < 10*time.Second:
		return strings.TrimSuffix(fmt.Sprintf("%.1f", d.Seconds()), ".0") + " s"
	case d < 2*time.Minute:
		return fmt.Sprintf("%d s", (d+time.Second/2)/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%d min", d/time.Minute)
	case d < 48*time.Hour && d%time.Hour < time.Minute:
		return fmt.Sprintf("%d h", d/time.Hour)
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h %d min", d/time.Hour, d%time.Hour/time.Minute)
	default:
		return fmt.Sprintf("%d days", d/(24*time.Hour))
	}
}

// plural returns a number with its noun: "1 machine", "2 machines".
func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
