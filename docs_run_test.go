package main_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"osx-builder/vm/vmtest/harness"

	"osx-builder/vm/vmtest/e2e"
)

// exampleID is the machine of README's examples.
const exampleID = "282ee68a-2e4d-4bd7-9c0e-7f37e12fc489"

// TestReadme types what README tells a user to type, into one shell and in
// order: from nothing to machines and back. Only what names other places is
// replaced: the image, the callback, the daemon's port, the machine's id. Each
// block of JSON that follows has the fields of what was printed, in order, and
// the recipes for CI run as their jobs would.
func TestReadme(t *testing.T) {
	harness.Need(t, filepath.Join("build", harness.TinyVM))
	r := newReader(t)
	blocks := readmeBlocks(t)
	for i, b := range blocks {
		switch {
		case b.kind == "json" && b.file != "":
			r.write(b.file, b.text)
			r.write("ci/vm.json", b.text)
		case b.kind == "yaml":
			r.run(b.line, r.work, recipe(b.text))
		case b.kind == "sh":
			dir := r.work
			if regexp.MustCompile(`(?m)^make `).MatchString(b.text) {
				dir = r.source
			}
			r.ready(b.text)
			out := r.run(b.line, dir, foreground(b.text))
			if i+1 < len(blocks) && blocks[i+1].kind == "json" && blocks[i+1].file == "" {
				sameFields(t, fmt.Sprintf("what README's line %d prints", b.line), out, blocks[i+1].text)
				r.id = regexp.MustCompile(`"id": "([^"]+)"`).FindStringSubmatch(out)[1]
			}
			if strings.Contains(b.text, "-X DELETE") {
				r.id = ""
			}
		}
	}
	r.run(0, r.work, "wait")
	if left := e2e.Leftovers(filepath.Join(r.home, ".osx-builder")); len(left) > 0 {
		t.Errorf("left behind: %s", strings.Join(left, ", "))
	}
	if _, err := os.Stat(filepath.Join(r.home, ".local/bin/osx-builder")); err == nil {
		t.Error("make uninstall left the program")
	}
	if n := len(r.site.Callbacks); n == 0 {
		t.Error("got no callback")
	}
}

// block is a fenced one of README.
type block struct {
	kind, text string
	line       int
	file       string // that the text before says to write it to
}

func readmeBlocks(t *testing.T) (all []block) {
	t.Helper()
	var now *block
	file, number := "", 0
	for line := range strings.Lines(harness.ReadFile(t, "README.md")) {
		number++
		fence, isFence := strings.CutPrefix(strings.TrimRight(line, "\n"), "```")
		switch {
		case isFence && now == nil:
			now = &block{kind: fence, line: number, file: file}
		case isFence:
			all = append(all, *now)
			now, file = nil, ""
		case now != nil:
			now.text += line
			if strings.HasPrefix(line, "$ ") {
				t.Errorf("README, line %d: what a user types belongs into a block of sh, without a prompt", number)
			}
		case strings.TrimSpace(line) != "":
			file = ""
			if m := regexp.MustCompile("into `([a-z.]+)`:$").FindStringSubmatch(strings.TrimSpace(line)); m != nil {
				file = m[1]
			}
		}
	}
	return all
}

// recipe takes the commands out of a CI recipe. Those that install the Debian
// package and start its service are TestDist's.
func recipe(yaml string) string {
	commands := `ssh() { echo "ssh $*"; }` + "\n"
	for _, m := range regexp.MustCompile(`(?m)^\s*(?:- )?(?:run: )?((?:osx-builder|curl|jq|ssh) .*)$`).FindAllStringSubmatch(yaml, -1) {
		if !strings.Contains(m[1], "PACKAGE_URL") {
			commands += m[1] + "\n"
		}
	}
	return commands
}

// ready makes a machine for a block that names the example's, where the last was
// destroyed, and destroys the last before the daemon is stopped.
func (r *reader) ready(text string) {
	switch {
	case strings.Contains(text, exampleID) && r.id == "":
		r.id = strings.TrimSpace(r.run(0, r.work, "osx-builder create -f create.json --wait --field id"))
	case strings.HasPrefix(text, "kill") && r.id != "":
		r.run(0, r.work, "osx-builder delete "+r.id)
	}
}

// foreground ends what follows a stream as Ctrl-C would. It runs beside the rest of a block the daemon that a user would run
// in a terminal of its own, on other data than the one that is there, and stops
// it at the block's end.
func foreground(text string) string {
	text = regexp.MustCompile(`(?m)^curl -N .*$`).ReplaceAllString(text, `timeout 3 $0 || [ $$? = 124 ]`)
	daemon := regexp.MustCompile(`(?m)^osx-builder -.*$`)
	if !daemon.MatchString(text) {
		return text
	}
	return "rm -f ~/other.log\n" + daemon.ReplaceAllString(text, `$0 -data ~/other 2>~/other.log &
until grep msg=listening ~/other.log; do kill -0 %%; sleep 0.1; done >&2`) + "kill %%\nwait %%\n"
}

// reader is a user at a shell.
type reader struct {
	t                      *testing.T
	home, work, source, id string
	site                   *e2e.Site
	shell                  *exec.Cmd
	ended                  chan struct{} // closed when the shell has ended
	stdout, stderr         string        // files
	typed                  func(string)
	done                   chan string // a line after each block
	replace                *strings.Replacer
}

func newReader(t *testing.T) *reader {
	t.Helper()
	home, err := os.MkdirTemp("", "osxb") // short: sockets will be in it
	harness.Must(t, err)
	source, err := os.Getwd()
	harness.Must(t, err)
	r := &reader{
		t: t, home: home, work: filepath.Join(home, "work"), source: source, site: e2e.NewSite("build"),
		stdout: filepath.Join(home, "stdout"), stderr: filepath.Join(home, "stderr"),
		ended: make(chan struct{}), done: make(chan string, 1),
	}
	harness.Must(t, os.MkdirAll(filepath.Join(r.work, "ci"), 0o755))
	harness.Must(t, os.WriteFile(filepath.Join(home, "token"), []byte("0123456789abcdef\n"), 0o600))
	port, other := fmt.Sprint(harness.FreePort(t)), fmt.Sprint(harness.FreePort(t))
	cert := exec.Command("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost",
		"-addext", "subjectAltName=DNS:localhost", "-keyout", "key.pem", "-out", "cert.pem")
	cert.Dir = r.work
	if out, err := cert.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v: %s", cert, err, out)
	}
	sum, err := e2e.SHA256(filepath.Join("build", harness.TinyVM))
	harness.Must(t, err)
	r.replace = strings.NewReplacer(
		"https://example.com/images/debian-12.tar.gz", r.site.ImageURL(harness.TinyVM),
		"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08", sum,
		"http://ci.example.com/hooks/vm", r.site.CallbackURL(),
		"localhost:12345", "localhost:"+port,
		"build.example.com:12345", "localhost:"+other, "build.example.com", "localhost", "0.0.0.0:12345", "0.0.0.0:"+other,
		"/run/osx-builder.sock", filepath.Join(home, "sock"),
		`"1gib"`, `"256mib"`, // leaves room for others on the host
	)
	r.start(append(cleanEnv(),
		"HOME="+home, "PATH="+filepath.Join(home, ".local/bin")+":"+os.Getenv("PATH"),
		"OSX_BUILDER_LISTEN=127.0.0.1:"+port, "OSX_BUILDER_HOST=http://127.0.0.1:"+port,
		"BUILDER=http://127.0.0.1:"+port, "BUILDER_TOKEN="+filepath.Join(home, "token"),
		"CURL_CA_BUNDLE="+filepath.Join(r.work, "cert.pem"),
	))
	return r
}

// cleanEnv is this process's environment without what make leaves to the makes
// that it runs, and with Go's caches where they are, whatever HOME is.
func cleanEnv() (env []string) {
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "MAKE") && !strings.HasPrefix(v, "MFLAGS") && !strings.HasPrefix(v, "OSX_BUILDER_") {
			env = append(env, v)
		}
	}
	for _, name := range []string{"GOPATH", "GOCACHE", "GOMODCACHE"} {
		if value, err := exec.Command("go", "env", name).Output(); err == nil {
			env = append(env, name+"="+strings.TrimSpace(string(value)))
		}
	}
	return append(env, "OSX_BUILDER_E2E_ISOLATED="+os.Getenv("OSX_BUILDER_E2E_ISOLATED"))
}

// start opens the shell. It ends with the first command that fails.
func (r *reader) start(env []string) {
	r.shell = exec.Command("bash")
	r.shell.Env = env
	r.shell.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	in, err := r.shell.StdinPipe()
	harness.Must(r.t, err)
	told, tell, err := os.Pipe()
	harness.Must(r.t, err)
	r.shell.ExtraFiles = []*os.File{tell} // 3
	stderr, err := os.Create(r.stderr)
	harness.Must(r.t, err)
	r.shell.Stdout, r.shell.Stderr = stderr, stderr
	harness.Must(r.t, r.shell.Start())
	_, _ = tell.Close(), stderr.Close()
	r.typed = func(text string) { _, _ = in.Write([]byte(text)) } // a shell that has ended tells by that
	go func() {
		for s := bufio.NewScanner(told); s.Scan(); {
			r.done <- s.Text()
		}
	}()
	go func() {
		_ = r.shell.Wait()
		close(r.ended)
	}()
	r.typed("set -euo pipefail\n")
	r.t.Cleanup(func() { r.close(told) })
}

// run types a block and returns what it printed on standard output.
func (r *reader) run(line int, dir, text string) string {
	r.t.Helper()
	text = r.replace.Replace(text)
	if r.id != "" {
		text = strings.ReplaceAll(text, exampleID, r.id)
	}
	began := time.Now()
	r.typed(fmt.Sprintf("cd %s; exec >%s\n%s\necho >&3\n", dir, r.stdout, text))
	select {
	case <-r.done:
	case <-r.ended:
		r.t.Fatalf("README, line %d: the shell ended at\n%s\n%s%s", line, text, harness.ReadFile(r.t, r.stdout), harness.ReadFile(r.t, r.stderr))
	case <-time.After(5 * time.Minute):
		r.t.Fatalf("README, line %d: not done within 5 minutes:\n%s\n%s%s", line, text, harness.ReadFile(r.t, r.stdout), harness.ReadFile(r.t, r.stderr))
	}
	out := harness.ReadFile(r.t, r.stdout)
	r.t.Logf("README, line %d (%v):\n%s\n%s", line, time.Since(began).Round(time.Millisecond), text, out)
	return out
}

func (r *reader) write(file, text string) {
	r.t.Helper()
	harness.Must(r.t, os.WriteFile(filepath.Join(r.work, file), []byte(r.replace.Replace(text)), 0o600))
}

// close ends what a failed test leaves: the shell, the daemon, machines.
func (r *reader) close(told *os.File) {
	_ = syscall.Kill(-r.shell.Process.Pid, syscall.SIGKILL) // most often it is gone
	for _, trace := range e2e.Leftovers(filepath.Join(r.home, ".osx-builder")) {
		var pid int
		if _, err := fmt.Sscanf(trace, "process %d", &pid); err == nil {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	_ = told.Close()
	r.site.Close()
	harness.Must(r.t, os.RemoveAll(r.home))
}
