package e2e_test

import (
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"osx-builder/vm/vmtest/harness"
)

// manualQEMU is a QEMU that a shell script started, and a connection to its monitor.
type manualQEMU struct {
	*net.UnixConn
	b     *testing.B
	read  *json.Decoder
	ended chan struct{} // closed once the process has ended
	end   func()        // ends it and removes what is left of it
}

// launch runs a script and then QEMU in a folder for the index i, with a tap at the bridge, and waits for its monitor.
func (g *manualGuest) launch(i, bridge int, script string, args []string) *manualQEMU {
	g.b.Helper()
	dir, tap := filepath.Join(g.dir, strconv.Itoa(i)), tapOf(i)
	harness.Must(g.b, os.Mkdir(dir, 0o700))
	text := "ip tuntap add dev " + tap + " mode tap && ip link set " + tap + " master " + bridgeOf(bridge) + " up && " + script + " && exec '" +
		strings.Join(args, "' '") + "' >log 2>&1"
	cmd := exec.Command("sh", "-c", text)
	cmd.Dir = dir
	harness.Must(g.b, cmd.Start())
	q := &manualQEMU{b: g.b, ended: make(chan struct{})}
	go func() {
		defer close(q.ended)
		_ = cmd.Wait()
	}()
	q.end = sync.OnceFunc(func() {
		_ = cmd.Process.Kill()
		<-q.ended
		if q.UnixConn != nil {
			_ = q.Close()
		}
		_ = exec.Command("ip", "link", "del", tap).Run() // the script may have failed before
		harness.Must(g.b, os.RemoveAll(dir))
	})
	g.b.Cleanup(q.end)
	for end := time.Now().Add(harness.Timeout); time.Now().Before(end); time.Sleep(time.Millisecond) {
		conn, err := net.Dial("unix", filepath.Join(dir, "qmp"))
		select {
		case <-q.ended:
			end = time.Time{}
		default:
		}
		if err != nil {
			continue
		}
		q.UnixConn, q.read = conn.(*net.UnixConn), json.NewDecoder(conn)
		var greeting any
		if q.read.Decode(&greeting) != nil {
			break
		}
		q.ask("qmp_capabilities", nil, nil)
		return q
	}
	log, _ := os.ReadFile(filepath.Join(dir, "log"))
	g.b.Fatalf("QEMU does not start: %s: %s", text, log)
	return nil
}

// prepare makes QEMU leave out the memory, which is a file, and hands it the file of the state.
func (q *manualQEMU) prepare(state string, flag int) {
	q.b.Helper()
	capability := map[string]any{"capability": "x-ignore-shared", "state": true}
	q.ask("migrate-set-capabilities", map[string]any{"capabilities": []any{capability}}, nil)
	f, err := os.OpenFile(state, flag, 0o600)
	harness.Must(q.b, err)
	defer f.Close()
	q.ask("getfd", map[string]any{"fdname": "state"}, nil, int(f.Fd()))
}

// ask sends a command and descriptors, and reads its result.
func (q *manualQEMU) ask(command string, arguments, result any, descriptors ...int) {
	q.b.Helper()
	question := map[string]any{"execute": command}
	if arguments != nil {
		question["arguments"] = arguments
	}
	text, err := json.Marshal(question)
	harness.Must(q.b, err)
	var rights []byte
	if len(descriptors) > 0 {
		rights = unix.UnixRights(descriptors...)
	}
	_, _, err = q.WriteMsgUnix(text, rights, nil)
	harness.Must(q.b, err)
	for {
		var answer struct {
			Return json.RawMessage
			Error  *struct{ Desc string }
		}
		harness.Must(q.b, q.read.Decode(&answer))
		if answer.Error != nil {
			q.b.Fatalf("%s: %s", command, answer.Error.Desc)
		}
		if answer.Return == nil {
			continue // an event
		}
		if result != nil {
			harness.Must(q.b, json.Unmarshal(answer.Return, result))
		}
		return
	}
}
