package confine

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// Shell is the program that runs scripts under [Rules].
const Shell = "/bin/sh"

// Script returns a command that runs a shell script under r with the arguments args, in a session and with an
// environment of its own, which contains only env. The script gets the files from descriptor 3 on. Fields of the
// command that Script leaves unset are the caller's; [Run] runs it.
//
// The shell reads the script from its standard input, so that no list of processes shows it.
func Script(ctx context.Context, r Rules, script string, args, env []string, files ...*os.File) *exec.Cmd {
	cmd := exec.CommandContext(ctx, Shell, append([]string{"-s", "--"}, args...)...)
	cmd.Stdin = strings.NewReader(r.script() + script)
	cmd.Env = append([]string{}, env...) // not nil, which would be the daemon's own
	cmd.ExtraFiles = files
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.WaitDelay = time.Second
	return cmd
}

// Output runs cmd like [Run] and returns what it writes to its standard output and standard error, without white space
// around it.
func Output(cmd *exec.Cmd, r Rules) (string, error) {
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := Run(cmd, r)
	return strings.TrimSpace(out.String()), err
}

// Quote quotes a command line for a script.
func Quote(argv []string) string {
	var words []string
	for _, a := range argv {
		words = append(words, "'"+strings.ReplaceAll(a, "'", `'\''`)+"'")
	}
	return strings.Join(words, " ")
}
