package vm_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"osx-builder/vm"
)

// planted is in the keys and the user data of these tests, and must show up nowhere else.
const planted = "pl4nted-s3cret"

// publicKey returns a line of an authorized_keys file.
func publicKey(t *testing.T, comment string) string {
	t.Helper()
	public, _, err := ed25519.GenerateKey(nil)
	must(t, err)
	key, err := ssh.NewPublicKey(public)
	must(t, err)
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key))) + " " + comment
}

// Keys and user data reach the driver, and otherwise are only in the machine's record, which only the daemon's user reads
// and which goes with the machine, even if a callback stays.
func TestGuestConfigIsSecret(t *testing.T) {
	h := newHarness(t)
	var log lockedBuffer
	h.options = func(o *vm.Options) {
		o.Log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	h.open()
	l := h.listen("")
	key := publicKey(t, planted)
	q := h.request()
	q.SSHAuthorizedKeys, q.Hostname, q.UserData = []string{key + "\n"}, "web.example.com", "#!/bin/sh\necho "+planted
	v, err := h.vms.Create(t.Context(), q, "key")
	must(t, err)
	again, err := h.vms.Create(t.Context(), q, "key")
	must(t, err)
	other := q
	other.UserData += "!"
	_, conflict := h.vms.Create(t.Context(), other, "key")
	wantCode(t, "other user data", conflict, vm.CodeIdempotencyConflict)
	ready := h.delivered(v.ID)
	list, err := h.vms.List(t.Context(), vm.Filter{}, everyone)
	must(t, err)
	heard := until(t, l, "ready", phase(vm.Ready))
	if again.ID != v.ID || ready.Phase != vm.Ready || ready.Hostname != "web.example.com" {
		t.Errorf("got %+v and %+v, want one machine that is ready", again, ready)
	}
	for what, value := range map[string]any{"answers": []any{v, again, ready, list}, "events": heard, "an error": conflict.Error()} {
		text, err := json.Marshal(value)
		must(t, err)
		if len(text) < 20 || strings.Contains(string(text), planted) {
			t.Errorf("%s are empty or have the secret: %s", what, text)
		}
	}
	if log.count(v.ID) == 0 || log.count(planted) != 0 {
		t.Errorf("the log has %d lines of the machine, and %d with the secret", log.count(v.ID), log.count(planted))
	}
	record := filepath.Join("vms", v.ID+".json")
	if got := h.filesWith(planted); !slices.Equal(got, []string{record}) {
		t.Errorf("the secret is in %q, want %q only", got, record)
	}
	if info, err := os.Stat(filepath.Join(h.dir, record)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the record: got %v, %v, want mode 0600", info, err)
	}

	h.refuse.Store(1000)
	other.SSHAuthorizedKeys = q.SSHAuthorizedKeys
	v, err = h.vms.Create(t.Context(), other, "")
	must(t, err)
	h.wait(v.ID)
	must(t, h.vms.Destroy(t.Context(), v.ID))
	must(t, h.vms.Destroy(t.Context(), again.ID))
	if got := h.filesWith(planted); got != nil {
		t.Errorf("after the machines were destroyed, the secret is in %q", got)
	}
	if got := h.filesWith("web.example.com"); len(got) == 0 {
		t.Error("the callback that is due has gone with its machine")
	}
	h.refuse.Store(0)
}

// filesWith lists the files of the data folder that contain a text.
func (h *harness) filesWith(text string) (names []string) {
	h.t.Helper()
	must(h.t, filepath.WalkDir(h.dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		if bytes.Contains(b, []byte(text)) {
			name, _ := filepath.Rel(h.dir, path)
			names = append(names, name)
		}
		return err
	}))
	return names
}

// What a guest could not use is refused, and no message repeats a key or user data.
func TestGuestConfigIsRefused(t *testing.T) {
	h := newHarness(t).open()
	good := publicKey(t, "me")
	for name, c := range map[string]struct {
		change      func(*vm.Request)
		field, want string
	}{
		"no key":        {func(q *vm.Request) { q.SSHAuthorizedKeys = []string{good, planted} }, "ssh_authorized_keys", "key 2 is not one line"},
		"empty key":     {func(q *vm.Request) { q.SSHAuthorizedKeys = []string{""} }, "ssh_authorized_keys", "key 1 is not one line"},
		"comment":       {func(q *vm.Request) { q.SSHAuthorizedKeys = []string{"# " + planted} }, "ssh_authorized_keys", "key 1"},
		"damaged key":   {func(q *vm.Request) { q.SSHAuthorizedKeys = []string{"ssh-ed25519 AAAA " + planted} }, "ssh_authorized_keys", "key 1"},
		"two lines":     {func(q *vm.Request) { q.SSHAuthorizedKeys = []string{good + "\n" + good} }, "ssh_authorized_keys", "key 1 is not one line"},
		"NUL":           {func(q *vm.Request) { q.SSHAuthorizedKeys = []string{good + "\x00"} }, "ssh_authorized_keys", "key 1"},
		"private key":   {func(q *vm.Request) { q.SSHAuthorizedKeys = []string{"-----BEGIN OPENSSH PRIVATE KEY-----\n" + planted} }, "ssh_authorized_keys", "key 1 is a private key"},
		"many keys":     {func(q *vm.Request) { q.SSHAuthorizedKeys = slices.Repeat([]string{good}, 65) }, "ssh_authorized_keys", "65 keys; at most 64"},
		"long keys":     {func(q *vm.Request) { q.SSHAuthorizedKeys = []string{good + strings.Repeat("x", 16<<10)} }, "ssh_authorized_keys", "at most 16384"},
		"underscore":    {func(q *vm.Request) { q.Hostname = "web_1" }, "hostname", `"web_1"`},
		"hyphen":        {func(q *vm.Request) { q.Hostname = "web-.example.com" }, "hostname", `"web-.example.com"`},
		"final dot":     {func(q *vm.Request) { q.Hostname = "web." }, "hostname", `"web."`},
		"two lines, 2":  {func(q *vm.Request) { q.Hostname = "web\nx" }, "hostname", `"web\nx"`},
		"long part":     {func(q *vm.Request) { q.Hostname = strings.Repeat("a", 64) }, "hostname", "1 to 63"},
		"long hostname": {func(q *vm.Request) { q.Hostname = strings.Repeat("a.", 32) + "a" }, "hostname", "at most 64"},
		"long data":     {func(q *vm.Request) { q.UserData = planted + strings.Repeat("x", vm.MaxUserData) }, "user_data", fmt.Sprintf("%d bytes; it must have at most 65536", len(planted)+vm.MaxUserData)},
	} {
		t.Run(name, func(t *testing.T) {
			q := h.request()
			c.change(&q)
			_, err := h.vms.Create(t.Context(), q, "")
			wantCode(t, name, err, vm.CodeInvalidField)
			if e, _ := err.(*vm.Error); e != nil && (e.Field != c.field || !strings.Contains(e.Message, c.want) || strings.Contains(e.Message, planted)) {
				t.Errorf("got %v for %s, want %q for %s", e, e.Field, c.want, c.field)
			}
		})
	}
	q := h.request()
	q.UserData, q.Hostname = strings.Repeat("x", vm.MaxUserData), strings.Repeat("A1.", 21)+"x"
	q.SSHAuthorizedKeys = []string{`command="date",no-pty ` + good, "sk-ssh-ed25519@openssh.com AAAAGnNrLXNzaC1lZDI1NTE5QG9wZW5zc2guY29tAAAAIEEE34PnyMVBNXgOpHR4m8j4pLOl1XUw+HvP3gKjHXQpAAAABHNzaDo= key"}
	if v := h.wait(h.create(q).ID); v.Phase != vm.Ready {
		t.Errorf("got %+v, want a machine with the longest values", v)
	}
}

// The configuration of a guest does not show its secrets when it is printed.
func TestGuestConfigPrints(t *testing.T) {
	g := &vm.GuestConfig{UserData: planted, SSHAuthorizedKeys: []string{planted}}
	for _, text := range []string{fmt.Sprint(g), fmt.Sprintf("%+v", vm.Machine{Guest: g}), fmt.Sprintf("%#v", g), slog.AnyValue(g).String()} {
		if strings.Contains(text, planted) {
			t.Errorf("it prints as %s", text)
		}
	}
	text, err := json.Marshal(vm.Machine{Guest: g})
	if must(t, err); strings.Contains(string(text), planted) {
		t.Errorf("a machine is %s in JSON", text)
	}
}
