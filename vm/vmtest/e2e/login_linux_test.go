package e2e_test

import (
	"crypto/ed25519"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"osx-builder/vm"
	"osx-builder/vm/vmtest/harness"
)

// login is a key of a test, which a guest is to accept.
type login struct {
	signer ssh.Signer
	line   string // of an authorized_keys file
}

func newLogin(t *testing.T) login {
	t.Helper()
	_, private, err := ed25519.GenerateKey(nil)
	harness.Must(t, err)
	signer, err := ssh.NewSignerFromKey(private)
	harness.Must(t, err)
	return login{signer, strings.TrimSpace(string(ssh.MarshalAuthorizedKey(signer.PublicKey()))) + " test"}
}

// secret is the part of the key's line that nothing else has.
func (l login) secret() string { return strings.Fields(l.line)[1] }

// run runs a command in the guest, once its SSH server accepts the key. cloud-init may still be adding it.
func (l login) run(t *testing.T, ip, user, command string) string {
	t.Helper()
	config := &ssh.ClientConfig{
		User: user, Auth: []ssh.AuthMethod{ssh.PublicKeys(l.signer)}, HostKeyCallback: ssh.InsecureIgnoreHostKey(), Timeout: harness.Timeout,
	}
	for deadline := time.Now().Add(2 * harness.Timeout); ; time.Sleep(time.Second) {
		client, err := ssh.Dial("tcp", net.JoinHostPort(ip, "22"), config)
		if err == nil {
			defer client.Close()
			session, err := client.NewSession()
			harness.Must(t, err)
			out, err := session.CombinedOutput(command)
			if err != nil {
				t.Errorf("%s: %v: %s", command, err, out)
			}
			return strings.TrimSpace(string(out))
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s cannot log in at %s: %v", user, ip, err)
		}
	}
}

// realLogin are the fields of a request that let a test into a real guest, with a larger disk.
func realLogin(l login, planted string) map[string]any {
	return map[string]any{
		"cpus": 1, "memory": "512mib", "tools_init_timeout": realBoot, "disk": "4gib", "hostname": "web", "ssh_authorized_keys": []string{l.line},
		"user_data": "#!/bin/sh\necho " + planted + " > /var/tmp/planted\n",
	}
}

// checkLogin logs in to a real guest and checks what it made of the request. A guest without cloud-init has only the key.
func checkLogin(t *testing.T, v vm.VM, l login, planted string, cloudInit bool) {
	t.Helper()
	user := "root"
	if cloudInit {
		user = "debian"
		// cloud-init writes this file when it has ended. cloud-init status --wait returns at the first error, and
		// the image causes one, because it has no locales.
		l.run(t, v.IPAddress, user, "timeout 600 sh -c 'until [ -e /run/cloud-init/result.json ]; do sleep 1; done'")
		for command, want := range map[string]string{"hostname": "web", "cat /var/tmp/planted": planted, "cat /var/lib/cloud/data/instance-id": v.ID} {
			if got := l.run(t, v.IPAddress, user, command); got != want {
				t.Errorf("%s: got %q, want %q", command, got, want)
			}
		}
		if size := l.run(t, v.IPAddress, user, "df -B1M --output=size / | tail -1"); len(size) < 4 || size < "3500" {
			t.Errorf("the file system has %s MiB, want that of a disk of 4 GiB", size)
		}
	}
	if got := l.run(t, v.IPAddress, user, "cat ~/.ssh/authorized_keys"); !strings.Contains(got, l.line) {
		t.Errorf("got keys %q, want %q in them", got, l.line)
	}
	if got := l.run(t, v.IPAddress, user, "cat /sys/block/sda/size /sys/block/nvme0n1/size 2>/dev/null; true"); got != fmt.Sprint(4<<30/512) {
		t.Errorf("the disk has %s sectors, want 4 GiB", got)
	}
}

// checkSecrets looks for secrets where they must not be: everywhere but in the machine's record and in what the guest
// itself wrote. Then it destroys the machine and looks for them again.
func checkSecrets(t *testing.T, s *harness.Harness, v vm.VM, secrets ...string) {
	t.Helper()
	processes, err := exec.Command("ps", "-A", "-ww", "-e", "-o", "args=").Output()
	harness.Must(t, err)
	places := map[string]string{"the log": s.Log(), "the process list": string(processes)}
	for _, path := range []string{"/vms/" + v.ID, "/vms", "/images", "/metrics", "/healthz?verbose=1", "/templates"} {
		a, err := s.Do("GET", path, "", nil)
		harness.Must(t, err)
		places[path] = string(a.Body) + fmt.Sprint(a.Header)
	}
	select {
	case c := <-s.Site.Callbacks:
		places["the callback"] = string(c.Body)
	case <-time.After(harness.Timeout):
		t.Errorf("no callback within %v", harness.Timeout)
	}
	record := filepath.Join(s.Data, "vms", v.ID+".json")
	dir := strings.TrimSuffix(record, ".json")
	for _, secret := range secrets {
		for place, text := range places {
			if text == "" || strings.Contains(text, secret) {
				t.Errorf("%s is empty or has %q: %s", place, secret, text)
			}
		}
		if got := filesWith(t, s.Data, secret, filepath.Join(dir, "disk0.qcow2"), filepath.Join(dir, "serial.log")); got != record {
			t.Errorf("%q is in the files %q, want %s only", secret, got, record)
		}
	}
	s.Destroy(v.ID)
	for _, secret := range secrets {
		if got := filesWith(t, s.Data, secret); got != "" {
			t.Errorf("%q is in the files %q of a machine that is gone", secret, got)
		}
	}
}

// filesWith lists the files below a folder that contain a text, except for those with these names. Images are not read.
func filesWith(t *testing.T, dir, text string, except ...string) string {
	t.Helper()
	found := slices.DeleteFunc(harness.FilesWith(t, dir, text, "images"), func(name string) bool { return slices.Contains(except, name) })
	return strings.Join(found, " ")
}
