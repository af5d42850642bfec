package main_test

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os/exec"
	"path"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/tailscale/hujson"

	"osx-builder/api"
	"osx-builder/config"
	"osx-builder/vm"
	"osx-builder/vm/vmtest/harness"
)

// topLevel lists the documents that the top level may have. All others are next
// to the code that they describe.
var topLevel = []string{"CHANGELOG.md", "CONTRIBUTING.md", "OPERATIONS.md", "README.md", "SECURITY.md"}

// needs are the comments <!-- needs: NAME --> that blocks of sh may have, with
// the reason why such a block does not run in a test. Its syntax is checked.
var needs = map[string]string{
	"a fresh Debian":   "it installs packages and Go from the Internet, and clones the repository",
	"macOS":            "it uses Xcode and Homebrew",
	"VMware":           "VMware is not installed",
	"a guest":          "it is typed into a guest, which it shuts down",
	"Packer":           "Packer needs VMware",
	"VMware's ovftool": "it exports a machine of a vCenter",
	"Vagrant":          "Vagrant downloads a box from the Internet",
	"a pool":           "TestPool runs such a daemon, which prepares machines in the background",
	"cross compilers":  "it builds programs for other systems, which takes minutes",
	"Docker":           "it changes the firewall of a host with Docker",
}

// block is a fenced block of a document.
type block struct {
	document   string
	kind, text string
	line       int    // of its fence
	file       string // that the text before says to write it to
	needs      string // from the comment before
}

var (
	needsComment = regexp.MustCompile(`^<!-- needs: (.*) -->$`)
	writeTo      = regexp.MustCompile("into `([a-z.]+)`:$")
)

// documents lists the project's documents, README.md first.
func documents(t *testing.T) (all []string) {
	t.Helper()
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (path == "build" || path == ".git"):
			return fs.SkipDir
		case strings.HasSuffix(path, ".md"):
			all = append(all, filepath.ToSlash(path))
		}
		return nil
	})
	harness.Must(t, err)
	if len(all) < 10 || !slices.Contains(all, "README.md") {
		t.Fatalf("got documents %q", all)
	}
	slices.SortStableFunc(all, func(a, b string) int { return strings.Count(a, "/") - strings.Count(b, "/") })
	i := slices.Index(all, "README.md")
	return slices.Concat([]string{"README.md"}, all[:i], all[i+1:])
}

// blocks returns the fenced blocks of a document.
func blocks(t *testing.T, document string) (all []block) {
	t.Helper()
	var current *block
	next, number := block{document: document}, 0
	for line := range strings.Lines(harness.ReadFile(t, document)) {
		number++
		text := strings.TrimSpace(line)
		fence, isFence := strings.CutPrefix(text, "```")
		switch {
		case isFence && current == nil:
			next.kind, next.line = fence, number
			current = &next
		case isFence:
			all = append(all, *current)
			current, next = nil, block{document: document}
		case current != nil:
			current.text += line
		case needsComment.MatchString(text):
			next.needs = needsComment.FindStringSubmatch(text)[1]
		case text != "":
			next = block{document: document}
			if m := writeTo.FindStringSubmatch(text); m != nil {
				next.file = m[1]
			}
		}
	}
	if current != nil {
		t.Errorf("%s, line %d: the block does not end", document, current.line)
	}
	return all
}

func TestDocumentsAtTheTop(t *testing.T) {
	for _, d := range documents(t) {
		if !strings.Contains(d, "/") && !slices.Contains(topLevel, d) {
			t.Errorf("%s is at the top level; move it next to the code that it describes", d)
		}
	}
	if n := strings.Count(harness.ReadFile(t, "README.md"), "\n"); n > 200 {
		t.Errorf("README.md has %d lines, want at most 200; the long chapters are next to their code", n)
	}
}

// Every block has a language and holds what the language says.
func TestDocumentBlocks(t *testing.T) {
	used := map[string]bool{}
	for _, d := range documents(t) {
		for _, b := range blocks(t, d) {
			switch b.kind {
			case "sh":
				checkShell(t, b, b.text)
			case "yaml":
				checkShell(t, b, recipe(b.text))
			case "json", "jsonc":
				if plain, err := hujson.Standardize([]byte(b.text)); err != nil || !json.Valid(plain) {
					t.Errorf("%s, line %d: %v in\n%s", d, b.line, err, b.text)
				}
			case "text", "mermaid", "hcl":
			default:
				t.Errorf("%s, line %d: no test knows blocks of %q", d, b.line, b.kind)
			}
			used[b.needs] = true
			if b.needs != "" && needs[b.needs] == "" {
				t.Errorf("%s, line %d: the test does not know why this block cannot run: it needs %q", d, b.line, b.needs)
			}
		}
	}
	for name := range needs {
		if !used[name] {
			t.Errorf("no block needs %q", name)
		}
	}
}

func checkShell(t *testing.T, b block, text string) {
	t.Helper()
	if regexp.MustCompile(`(?m)^\$ `).MatchString(text) {
		t.Errorf("%s, line %d: a block of %s has no prompts", b.document, b.line, b.kind)
	}
	cmd := exec.Command("bash", "-n")
	cmd.Stdin = strings.NewReader(text)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%s, line %d: %v: %s", b.document, b.line, err, out)
	}
}

// Links between documents lead to files and headings that exist.
func TestDocumentLinks(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)\s]+)\)`)
	for _, d := range documents(t) {
		for _, m := range link.FindAllStringSubmatch(harness.ReadFile(t, d), -1) {
			target, anchor, _ := strings.Cut(m[1], "#")
			if strings.Contains(target, ":") {
				continue // another site's
			}
			file := d
			if target != "" {
				file = path.Join(path.Dir(d), target)
			}
			text := harness.ReadFile(t, file)
			if anchor != "" && !slices.Contains(anchors(text), anchor) {
				t.Errorf("%s: the link %s leads to no heading of %s, which has %q", d, m[1], file, anchors(text))
			}
		}
	}
}

// anchors returns what GitHub makes of a document's headings.
func anchors(text string) (all []string) {
	for _, m := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(text, -1) {
		heading := strings.ToLower(strings.TrimSpace(m[1]))
		heading = regexp.MustCompile(`[^\p{L}\p{N} _-]`).ReplaceAllString(heading, "")
		all = append(all, strings.ReplaceAll(heading, " ", "-"))
	}
	return all
}

// Documents use words that a reader of technical English expects.
func TestDocumentWords(t *testing.T) {
	odd := regexp.MustCompile(`(?i)\b(anew|whoever's|to be had|is held against|all else|else it|tells)\b`)
	for _, d := range documents(t) {
		for _, word := range odd.FindAllString(harness.ReadFile(t, d), -1) {
			t.Errorf("%s says %q", d, word)
		}
	}
}

// api/README.md explains every error code with its status.
func TestDocumentedCodes(t *testing.T) {
	text := harness.ReadFile(t, "api/README.md")
	row := regexp.MustCompile("(?m)^\\| `([a-z-]+)` \\| (\\d{3}) \\|")
	statuses, explained := api.Statuses(), map[vm.Code]bool{}
	for _, m := range row.FindAllStringSubmatch(text, -1) {
		code := vm.Code(m[1])
		explained[code] = true
		if strconv.Itoa(statuses[code]) != m[2] {
			t.Errorf("api/README.md says that %s has status %s, it has %d", code, m[2], statuses[code])
		}
	}
	for code := range statuses {
		if !explained[code] {
			t.Errorf("api/README.md does not explain %s", code)
		}
	}
}

// config/README.md explains every setting that -help explains, with its
// variable.
func TestDocumentedSettings(t *testing.T) {
	_, err := config.Load([]string{"-help"}, func(string) string { return "" })
	help := new(config.HelpError)
	if !errors.As(err, &help) {
		t.Fatalf("-help: got %v", err)
	}
	text := harness.ReadFile(t, "config/README.md")
	settings := regexp.MustCompile(`(?ms)^ +-([a-z-]+).*?(?:\n\n|\z)`).FindAllStringSubmatch(help.Text, -1)
	if len(settings) < 10 {
		t.Fatalf("-help has %d settings: %s", len(settings), help.Text)
	}
	for _, m := range settings {
		want := "(?m)^\\|.*`-" + m[1] + "`.*\\|"
		if v := regexp.MustCompile(`Variable (\w+)\.\s+Default (\S+)\.`).FindStringSubmatch(m[0]); v != nil {
			want += ".*`" + v[1] + "`.*\\| `?" + regexp.QuoteMeta(v[2]) + "`? \\|"
		}
		if !regexp.MustCompile(want).MatchString(text) {
			t.Errorf("config/README.md does not explain -%s, its variable and its default: no line matches %s", m[1], want)
		}
	}
}

// The diagram in vm/README.md has every phase of a machine's life, and no other.
func TestDocumentedPhases(t *testing.T) {
	diagram := regexp.MustCompile("(?s)```mermaid\n(.*?)```").FindString(harness.ReadFile(t, "vm/README.md"))
	shown := make(map[vm.Phase]bool)
	for _, m := range regexp.MustCompile(`(?m)^\s+(\S+) --> ([^:\s]+)`).FindAllStringSubmatch(diagram, -1) {
		for _, word := range m[1:] {
			shown[vm.Phase(word)] = true
		}
	}
	delete(shown, "[*]")
	delete(shown, "creation")
	for _, p := range vm.Phases() {
		if !shown[p] {
			t.Errorf("the diagram does not show %s", p)
		}
		delete(shown, p)
	}
	if len(shown) > 0 {
		t.Errorf("the diagram shows %v, which are no phases", shown)
	}
}

// api/README.md explains every field of a request and of a machine's document.
func TestDocumentedFields(t *testing.T) {
	text := harness.ReadFile(t, "api/README.md")
	for _, v := range []any{vm.Request{}, vm.VM{}} {
		for field := range reflect.TypeOf(v).Fields() {
			name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
			if name == "-" {
				continue
			}
			if !strings.Contains(text, "`"+name+"`") && !strings.Contains(text, "`"+name+".") && !strings.Contains(text, `"`+name+`":`) {
				t.Errorf("api/README.md does not explain %s", name)
			}
		}
	}
}
