package vm

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"time"
)

// Timeout is a duration. Its JSON is whole seconds, or a string in Go's notation
// ("1m30s"). Zero means the default.
type Timeout time.Duration

// UnmarshalJSON reads both forms. Its errors are *[Error].
func (t *Timeout) UnmarshalJSON(b []byte) error { return unmarshalDuration(b, t, timeoutError) }

func timeoutError(value string) error {
	return fieldError("tools_init_timeout", value,
		`a whole number of seconds or a duration such as "30s", at most 1h`)
}

// ReadyTimeout is a duration with the same JSON as [Timeout]. Zero means the default.
type ReadyTimeout time.Duration

// UnmarshalJSON reads both forms. Its errors are *[Error].
func (t *ReadyTimeout) UnmarshalJSON(b []byte) error {
	return unmarshalDuration(b, t, readyTimeoutError)
}

func readyTimeoutError(value string) error {
	return fieldError("ready_timeout", value,
		`a whole number of seconds or a duration such as "5m", at most 1h`)
}

// Lifetime is a duration with the same JSON as [Timeout]. Zero means none.
type Lifetime time.Duration

// UnmarshalJSON reads both forms. Its errors are *[Error].
func (l *Lifetime) UnmarshalJSON(b []byte) error {
	return unmarshalDuration(b, l, func(value string) error { return lifetimeError(value, MaxLifetime) })
}

func lifetimeError(value string, most time.Duration) error {
	return fieldError("expires_in", value, wantLifetime(most))
}

func wantLifetime(most time.Duration) string {
	return fmt.Sprintf(`a whole number of seconds or a duration such as "90m", from 1s to %s`, readable(most))
}

// unmarshalDuration reads JSON into target. invalid makes the error for a value that is no duration.
func unmarshalDuration[T ~int64](b []byte, target *T, invalid func(value string) error) error {
	d, ok := parseDuration(b)
	if !ok {
		return invalid(string(b))
	}
	*target = T(d)
	return nil
}

// parseDuration reads JSON's null, a whole number of seconds or a string in
// Go's notation.
func parseDuration(b []byte) (time.Duration, bool) {
	var seconds float64
	if json.Unmarshal(b, &seconds) == nil {
		whole := seconds == math.Trunc(seconds) && math.Abs(seconds) <= math.MaxInt32
		return time.Duration(seconds) * time.Second, whole
	}
	var text string
	if json.Unmarshal(b, &text) != nil {
		return 0, false
	}
	d, err := time.ParseDuration(text)
	return d, err == nil
}

// readable is a duration for a message: without units that are zero, and in days if it is long.
func readable(d time.Duration) string {
	const day = 24 * time.Hour
	if d >= 2*day && d%day == 0 {
		return fmt.Sprintf("%d days", d/day)
	}
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}
