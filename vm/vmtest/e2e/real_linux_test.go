package e2e_test

import (
	"bufio"
	"net"
	"os"
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

// realBoot bounds the boot of a real distribution, which takes a minute and a half on two idle cores that emulate it.
const realBoot = "20m"

// A Debian as its installer leaves it in a VMware machine gets an address, because its card has the name that its
// /etc/network/interfaces has, and answers there with the greeting of its SSH server. It lets the request's key in, has
// a disk of the request's size, and nothing shows the request's secrets. make test builds one of the images, which has
// systemd only; make test-real builds all of them, one with cloud-init and one of Debian's next release. The daemon runs
// without the race detector, with which converting the disk takes longer than the boot.
func TestRealDebian(t *testing.T) {
	t.Parallel()
	names := []string{"debian-pvscsi"}
	if os.Getenv("REAL") == "all" {
		names = append(names, "debian-lsilogic", "debian-efi", "debian-cloudinit", "debian13")
	}
	for _, name := range names {
		file := name + ".tar.gz"
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			harness.Need(t, filepath.Join(harness.BuildDir(t), file))
			s := harness.NewProgram(t, harness.PlainBinary(t), nil, "-network", "bridge", "-log-level", "debug")
			login, planted := newLogin(t), "pl4nted-s3cret"
			fields := realLogin(login, planted)
			fields["callback_url"] = s.Site.CallbackURL()
			v := s.Create(s.Image(file).Body(fields))
			for v.Phase != vm.Ready && v.Phase != vm.Failed { // GET waits for ten minutes at most
				v = s.WaitSettled(v.ID)
			}
			if v.Phase != vm.Ready || v.IPAddress == "" {
				console, _ := os.ReadFile(filepath.Join(s.Data, "vms", v.ID, "serial.log"))
				t.Fatalf("got %+v, want an address; the console ends with:\n%s", v, console[max(0, len(console)-3000):])
			}
			if len(v.NICs) != 1 || v.NICs[0].IPAddress != v.IPAddress {
				t.Errorf("got NICs %+v, want one with address %s", v.NICs, v.IPAddress)
			}
			for _, w := range v.Warnings {
				if w.Code == vm.WarningGuestSilent || w.Code == vm.WarningNoAddress {
					t.Errorf("got warning %+v", w)
				}
			}
			if got := greeting(t, v.IPAddress); !strings.HasPrefix(got, "SSH-2.0-OpenSSH") {
				t.Errorf("got %q at port 22 of %s, want the greeting of OpenSSH", got, v.IPAddress)
			}
			s.WaitUntil(v.ID, "with tools that run", func(v vm.VM) bool { return v.ToolsStatus == vm.ToolsRunning }) // cloud-init starts them late
			checkLogin(t, v, login, planted, name == "debian-cloudinit")
			if !slices.ContainsFunc(v.Warnings, func(w vm.Warning) bool { return w.Code == vm.WarningDiskGrown }) || v.Disk != "4gib" || v.Hostname != "web" {
				t.Errorf("got %+v, want disk 4gib, hostname web and a warning about the disk", v)
			}
			checkSecrets(t, s, v, planted, login.secret())
		})
	}
}

// createReal creates a machine and waits until it is ready or has failed.
func createReal(s *harness.Harness, body []byte) vm.VM {
	s.T.Helper()
	v := s.Create(body)
	for v.Phase != vm.Ready && v.Phase != vm.Failed { // GET waits for ten minutes at most
		v = s.WaitSettled(v.ID)
	}
	return v
}

// A Debian that continues a saved guest with an identity of its own answers at the machine's own address, with other
// SSH host keys than another machine of the image. REAL=all, as make test-real sets it, runs this.
func TestRealDebianFromMemory(t *testing.T) {
	t.Parallel()
	if os.Getenv("REAL") != "all" {
		return
	}
	s := harness.New(t, "-network", "bridge", "-template-memory", "1gib")
	body := s.Image("debian-pvscsi.tar.gz").Body(map[string]any{
		"cpus": 1, "memory": "512mib", "tools_init_timeout": realBoot, "identity": "renew", "start": "memory",
	})
	booted := createReal(s, body)
	for deadline := time.Now().Add(2 * harness.Timeout); ; time.Sleep(time.Second) {
		harness.Hurry(s.Data)
		list := s.Templates()
		if slices.ContainsFunc(list, func(t vm.Template) bool { return t.Agent }) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("got templates %+v, want one whose guest has an agent", list)
		}
	}
	began := time.Now()
	v := createReal(s, body)
	t.Logf("ready with an identity of its own %v after the request", time.Since(began))
	if booted.Phase != vm.Ready || v.Phase != vm.Ready || v.Start != vm.StartMemory {
		t.Fatalf("got %+v and %+v, want two machines that are ready, the second from memory", booted, v)
	}
	if v.NICs[0].IPAddress != v.IPAddress || !slices.Contains(v.Addresses, v.IPAddress) {
		t.Errorf("got NICs %+v and addresses %v, want %s", v.NICs, v.Addresses, v.IPAddress)
	}
	if one, other := hostKey(t, booted.IPAddress), hostKey(t, v.IPAddress); one == other {
		t.Errorf("both machines have the host key %s", one)
	}
}

// hostKey returns the host key of a guest's SSH server.
func hostKey(t *testing.T, ip string) (key string) {
	t.Helper()
	greeting(t, ip) // waits for the server
	config := &ssh.ClientConfig{
		User: "nobody", Timeout: harness.Timeout,
		HostKeyCallback: func(_ string, _ net.Addr, k ssh.PublicKey) error { key = ssh.FingerprintSHA256(k); return nil },
	}
	if c, err := ssh.Dial("tcp", net.JoinHostPort(ip, "22"), config); err == nil {
		c.Close() // without a password nobody is let in
	}
	if key == "" {
		t.Errorf("the SSH server at %s showed no host key", ip)
	}
	return key
}

// greeting returns the first line that a guest's SSH server sends. The server may start after the guest has its address.
func greeting(t *testing.T, ip string) string {
	t.Helper()
	for deadline := time.Now().Add(harness.Timeout); ; {
		line, err := readGreeting(ip)
		if err == nil {
			return line
		}
		if time.Now().After(deadline) {
			t.Fatalf("no greeting of the SSH server at %s: %v", ip, err)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func readGreeting(ip string) (string, error) {
	conn, err := net.DialTimeout("tcp", net.JoinHostPort(ip, "22"), harness.Timeout)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(harness.Timeout)); err != nil {
		return "", err
	}
	return bufio.NewReader(conn).ReadString('\n')
}

// A guest for 64-bit ARM processors, as VMware Fusion makes it on Apple silicon, answers at its address.
func TestARMGuest(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("qemu-system-aarch64"); err != nil {
		harness.Without(t, err.Error())
	}
	s := harness.New(t, "-network", "bridge")
	v := s.Create(s.Image("tinyvm-arm64.tar.gz").Body(map[string]any{"cpus": 1, "memory": "512mib", "tools_init_timeout": realBoot}))
	for v.Phase != vm.Ready && v.Phase != vm.Failed {
		v = s.WaitSettled(v.ID)
	}
	if v.Phase != vm.Ready || v.IPAddress == "" {
		console, _ := os.ReadFile(filepath.Join(s.Data, "vms", v.ID, "serial.log"))
		t.Fatalf("got %+v, want an address; the console ends with:\n%s", v, console[max(0, len(console)-3000):])
	}
	page := s.GuestPage(v)
	if page["mac"] != v.MACAddress || page["address"] != v.IPAddress || page["slot"] != "160" || !strings.HasSuffix(page["kernel"], "-arm64") {
		t.Errorf("got page %v, want the card %s with %s in slot 160, and a kernel for arm64", page, v.MACAddress, v.IPAddress)
	}
	if got := s.WriteMark(v, "arm"); got != "arm" {
		t.Errorf("got %q from the guest's disk, want what was written", got)
	}
	if v.Status != vm.PoweredOn || v.GuestOS != "arm-other5xlinux-64" {
		t.Errorf("got %+v, want powered-on and arm-other5xlinux-64", v)
	}
}
