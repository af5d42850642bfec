// Command demo runs one machine from its image to its deletion and prints each step.
// It starts the daemon and a web server, creates a machine from an image of that
// server, reads the guest's page, destroys the machine and checks that nothing is
// left. As root on Linux it runs in its own network namespace, so that it does not
// change the host's network.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"osx-builder/vm"
	"osx-builder/vm/vmtest/e2e"
	"osx-builder/vm/vmtest/vcenter"
)

func main() {
	binary := flag.String("binary", "build/osx-builder", "the daemon")
	image := flag.String("image", "build/tinyvm.tar.gz", "the image archive")
	vcsim := flag.String("vcsim", "", "the simulated vCenter; without one the machine runs on QEMU")
	flag.Parse()
	if os.Geteuid() == 0 { // otherwise Isolate would use sudo
		if _, err := e2e.Isolate(); err != nil {
			fmt.Fprintln(os.Stderr, "demo:", err)
			os.Exit(1)
		}
	}
	if err := run(*binary, *image, *vcsim); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// timeout bounds each step. A busy host that emulates the guest's processor takes a
// minute for what takes four seconds on an idle one.
const timeout = 3 * time.Minute

// demo is the running daemon and the web server for the image and the callback.
type demo struct {
	site   *e2e.Site
	daemon *e2e.Daemon
	guest  bool // the machine has a real guest
}

func run(binary, image, vcsim string) (err error) {
	data, err := os.MkdirTemp("", "osxb")
	if err != nil {
		return err
	}
	defer os.RemoveAll(data)
	site := e2e.NewSite(filepath.Dir(image))
	defer site.Close()
	args := []string{"-driver", "qemu", "-forward", "80"}
	if vcsim != "" {
		p, err := vcenter.StartProcess(vcsim)
		if err != nil {
			return err
		}
		defer func() { _ = p.Close() }()
		args = p.Flags
		printf("A simulated vCenter runs. The daemon's flags for it are\n  %s\n", strings.Join(args, "\n  "))
	}
	daemon, err := e2e.Start(e2e.Options{Binary: binary, Data: data, Args: args})
	if err != nil {
		return err
	}
	printf("The daemon listens on %s. A web server on %s serves the image.", daemon.URL, site.URL)
	d := demo{site: site, daemon: daemon, guest: vcsim == ""}
	if err = d.runMachine(filepath.Base(image)); err != nil {
		err = fmt.Errorf("%w\nthe daemon's log:\n%s", err, daemon.Log())
	}
	if err = errors.Join(err, daemon.Stop()); err != nil {
		return err
	}
	if left := e2e.Leftovers(data); len(left) > 0 {
		return fmt.Errorf("left behind: %s", strings.Join(left, ", "))
	}
	printf("The daemon has stopped. It left no process, no network device and no file of the machine.")
	return nil
}

// runMachine runs one machine from its creation to its deletion. It deletes the machine
// after a failure as well.
func (d demo) runMachine(image string) error {
	i, err := d.site.Image(image)
	if err != nil {
		return err
	}
	v, err := d.create(i)
	if err != nil {
		return err
	}
	if err := d.useMachine(v.ID); err != nil {
		_, _, again := d.daemon.VM(http.MethodDelete, "/vms/"+v.ID, nil, http.StatusNoContent)
		return errors.Join(err, again)
	}
	return d.destroy(v.ID)
}

// useMachine waits for a machine and shows what it does.
func (d demo) useMachine(id string) error {
	v, err := d.follow(id)
	if err != nil {
		return err
	}
	if err := d.lookAt(v); err != nil {
		return err
	}
	select {
	case c := <-d.site.Callbacks:
		printf("The callback arrived: %d bytes of JSON with webhook-id %s.", len(c.Body), c.Header.Get("webhook-id"))
	case <-time.After(timeout):
		return fmt.Errorf("no callback within %v", timeout)
	}
	if d.guest {
		d.printConsole(id)
	}
	return nil
}

// lookAt prints the guest's page, or what the simulated vCenter keeps of the image.
func (d demo) lookAt(v vm.VM) error {
	if !d.guest {
		a, err := d.daemon.Do(http.MethodGet, "/images", "", nil)
		printf("\n$ curl %s/images     # the template on the vCenter is in use\n%s", d.daemon.URL, a.Body)
		return err
	}
	page, err := e2e.GuestPage(v, "/", timeout)
	if err != nil {
		return err
	}
	printf("\n$ curl %s\n%s", e2e.GuestURL(v, "/"), formatPage(page))
	return nil
}

func (d demo) create(i e2e.Image) (v vm.VM, err error) {
	body := i.Body(map[string]any{
		"cpus": 2, "memory": "256mib", "network_type": "nat", "callback_url": d.site.CallbackURL(),
		"tools_init_timeout": timeout.String(),
	})
	printf("\n$ curl -d@create.json %s/vms     # create.json is\n%s\n", d.daemon.URL, body)
	a, err := d.daemon.Do(http.MethodPost, "/vms", "application/x-www-form-urlencoded", body)
	if err != nil {
		return v, err
	}
	if a.Status != http.StatusAccepted {
		return v, fmt.Errorf("got status %d: %s", a.Status, a.Body)
	}
	printf("202 Accepted\n%s", a.Body)
	return v, a.JSON(&v)
}

// follow prints each phase and the progress until the machine is ready or failed.
func (d demo) follow(id string) (v vm.VM, err error) {
	printf("$ curl %s/vms/%s     # repeatedly", d.daemon.URL, id)
	started, last := time.Now(), ""
	for time.Since(started) < time.Minute {
		if v, _, err = d.daemon.VM(http.MethodGet, "/vms/"+id, nil, http.StatusOK); err != nil {
			return v, err
		}
		now := string(v.Phase)
		if v.Progress != nil {
			now += fmt.Sprintf(" %d bytes", v.Progress.Bytes)
		}
		if now != last {
			printf("%6.2f s  %-28s status %q", time.Since(started).Seconds(), now, v.Status)
			last = now
		}
		if v.Phase == vm.Ready || v.Phase == vm.Failed {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	b, err := json.MarshalIndent(v, "", "  ")
	printf("%s", b)
	if v.Phase != vm.Ready {
		return v, fmt.Errorf("the machine is %s, want ready", v.Phase)
	}
	return v, err
}

// printConsole prints the end of the guest's serial console.
func (d demo) printConsole(id string) {
	b, err := os.ReadFile(filepath.Join(d.daemon.Data, "vms", id, "serial.log"))
	if err != nil {
		printf("There is no serial log: %v", err)
		return
	}
	consoleLines := strings.Split(strings.TrimSpace(string(bytes.ReplaceAll(b, []byte("\r"), nil))), "\n")
	printf("\nThe end of the serial console:\n  %s", strings.Join(consoleLines[max(0, len(consoleLines)-5):], "\n  "))
}

func (d demo) destroy(id string) error {
	printf("\n$ curl -X DELETE %s/vms/%s", d.daemon.URL, id)
	started := time.Now()
	if _, _, err := d.daemon.VM(http.MethodDelete, "/vms/"+id, nil, http.StatusNoContent); err != nil {
		return err
	}
	printf("204 No Content after %d ms", time.Since(started).Milliseconds())
	_, code, err := d.daemon.VM(http.MethodGet, "/vms/"+id, nil, http.StatusNotFound)
	printf("$ curl %s/vms/%s\n404 %s", d.daemon.URL, id, code)
	return err
}

// formatPage formats the guest's page, one key per line.
func formatPage(page map[string]string) string {
	var b strings.Builder
	for _, k := range []string{"mac", "address", "hostname", "cpus", "memory_kib", "boot_id", "kernel"} {
		fmt.Fprintf(&b, "  %s: %s\n", k, page[k])
	}
	return b.String()
}

// printf prints a formatted line.
func printf(format string, args ...any) { fmt.Printf(format+"\n", args...) }
