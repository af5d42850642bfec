package vmx_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"osx-builder/vm/vmx"

	"github.com/google/go-cmp/cmp"
)

func parse(t *testing.T, text string) *vmx.File {
	t.Helper()
	f, err := vmx.Parse([]byte(text))
	if err != nil {
		t.Fatalf("Parse(%q): %v", text, err)
	}
	return f
}

func parseFile(t *testing.T, name string) *vmx.File {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return parse(t, string(data))
}

func TestGet(t *testing.T) {
	tests := map[string]struct {
		text string
		want string
		ok   bool
	}{
		"quoted":                      {`k = "v"`, "v", true},
		"bare":                        {`k = v`, "v", true},
		"without blanks":              {`k="v"`, "v", true},
		"tabs":                        {"\tk\t=\t\"v\"\t", "v", true},
		"case of the key":             {`K = "v"`, "v", true},
		"empty":                       {`k = ""`, "", true},
		"nothing":                     {`k =`, "", true},
		"only a comment":              {`k = # v`, "", true},
		"comment behind":              {`k = "v" # w`, "v", true},
		"comment behind bare":         {`k = v#w`, "v", true},
		"number sign in quotes":       {`k = "v#w"`, "v#w", true},
		"equals signs":                {`k = "a=b=="`, "a=b==", true},
		"bare with equals sign":       {`k = a=b`, "a=b", true},
		"escapes":                     {`k = "|22a|22 |7Cb|7c|0A"`, "\"a\" |b|\n", true},
		"pipe that escapes nothing":   {`k = "a|b|"`, "a|b|", true},
		"CRLF":                        {"k = \"v\"\r\n", "v", true},
		"lone CR ends a line":         {"j = \"x\"\rk = \"v\"\r", "v", true},
		"byte order mark":             {"\xef\xbb\xbfk = \"v\"", "v", true},
		"last of two":                 {"k = \"1\"\nK = \"2\"\n", "2", true},
		"other bytes than UTF-8":      {"k = \"caf\xe9\"", "caf\xe9", true},
		"bare value of two words":     {`k = v w`, "", false},
		"text behind the quotes":      {`k = "v" w`, "", false},
		"quote left open":             {`k = "v`, "", false},
		"name of two words":           {`j k = "v"`, "", false},
		"no equals sign":              {`k`, "", false},
		"no name":                     {`= "v"`, "", false},
		"comment":                     {`# k = "v"`, "", false},
		"other key":                   {`kk = "v"`, "", false},
		"Kelvin sign is not letter K": {"\u212a = \"v\"", "", false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			f := parse(t, tt.text)
			got, ok := f.Get("k")
			if got != tt.want || ok != tt.ok {
				t.Errorf("Get(k) of %q: got %q, %v, want %q, %v", tt.text, got, ok, tt.want, tt.ok)
			}
			if b := f.Bytes(); string(b) != tt.text {
				t.Errorf("Bytes: got %q, want %q", b, tt.text)
			}
		})
	}
}

func TestParseErrors(t *testing.T) {
	for name, data := range map[string][]byte{
		"NUL byte":       []byte("k = \"v\"\x00\n"),
		"too long":       bytes.Repeat([]byte("a"), 1<<20+1),
		"too many lines": bytes.Repeat([]byte("\n"), 1<<16+1),
	} {
		if _, err := vmx.Parse(data); err == nil {
			t.Errorf("%s: got no error", name)
		}
	}
	if _, err := vmx.Parse(bytes.Repeat([]byte("a"), 1<<20)); err != nil {
		t.Errorf("1 MiB: %v", err)
	}
}

func TestBool(t *testing.T) {
	f := parse(t, "a = TRUE\nb = \"yes\"\nc = 1\nd = \"True\"\ne = \"FALSE\"\nf = \"no\"\ng = \"\"\nh = \"maybe\"\n")
	for key, want := range map[string]bool{
		"a": true, "b": true, "c": true, "D": true,
		"e": false, "f": false, "g": false, "h": false, "absent": false,
	} {
		if got := f.Bool(key); got != want {
			t.Errorf("Bool(%s): got %v, want %v", key, got, want)
		}
	}
}

// An edit of a real file changes the lines of its key and no other byte.
func TestEditsKeepOtherLines(t *testing.T) {
	f := parseFile(t, "workstation.vmx")
	before := string(f.Bytes())
	if err := f.Set("MEMSIZE", "4096"); err != nil {
		t.Fatal(err)
	}
	if err := f.Set("msg.autoAnswer", "TRUE"); err != nil {
		t.Fatal(err)
	}
	f.Delete("Parallel0.Present")
	f.DeleteFunc(func(key string) bool { return strings.HasPrefix(key, "ethernet1.") })

	want := strings.Replace(before, `memsize = "2048"`, `MEMSIZE = "4096"`, 1)
	want = strings.Replace(want, "parallel0.present = \"TRUE\"\r\n", "", 1)
	want = strings.Replace(want, "ethernet1.present = \"TRUE\"\r\n", "", 1)
	want += "msg.autoAnswer = \"TRUE\"\r\n"
	if diff := cmp.Diff(want, string(f.Bytes())); diff != "" {
		t.Errorf("after edits (-want +got):\n%s", diff)
	}
}

func TestSetTerminatesLastLine(t *testing.T) {
	f := parse(t, `a = "1"`)
	if err := f.Set("b", "2"); err != nil {
		t.Fatal(err)
	}
	if got, want := string(f.Bytes()), "a = \"1\"\nb = \"2\"\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestSetRemovesDuplicates(t *testing.T) {
	f := parse(t, "k = \"1\"\nj = \"x\"\nK = \"2\"\nk = \"3\"\nl = \"y\"\n")
	if err := f.Set("k", "4"); err != nil {
		t.Fatal(err)
	}
	if got, want := string(f.Bytes()), "j = \"x\"\nk = \"4\"\nl = \"y\"\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if diff := cmp.Diff([]string{"j", "k", "l"}, f.Keys()); diff != "" {
		t.Errorf("Keys (-want +got):\n%s", diff)
	}
}

// A value cannot set other keys. With govmx, which does not escape values, a display name could set the firmware.
func TestSetEscapes(t *testing.T) {
	for _, value := range []string{
		"x\"\nfirmware = \"bios", "x\r\nfirmware = \"bios\"", "x\rfirmware = bios\r", `x" # `, "|22|0Afirmware = 1",
		"|", "||", "|7", "\t tabs \t", "\x7f\x01", "a=b", "caf\xe9", "\u2028firmware = 1",
	} {
		f := parse(t, "firmware = \"efi\"\n")
		if err := f.Set("displayName", value); err != nil {
			t.Fatalf("Set(%q): %v", value, err)
		}
		again := parse(t, string(f.Bytes()))
		if got, _ := again.Get("displayName"); got != value {
			t.Errorf("got %q, want %q, in %q", got, value, f.Bytes())
		}
		if got, _ := again.Get("firmware"); got != "efi" || len(again.Keys()) != 2 {
			t.Errorf("Set(%q) made %q", value, f.Bytes())
		}
	}
}

func TestSetErrors(t *testing.T) {
	for name, kv := range map[string][2]string{
		"empty key":         {"", "v"},
		"blank in the key":  {"a b", "v"},
		"equals in the key": {"a=b", "v"},
		"line in the key":   {"a\nb", "v"},
		"key of letters":    {"caf\u00e9", "v"},
		"NUL":               {"k", "a\x00b"},
		"too much":          {"k", strings.Repeat("x", 1<<20)},
		"too much escaped":  {"k", strings.Repeat("|", 1<<19)},
	} {
		f := parse(t, "a = \"1\"")
		if err := f.Set(kv[0], kv[1]); err == nil {
			t.Errorf("%s: got no error", name)
		}
		if got := string(f.Bytes()); got != `a = "1"` {
			t.Errorf("%s: the file became %q", name, got)
		}
	}
}
