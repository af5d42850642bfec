package api

import (
	"encoding/json"
	"testing"

	"pgregory.net/rapid"
)

// indent formats exactly like json.MarshalIndent.
func TestIndent(t *testing.T) {
	text := rapid.OneOf(rapid.String(), rapid.SampledFrom([]string{`"`, `\`, `\"`, "{", "[]", ",", ":", "\n", "</script>", "\u2028", "\xff"}))
	value := rapid.OneOf(rapid.Map(text, toAny), rapid.Map(rapid.Float64Range(-1e9, 1e9), toAny), rapid.Map(rapid.Bool(), toAny), rapid.Just[any](nil))
	for range 3 {
		value = rapid.OneOf(value, rapid.Map(rapid.MapOfN(text, value, 0, 3), toAny), rapid.Map(rapid.SliceOfN(value, 0, 3), toAny))
	}
	rapid.Check(t, func(t *rapid.T) {
		v := value.Draw(t, "value")
		compact, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		want, err := json.MarshalIndent(v, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		if got := indent(compact); string(got) != string(want) {
			t.Errorf("got %s\nwant %s", got, want)
		}
	})
}

func toAny[T any](v T) any { return v }
