package token_test

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"osx-builder/api/token"
	"osx-builder/config"
)

const (
	first  = "first-token-0123456789"
	second = "second-token-0123456789"
)

// tokenFile is a file of tokens that can be written again.
type tokenFile struct {
	t    *testing.T
	path string
	*token.File
}

func openFile(t *testing.T, text string) *tokenFile {
	t.Helper()
	f := &tokenFile{t: t, path: filepath.Join(t.TempDir(), "tokens")}
	f.write(text)
	var err error
	f.File, err = token.Open(config.SecretFile(f.path, slog.New(slog.DiscardHandler)))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func (f *tokenFile) write(text string) {
	f.t.Helper()
	if err := os.WriteFile(f.path, []byte(text), 0o600); err != nil {
		f.t.Fatal(err)
	}
}

// check checks which tokens are valid.
func (f *tokenFile) check(when string, want map[string]bool) {
	f.t.Helper()
	for text, w := range want {
		if _, ok := f.Find(text); ok != w {
			f.t.Errorf("%s: token %q is valid: %v, want %v", when, text, ok, w)
		}
	}
}

// Tokens can be rotated: the file may hold both. An invalid file changes nothing.
func TestRotation(t *testing.T) {
	f := openFile(t, "# of the build farm\n\n  "+first+"\r\n")
	f.check("at first", map[string]bool{
		first: true, second: false, "": false, first[:21]: false, first + "x": false, " " + first: false,
		"# of the build farm": false, strings.ToUpper(first): false,
	})
	f.write(first + "\n" + second)
	f.check("before it is read again", map[string]bool{first: true, second: false})
	if err := f.Reload(); err != nil {
		t.Error(err)
	}
	f.check("with both", map[string]bool{first: true, second: true})
	f.write(second + " name=ci")
	if err := f.Reload(); err != nil {
		t.Error(err)
	}
	f.check("with the second", map[string]bool{first: false, second: true, second + " name=ci": false, "name=ci": false})
	f.write("short")
	if err := f.Reload(); err == nil || strings.Contains(err.Error(), "short") {
		t.Errorf("an invalid file: got %v, want an error without its content", err)
	}
	f.check("after an invalid file", map[string]bool{first: false, second: true})
}

// A line can give a token a name and scopes, in any order.
func TestNamesAndScopes(t *testing.T) {
	full := []token.Scope{token.Admin}
	for line, want := range map[string]token.Token{
		first:                                  {Scopes: full},
		first + " name=ci":                     {Name: "ci", Scopes: full},
		first + "  name=ci.2 \t scopes=read":   {Name: "ci.2", Scopes: []token.Scope{token.Read}},
		first + " scopes=create,own name=A_-1": {Name: "A_-1", Scopes: []token.Scope{token.Create, token.Own}},
	} {
		got, ok := openFile(t, line).Find(first)
		if !ok || got.Name != want.Name || !slices.Equal(got.Scopes, want.Scopes) {
			t.Errorf("%s: got %v, %v, want %v", line, got, ok, want)
		}
	}
}

// Errors name the line of an invalid token, and contain nothing of the line.
func TestInvalidFiles(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"empty":             {"", "is empty"},
		"comments only":     {"# none\n\n", "is empty"},
		"too short":         {"#\nfifteen-letters", "line 2: a token must have at least 16"},
		"name first":        {"name=ci " + first, "line 1: a token must have at least 16"},
		"name as a word":    {"continuous-integration " + first, "line 1: only name=NAME and scopes=SCOPE,... may follow the token"},
		"words":             {first + " word ci", "line 1: only name=NAME"},
		"not ASCII":         {"töken-0123456789abc", "line 1: a token must have"},
		"large":             {strings.Repeat("x", 65<<10), "larger than"},
		"empty name":        {first + " name=", "line 1: a token's name must have 1 to 63"},
		"long name":         {first + " name=" + strings.Repeat("x", 64), "line 1: a token's name must have"},
		"a token as name":   {first + " name=" + second + "/", "line 1: a token's name must have"},
		"no scopes":         {first + " name=ci scopes=", "line 1: scopes= must be followed by read, create, own or admin"},
		"an unknown scope":  {first + " name=ci scopes=read," + second, "line 1: scopes= must be followed by"},
		"scopes twice":      {first + " name=ci scopes=read scopes=own", "line 1: name= and scopes= may be given once"},
		"scopes and noname": {first + " scopes=read", "line 1: a token with scopes needs a name"},
		"a token twice":     {first + "\n" + first + " name=ci", "line 2: this token is on an earlier line too"},
	} {
		path := filepath.Join(t.TempDir(), "tokens")
		if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := token.Open(config.SecretFile(path, slog.New(slog.DiscardHandler)))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q in it", name, err, c.want)
			continue
		}
		for word := range strings.FieldsSeq(c.text) {
			if len(word) > 10 && strings.Contains(err.Error(), word) {
				t.Errorf("%s: the error contains %q: %v", name, word, err)
			}
		}
	}
}

// Without scopes a token allows nothing; admin allows everything.
func TestHas(t *testing.T) {
	if (token.Token{}).Has(token.Scopes()...) {
		t.Error("a token without scopes allows something")
	}
	if reader := (token.Token{Scopes: []token.Scope{token.Read}}); reader.Has(token.Own, token.Create, token.Admin) || !reader.Has(token.Own, token.Read) {
		t.Error("the scope read allows more or less than read")
	}
	if !token.Full().Has() || !token.Full().Has(token.Own) {
		t.Error("a full token does not allow everything")
	}
	if _, err := token.Open(func(func(string) error) error { return errors.New("no file") }); err == nil || !strings.Contains(err.Error(), "-token-file") {
		t.Errorf("got %v, want an error that names the setting", err)
	}
}
