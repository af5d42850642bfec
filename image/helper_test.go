package image_test

import (
	"bufio"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"osx-builder/image"
)

func itoa(n int) string { return strconv.Itoa(n) }

// helperEnv makes the test binary a helper process: one that can be killed, or
// whose memory can be measured. Its value says what to do, the arguments with
// what.
const helperEnv = "IMAGE_TEST_HELPER"

// helper does a helper process's work and reports whether this is one.
func helper(args []string) bool {
	var err error
	switch os.Getenv(helperEnv) {
	case "":
		return false
	case "ensure":
		err = helpEnsure(args[1], args[2], args[3])
	case "serve":
		err = helpServe(args[1])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	return true
}

func helpEnsure(dir, url, sum string) error {
	s, err := image.FindSum(sum)
	if err != nil {
		return err
	}
	c, err := image.Open(dir, image.Options{Limits: image.Limits{FreeBytes: -1}})
	if err != nil {
		return err
	}
	fmt.Println("started")
	g, err := c.Ensure(context.Background(), image.Source{URL: url, Sum: s}, nil)
	if err != nil {
		return err
	}
	fmt.Println(g.VMX)
	return c.Close()
}

// helpServe serves a folder until its standard input ends.
func helpServe(dir string) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println("http://" + l.Addr().String())
	s := &http.Server{Handler: http.FileServer(http.Dir(dir)), ReadHeaderTimeout: time.Minute}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		_ = s.Close()
	}()
	_ = s.Serve(l)
	return nil
}

// runHelper runs an Ensure in a process of its own and returns what it says.
func runHelper(t testing.TB, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], args...)
	cmd.Env = append(os.Environ(), helperEnv+"=ensure", "GORACE=atexit_sleep_ms=0")
	out, _ := cmd.CombinedOutput() // a failure is in what it says
	return string(out)
}

func pemOf(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// startHelper starts a helper process and returns it with its first line.
func startHelper(t testing.TB, what string, args ...string) (*exec.Cmd, string) {
	t.Helper()
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), helperEnv+"="+what, "GORACE=atexit_sleep_ms=0")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	must(t, err)
	in, err := cmd.StdinPipe()
	must(t, err)
	must(t, cmd.Start())
	t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Wait() // a test that cares has waited
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	must(t, err)
	return cmd, strings.TrimSpace(line)
}

// hasKind reports whether an error has one of the kinds that clients can match.
func hasKind(err error) bool {
	for _, kind := range []error{
		image.ErrDownload, image.ErrChecksum, image.ErrUnsafe, image.ErrInvalid, image.ErrDiskFull, image.ErrArchiveTooLarge,
		image.ErrTooLarge, image.ErrTooManyEntries, image.ErrPathTooDeep, image.ErrPathTooLong, image.ErrRatioTooHigh, image.ErrStalled,
	} {
		if errors.Is(err, kind) {
			return true
		}
	}
	return false
}
