package config_test

import (
	"encoding/xml"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"osx-builder/config"
)

// systemd accepts the unit without warnings.
func TestSystemdUnit(t *testing.T) {
	text, err := config.Unit("systemd", `/opt/100% "builder"/osx-builder`)
	if err != nil || !strings.Contains(text, `ExecStart="/opt/100%% \"builder\"/osx-builder"`) {
		t.Errorf("got %v and\n%s\nwant the program quoted", err, text)
	}
	verify, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("systemd-analyze is not installed; only a host with systemd can judge a unit")
	}
	text, err = config.Unit("systemd", "/bin/true")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "osx-builder.service")
	judge := func(text string) (string, error) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command(verify, "verify", "--recursive-errors=no", file).CombinedOutput()
		return string(out), err
	}
	out, err := judge(text)
	if strings.Contains(out, "'DelegateSubgroup'") { // systemd before 254, which ignores it
		out, err = judge(strings.Replace(text, "DelegateSubgroup=daemon\n", "", 1))
	}
	if err != nil || strings.Contains(out, "osx-builder.service") {
		t.Errorf("systemd-analyze verify: %v: %s", err, out)
	}
	// What systemd itself thinks of it: 0 is a service that can do nothing, 10 one that can do everything.
	security, err := exec.Command(verify, "security", "--offline=true", "--threshold=30", "--no-pager", file).CombinedOutput()
	if err != nil {
		t.Errorf("the unit's exposure is above 3.0: %v: %s", err, security)
	}
}

// The property list is XML for any path of the program.
func TestLaunchdPlist(t *testing.T) {
	text, err := config.Unit("launchd", "/opt/<a & b>/osx-builder")
	if err != nil || !strings.Contains(text, "<key>AbandonProcessGroup</key>\n\t<true/>") {
		t.Errorf("got %v and\n%s", err, text)
	}
	found := false
	for d := xml.NewDecoder(strings.NewReader(text)); ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("not XML: %v", err)
		}
		if chars, ok := token.(xml.CharData); ok && string(chars) == "/opt/<a & b>/osx-builder" {
			found = true
		}
	}
	if !found {
		t.Error("the program's path is not in it")
	}
}

// The script for Windows has Windows' line ends and the program in quotes. Quotes are balanced, so that no command ends
// in the middle.
func TestWindowsScript(t *testing.T) {
	text, err := config.Unit("windows", `C:\Program Files\100%\osx-builder.exe`)
	if err != nil || !strings.Contains(text, `binpath= "\"C:\Program Files\100%%\osx-builder.exe\" -data \"%ProgramData%\osx-builder\data\"`) {
		t.Errorf("got %v and\n%s\nwant the program in quotes", err, text)
	}
	for line := range strings.Lines(text) {
		if !strings.HasSuffix(line, "\r\n") || strings.Count(line, `"`)%2 != 0 {
			t.Errorf("got the line %q, want one that ends in CRLF, with an even number of quotes", line)
		}
	}
	if _, err := config.Unit("windows", `C:\a&b\osx-builder.exe`); err == nil || !strings.Contains(err.Error(), "a&b") {
		t.Errorf("a path that a script cannot have: got %v, want an error that names it", err)
	}
}

func TestUnknownUnit(t *testing.T) {
	if _, err := config.Unit("upstart", "/bin/true"); err == nil || !strings.Contains(err.Error(), "systemd, launchd and windows") {
		t.Errorf("got %v, want an error that names the kinds", err)
	}
}
