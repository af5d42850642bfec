package vmx_test

import (
	"io"
	"log"
	"os"
	"strings"
	"testing"

	govmx "github.com/hooklift/govmx"
)

// TestMain discards the log of govmx, which uses the standard logger.
func TestMain(m *testing.M) {
	log.SetOutput(io.Discard)
	os.Exit(m.Run())
}

// readableByGovix fails the test if one of govix's parsers refuses the file or ignores a line. They are govmx and the
// parser in govix's network.go, which reads only lines with exactly one equals sign.
func readableByGovix(t *testing.T, data []byte) {
	t.Helper()
	if err := govmx.Unmarshal(data, new(govmx.VirtualMachine)); err != nil {
		t.Fatalf("govmx refuses %q: %v", data, err)
	}
	for text := range strings.SplitSeq(string(data), "\n") {
		text = strings.TrimSpace(text)
		if text != "" && text[0] != '#' && strings.Count(text, "=") != 1 {
			t.Fatalf("govix drops the line %q", text)
		}
	}
}

func TestNormalizeForGovix(t *testing.T) {
	for _, name := range []string{"fusion.vmx", "workstation.vmx", "packer.vmx"} {
		f := parseFile(t, name)
		want := map[string]string{}
		for _, key := range f.Keys() {
			want[key], _ = f.Get(key)
		}
		// Another spelling of the same.
		if _, ok := want["scsi0:0.present"]; ok {
			want["scsi0:0.present"] = "TRUE"
		}
		if name == "packer.vmx" {
			want["msg.autoanswer"], want["scsi0:1.present"] = "TRUE", "TRUE"
		}
		if removed := f.Normalize(); len(removed) > 0 {
			t.Errorf("%s: removed %q", name, removed)
		}
		readableByGovix(t, f.Bytes())
		for key, value := range want {
			if got, _ := f.Get(key); got != value {
				t.Errorf("%s: %s: got %q, want %q", name, key, got, value)
			}
		}
	}
}

func TestNormalize(t *testing.T) {
	long := strings.Repeat("x", 70_000)
	tests := map[string]struct {
		text, want string
		removed    int
	}{
		"plain lines stay":             {"a = \"1\"\r\n# c\n\nb=2", "a = \"1\"\r\n# c\n\nb=2", 0},
		"second equals sign":           {"a = \"x==\"\n", "a = \"x|3D|3D\"\n", 0},
		"equals sign behind":           {"a = \"x\" # y=z\n", "a = \"x\"\n", 0},
		"line without equals sign":     {"hello\na = \"1\"\n", "a = \"1\"\n", 1},
		"indented comment":             {"  # c\na = \"1\"\n", "# c\na = \"1\"\n", 0},
		"lone CR":                      {"a = \"1\"\rb = \"2\"\r#c\r", "a = \"1\"\nb = \"2\"\n#c\n", 0},
		"long line":                    {"a = \"" + long + "\"\nb = \"1\"\n", "b = \"1\"\n", 1},
		"long comment":                 {"#" + long + "\nb = \"1\"\n", "b = \"1\"\n", 0},
		"comment after a mark":         {"\xef\xbb\xbf# c\nb = \"1\"\n", "\xef\xbb\xbfb = \"1\"\n", 0},
		"nothing but a mark":           {"\xef\xbb\xbf# c\n", "", 0},
		"duplicate":                    {"a = \"1\"\nA = \"2\"\n", "A = \"2\"\n", 1},
		"yes":                          {"ethernet0.present = \"yes\"\n", "ethernet0.present = \"TRUE\"\n", 0},
		"no truth":                     {"ethernet0.present = \"maybe\"\n", "", 1},
		"number with a fraction":       {"memsize = \"2048.0\"\n", "memsize = \"2048\"\n", 0},
		"no number":                    {"memsize = \"lots\"\n", "", 1},
		"other keys hold what they do": {"guestinfo.x.present = \"maybe\"\n", "guestinfo.x.present = \"maybe\"\n", 0},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			f := parse(t, tt.text)
			removed := f.Normalize()
			if got := string(f.Bytes()); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			if len(removed) != tt.removed {
				t.Errorf("removed %q, want %d lines", removed, tt.removed)
			}
			readableByGovix(t, f.Bytes())
		})
	}
}
