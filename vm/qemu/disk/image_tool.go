package disk

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"

	"osx-builder/vm/qemu/confine"
)

const (
	// toolMemory bounds the address space of a qemu-img. It maps about 120 MiB, and 8 MiB for the stack of each of up to
	// 64 threads. It starts more threads the slower the host's disk is, and aborts if it cannot start one, so all of them
	// must fit.
	toolMemory = 1 << 30

	// oneArena makes the C library of qemu-img allocate from one arena. Otherwise each thread may reserve 64 MiB for an
	// arena of its own, so that a dozen threads exceed toolMemory.
	oneArena = "MALLOC_ARENA_MAX=1"

	// toolUser is the user and group of every qemu-img of a root daemon. Systems give the numbers from 0x70000000 on to
	// nobody, and machines have lower ones.
	toolUser = 0x7100_0000

	// toolProcesses bounds the processes and threads of all qemu-imgs together.
	toolProcesses = 2000
)

// imageTool is a qemu-img to run. It opens nothing but the files that it was given, of which it may change target only.
type imageTool struct {
	files  []*os.File
	target *os.File // also in files; nil: it writes no file

	seconds int64 // of processor time
	bytes   int64 // up to which it may write the target
}

// firstToolFile is the descriptor of the first of imageTool's files.
const firstToolFile = 3

// give adds a file and returns the name under which qemu-img opens it. It takes f over.
func (t *imageTool) give(f *os.File) string {
	t.files = append(t.files, f)
	return descriptorPath(firstToolFile + len(t.files) - 1)
}

// giveTarget adds the file that qemu-img writes. The caller closes it.
func (t *imageTool) giveTarget(f *os.File) string {
	t.target = f
	t.files = append(t.files, f)
	return descriptorPath(firstToolFile + len(t.files) - 1)
}

// descriptorPath returns a file name that stands for an open file.
func descriptorPath(n int) string {
	if runtime.GOOS == "linux" {
		return fmt.Sprintf("/proc/self/fd/%d", n)
	}
	return fmt.Sprintf("/dev/fd/%d", n)
}

// close closes the files except for the target.
func (t *imageTool) close() {
	for _, f := range t.files {
		if f != t.target {
			f.Close()
		}
	}
}

// run runs qemu-img and returns its output and standard error. what is for the error, which is a *CommandError.
func (t *imageTool) run(ctx context.Context, what string, args ...string) (out string, err error) {
	defer func() {
		if err != nil {
			err = &CommandError{What: what, Stderr: out, Err: err}
		}
	}()
	path, err := toolPath()
	if err != nil {
		return "", err
	}
	rules := t.rules(path)
	if t.target != nil && rules.User != 0 {
		// qemu-img opens the file again by its descriptor's name, which needs the right to.
		if err := t.target.Chown(rules.User, rules.User); err != nil {
			return "", err
		}
		defer func() { err = errors.Join(err, t.target.Chown(os.Geteuid(), os.Getegid())) }()
	}
	script := "exec " + confine.Quote([]string{path}) + ` "$@"` + "\n"
	out, err = confine.Output(confine.Script(ctx, rules, script, args, []string{oneArena}, t.files...), rules)
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return out, err
}

func (t *imageTool) rules(path string) confine.Rules {
	r := confine.Rules{
		Execute: []string{path, filepath.Join(filepath.Dir(path), "..", "lib"), "/nix/store", "/gnu/store"},
		Limits:  confine.Limits{Memory: toolMemory, Seconds: t.seconds, FileSize: t.bytes, Processes: toolProcesses},
	}
	if os.Geteuid() == 0 {
		r.User = toolUser
	}
	for _, f := range t.files {
		path := descriptorPath(int(f.Fd())) // #nosec G115
		if f == t.target {
			r.Write = append(r.Write, path)
		} else {
			r.Read = append(r.Read, path)
		}
	}
	return r
}

// toolPath returns the absolute path of qemu-img, without symbolic links.
func toolPath() (string, error) {
	path, err := exec.LookPath(Tool)
	if err == nil {
		path, err = filepath.Abs(path)
	}
	if err == nil {
		path, err = filepath.EvalSymlinks(path)
	}
	return path, err
}
