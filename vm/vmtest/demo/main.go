// Command demo tells the daemon's whole story in a terminal: an image on a web
// server becomes a running machine that answers on its own address, and goes
// away without a trace. As root on Linux it does so in a network namespace of
// its own, so that the host's network stays untouched.
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
)

func main() {
	binary := flag.String("binary", "build/osx-builder", "the daemon")
	image := flag.String("image", "build/tinyvm.tar.gz", "the image archive")
	flag.Parse()
	if os.Geteuid() == 0 { // the demo takes nobody's sudo
		if _, err := e2e.Isolate(); err != nil {
			fmt.Fprintln(os.Stderr, "demo:", err)
			os.Exit(1)
		}
	}
	if err := run(*binary, *image); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// story is the demo's stage.
type story struct {
	site   *e2e.Site
	daemon *e2e.Daemon
	image  string // file name
	before []string
}

func run(binary, image string) (err error) {
	data, err := os.MkdirTemp("", "osxb")
	if err != nil {
		return err
	}
	defer os.RemoveAll(data)
	s := &story{site: e2e.NewSite(filepath.Dir(image)), image: filepath.Base(image), before: e2e.Leftovers(data)}
	defer s.site.Close()
	if s.daemon, err = e2e.Start(e2e.Options{Binary: binary, Data: data, Args: []string{"-driver", "qemu", "-forward", "80"}}); err != nil {
		return err
	}
	say("The daemon listens on %s; the image is served by a web server on %s.", s.daemon.URL, s.site.URL)
	if err = s.tell(image); err != nil {
		err = fmt.Errorf("%w\nthe daemon's log:\n%s", err, s.daemon.Log())
	}
	if err = errors.Join(err, s.daemon.Stop()); err != nil {
		return err
	}
	if left := e2e.Diff(s.before, e2e.Leftovers(data)); len(left) > 0 {
		return fmt.Errorf("left behind: %s", strings.Join(left, ", "))
	}
	say("The daemon has stopped. Nothing is left: no process, no network device, no machine's file.")
	return nil
}

func (s *story) tell(image string) error {
	sum, err := e2e.SHA256(image)
	if err != nil {
		return err
	}
	v, err := s.create(e2e.Image{URL: s.site.ImageURL(s.image), SHA256: sum})
	if err != nil {
		return err
	}
	if v, err = s.follow(v.ID); err != nil {
		return err
	}
	page, err := e2e.Page(v, "/", 20*time.Second)
	if err != nil {
		return err
	}
	say("\n$ curl %s\n%s", e2e.GuestURL(v, "/"), lines(page))
	select {
	case c := <-s.site.Callbacks:
		say("The callback came: %d bytes of JSON with webhook-id %s.", len(c.Body), c.Header.Get("webhook-id"))
	case <-time.After(20 * time.Second):
		return errors.New("no callback within 20 s")
	}
	s.console(v.ID)
	return s.destroy(v.ID)
}

func (s *story) create(i e2e.Image) (v vm.VM, err error) {
	body := i.Body(map[string]any{"cpus": 2, "memory": "256mib", "network_type": "nat", "callback_url": s.site.CallbackURL()})
	say("\n$ curl -d@create.json %s/vms     # create.json is\n%s\n", s.daemon.URL, body)
	a, err := s.daemon.Do(http.MethodPost, "/vms", "application/x-www-form-urlencoded", body)
	if err != nil {
		return v, err
	}
	if a.Status != http.StatusAccepted {
		return v, fmt.Errorf("got status %d: %s", a.Status, a.Body)
	}
	say("202 Accepted\n%s", a.Body)
	return v, a.JSON(&v)
}

// follow shows each phase and the progress until the machine is settled.
func (s *story) follow(id string) (v vm.VM, err error) {
	say("$ curl %s/vms/%s     # again and again", s.daemon.URL, id)
	started, last := time.Now(), ""
	for time.Since(started) < time.Minute {
		if v, _, err = s.daemon.VM(http.MethodGet, "/vms/"+id, nil, http.StatusOK); err != nil {
			return v, err
		}
		now := string(v.Phase)
		if v.Progress != nil {
			now += fmt.Sprintf(" %d bytes", v.Progress.Bytes)
		}
		if now != last {
			say("%6.2f s  %-28s status %q", time.Since(started).Seconds(), now, v.Status)
			last = now
		}
		if v.Phase == vm.Ready || v.Phase == vm.Failed {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	b, err := json.MarshalIndent(v, "", "  ")
	say("%s", b)
	if v.Phase != vm.Ready {
		return v, fmt.Errorf("the machine is %s, want ready", v.Phase)
	}
	return v, err
}

// console shows the end of the serial log.
func (s *story) console(id string) {
	b, err := os.ReadFile(filepath.Join(s.daemon.Data, "vms", id, "serial.log"))
	if err != nil {
		say("No serial log: %v", err)
		return
	}
	all := strings.Split(strings.TrimSpace(string(bytes.ReplaceAll(b, []byte("\r"), nil))), "\n")
	say("\nThe end of the serial console:\n  %s", strings.Join(all[max(0, len(all)-5):], "\n  "))
}

func (s *story) destroy(id string) error {
	say("\n$ curl -X DELETE %s/vms/%s", s.daemon.URL, id)
	started := time.Now()
	if _, _, err := s.daemon.VM(http.MethodDelete, "/vms/"+id, nil, http.StatusNoContent); err != nil {
		return err
	}
	say("204 No Content after %d ms", time.Since(started).Milliseconds())
	_, code, err := s.daemon.VM(http.MethodGet, "/vms/"+id, nil, http.StatusNotFound)
	say("$ curl %s/vms/%s\n404 %s", s.daemon.URL, id, code)
	return err
}

func lines(page map[string]string) string {
	var b strings.Builder
	for _, k := range []string{"mac", "address", "hostname", "cpus", "memory_kib", "boot_id", "kernel"} {
		fmt.Fprintf(&b, "  %s: %s\n", k, page[k])
	}
	return b.String()
}

func say(format string, args ...any) { fmt.Printf(format+"\n", args...) }
