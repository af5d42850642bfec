package main_test

import (
	"bufio"
	"crypto/sha1"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"osx-builder/vm/vmtest/e2e"
	"osx-builder/vm/vmtest/harness"
)

// exampleID is the machine of the documents' examples.
const exampleID = "282ee68a-2e4d-4bd7-9c0e-7f37e12fc489"

// TestCommandsInDocuments types what the documents ask a user to type, into one shell
// and in order: first README.md, from nothing to machines, last OPERATIONS.md,
// which removes everything. Only what names other places is replaced: images,
// callbacks, ports, the machine's id. Each block of JSON that follows has the
// fields of what was printed, in order, and the recipes for CI run as their
// jobs would. The blocks that need what a test does not have are left out; they
// are listed in needs.
func TestCommandsInDocuments(t *testing.T) {
	harness.Need(t, filepath.Join("build", harness.TinyVM))
	r := newReader(t)
	all := documents(t)
	last := slices.Index(all, "OPERATIONS.md")
	for _, d := range slices.Concat(all[:last], all[last+1:], all[last:last+1]) {
		if !t.Run(d, func(t *testing.T) { r.read(t, d) }) {
			return // what follows builds on it
		}
	}
	r.run(block{document: "the end"}, r.work, "wait %osx-builder 2>/dev/null || true")
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

// read types the blocks of one document.
func (r *reader) read(t *testing.T, document string) {
	outer := r.t
	r.t = t
	defer func() { r.t = outer }()
	all := blocks(t, document)
	for i, b := range all {
		switch {
		case b.needs != "":
		case b.kind == "json" && b.file != "":
			r.write(b.file, b.text)
			r.write("ci/vm.json", b.text)
		case b.kind == "yaml":
			r.run(b, r.work, recipe(b.text))
		case b.kind == "sh":
			dir := r.work
			if regexp.MustCompile(`(?m)^make `).MatchString(b.text) {
				dir = r.source
			}
			r.ready(b)
			out := r.run(b, dir, foreground(b.text))
			if i+1 < len(all) && strings.HasPrefix(all[i+1].kind, "json") && all[i+1].file == "" {
				r.compare(b, out, all[i+1])
			}
			if strings.Contains(b.text, "-X DELETE") {
				r.id = ""
			}
		}
	}
}

// compare compares the fields of what a block printed with those of the block
// after it. In one of jsonc, more fields may follow.
func (r *reader) compare(b block, out string, shown block) {
	r.t.Helper()
	got, want := fieldNames(out), fieldNames(shown.text)
	if shown.kind == "jsonc" {
		got = got[:min(len(got), len(want))]
	}
	if !slices.Equal(got, want) {
		r.t.Errorf("%s, line %d prints the fields %q, the document shows %q", b.document, b.line, got, want)
	}
	id := regexp.MustCompile(`"id": "([^"]+)"`).FindStringSubmatch(out)
	if id == nil {
		r.t.Fatalf("%s, line %d prints no machine: %s", b.document, b.line, out)
	}
	r.id = id[1]
}

// fieldNames lists the fields of an indented document, without those that
// depend on the host's network. Of a list of warnings, which depends on the image, it
// lists those of the first.
func fieldNames(text string) (names []string) {
	text = regexp.MustCompile(`(?s)("warnings": \[\s*\{.*?\}).*?\n  \]`).ReplaceAllString(text, "$1")
	for _, m := range regexp.MustCompile(`(?m)^ *"([a-z_]+)":`).FindAllStringSubmatch(text, -1) {
		if !slices.Contains([]string{"addresses", "port_forwards", "host", "guest"}, m[1]) {
			names = append(names, m[1])
		}
	}
	return names
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

// ready creates a machine for a block that names the example's, if the last one
// was destroyed, and destroys the last one before the daemon is stopped.
func (r *reader) ready(b block) {
	between := block{document: "before " + b.document, line: b.line}
	switch {
	case strings.Contains(b.text, exampleID) && r.id == "":
		r.id = strings.TrimSpace(r.run(between, r.work, "osx-builder create -f create.json --wait --field id"))
	case strings.HasPrefix(b.text, "kill") && r.id != "":
		r.run(between, r.work, "osx-builder delete "+r.id)
	}
}

// foreground ends what follows a stream as Ctrl-C would. A daemon that a user
// would run in a terminal of its own runs beside the rest of the block, on
// other data than the one that is there, and is stopped at the block's end.
func foreground(text string) string {
	text = regexp.MustCompile(`(?m)^curl -N .*$`).ReplaceAllString(text, `timeout 3 $0 || [ $$? = 124 ]`)
	daemon := regexp.MustCompile(`(?m)^osx-builder .*-listen .*$`)
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
	harness.Must(t, os.MkdirAll(filepath.Join(home, ".ssh"), 0o700))
	key := "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ9lCckkAxg+cGHVJkKcvLIScLHgzqhrQGVZhz9CpWxt user\n"
	harness.Must(t, os.WriteFile(filepath.Join(home, ".ssh", "id_ed25519.pub"), []byte(key), 0o600))
	harness.Must(t, os.WriteFile(filepath.Join(r.work, "setup.sh"), []byte("#!/bin/sh\ntouch /var/tmp/ready\n"), 0o600))
	port, other := fmt.Sprint(harness.FreePort(t)), fmt.Sprint(harness.FreePort(t))
	r.prepareImages()
	cert := exec.Command("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost",
		"-addext", "subjectAltName=DNS:localhost", "-keyout", "key.pem", "-out", "cert.pem")
	cert.Dir = r.work
	if out, err := cert.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v: %s", cert, err, out)
	}
	archive, err := os.ReadFile(filepath.Join("build", harness.TinyVM))
	harness.Must(t, err)
	freeAddress := func() string { return fmt.Sprintf("127.0.0.1:%d", harness.FreePort(t)) }
	r.replace = strings.NewReplacer(
		"https://example.com/images/debian-12.tar.gz", r.site.ImageURL(harness.TinyVM),
		"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08", fmt.Sprintf("%x", sha256.Sum256(archive)),
		"https://github.com/hooklift/boxes/releases/download/coreos-dev-20141126/coreos_developer_vmware.tar.gz", r.site.ImageURL(harness.TinyVM),
		"5cf00d380e28d02f30efaceafef7c7c8bdedae33", fmt.Sprintf("%x", sha1.Sum(archive)),
		"http://foo.com/myscript", r.site.CallbackURL(), "http://ci.example.com/hooks/vm", r.site.CallbackURL(),
		"127.0.0.1:12346", freeAddress(), "127.0.0.1:6060", freeAddress(), "127.0.0.1:8000", freeAddress(), "127.0.0.1:8001", freeAddress(),
		"localhost:12345", "localhost:"+port,
		"build.example.com:12345", "localhost:"+other, "build.example.com", "localhost", "0.0.0.0:12345", "0.0.0.0:"+other,
		"/run/osx-builder.sock", filepath.Join(home, "sock"),
		`"1gib"`, `"256mib"`, "--memory 1gib", "--memory 256mib", // leaves room for others on the host
	)
	r.start(append(cleanEnv(),
		"HOME="+home, "PATH="+filepath.Join(home, ".local/bin")+":"+os.Getenv("PATH"),
		"OSX_BUILDER_LISTEN=127.0.0.1:"+port, "OSX_BUILDER_HOST=http://127.0.0.1:"+port,
		"BUILDER=http://127.0.0.1:"+port, "BUILDER_TOKEN="+filepath.Join(home, "token"),
		"CURL_CA_BUNDLE="+filepath.Join(r.work, "cert.pem"),
	))
	return r
}

// prepareImages makes the folders that the examples pack: a machine of VMware
// Workstation, and a copy of a Vagrant box without a network card.
func (r *reader) prepareImages() {
	r.t.Helper()
	vmware, box := filepath.Join(r.home, "vmware/Debian 12"), filepath.Join(r.work, "box")
	for _, dir := range []string{vmware, box} {
		harness.Must(r.t, os.MkdirAll(dir, 0o755))
		unpack := exec.Command("tar", "-xzf", filepath.Join("build", harness.TinyVM), "--strip-components=1", "-C", dir)
		if out, err := unpack.CombinedOutput(); err != nil {
			r.t.Fatalf("%v: %v: %s", unpack, err, out)
		}
	}
	vmx := filepath.Join(box, "tinyvm.vmx")
	without := regexp.MustCompile(`(?m)^ethernet0.*\n`).ReplaceAllString(harness.ReadFile(r.t, vmx), "")
	harness.Must(r.t, os.WriteFile(vmx, []byte(without), 0o600))
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
	doneReader, doneWriter, err := os.Pipe()
	harness.Must(r.t, err)
	r.shell.ExtraFiles = []*os.File{doneWriter} // 3
	stderr, err := os.Create(r.stderr)
	harness.Must(r.t, err)
	r.shell.Stdout, r.shell.Stderr = stderr, stderr
	harness.Must(r.t, r.shell.Start())
	_, _ = doneWriter.Close(), stderr.Close()
	r.typed = func(text string) { _, _ = in.Write([]byte(text)) } // a shell that has ended tells by that
	go func() {
		for s := bufio.NewScanner(doneReader); s.Scan(); {
			r.done <- s.Text()
		}
	}()
	go func() {
		_ = r.shell.Wait()
		close(r.ended)
	}()
	r.typed("set -euo pipefail\n")
	r.t.Cleanup(func() { r.close(doneReader) })
}

// run types a block and returns what it printed on standard output.
func (r *reader) run(b block, dir, text string) string {
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
		r.t.Fatalf("%s, line %d: the shell ended at\n%s\n%s%s", b.document, b.line, text, harness.ReadFile(r.t, r.stdout), harness.ReadFile(r.t, r.stderr))
	case <-time.After(5 * time.Minute):
		r.t.Fatalf("%s, line %d: not done within 5 minutes:\n%s\n%s%s", b.document, b.line, text, harness.ReadFile(r.t, r.stdout), harness.ReadFile(r.t, r.stderr))
	}
	out := harness.ReadFile(r.t, r.stdout)
	r.t.Logf("%s, line %d (%v):\n%s\n%s", b.document, b.line, time.Since(began).Round(time.Millisecond), text, out)
	return out
}

func (r *reader) write(file, text string) {
	r.t.Helper()
	harness.Must(r.t, os.WriteFile(filepath.Join(r.work, file), []byte(r.replace.Replace(text)), 0o600))
}

// close ends what a failed test leaves: the shell, the daemon, machines.
func (r *reader) close(doneReader *os.File) {
	_ = syscall.Kill(-r.shell.Process.Pid, syscall.SIGKILL) // most often it is gone
	for _, trace := range e2e.Leftovers(filepath.Join(r.home, ".osx-builder")) {
		var pid int
		if _, err := fmt.Sscanf(trace, "process %d", &pid); err == nil {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	_ = doneReader.Close()
	r.site.Close()
	harness.Must(r.t, os.RemoveAll(r.home))
}
