package confine_test

import (
	"os/exec"
	"strings"
	"testing"

	"osx-builder/vm/qemu/confine"
)

func TestQuote(t *testing.T) {
	words := []string{"a b", "", "it's", "$HOME", "`x`", "two\nlines", `\`, `"`, "*", "ü"}
	out, err := exec.Command("/bin/sh", "-c", "printf '%s|' "+confine.Quote(words)).Output()
	if want := strings.Join(words, "|") + "|"; err != nil || string(out) != want {
		t.Errorf("got %q, %v, want %q", out, err, want)
	}
}
