package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"osx-builder/vm"
)

// Image is an image in a site's folder.
type Image struct{ URL, SHA256 string }

// Body returns the JSON of a request for a machine of the image. The fields are
// added or replace others.
func (i Image) Body(fields map[string]any) []byte {
	q := map[string]any{
		"image": map[string]string{"url": i.URL, "checksum": i.SHA256, "checksum_type": "sha256"},
	}
	for k, v := range fields {
		q[k] = v
	}
	b, err := json.MarshalIndent(q, "", "  ")
	if err != nil {
		panic(err) // only if a test passes a value that JSON does not have
	}
	return b
}

// VM sends a request whose response is a machine. A status other than want is an
// error with the response's body in it. If the body is an error, code is its code.
func (d *Daemon) VM(method, path string, body []byte, want int) (v vm.VM, code vm.Code, err error) {
	a, err := d.Do(method, path, "application/json", body)
	if err != nil {
		return v, "", err
	}
	if a.Status >= http.StatusBadRequest {
		var e vm.Error
		if err := a.JSON(&e); err != nil {
			return v, "", err
		}
		code = e.Code
	}
	if a.Status != want {
		return v, code, fmt.Errorf("%s %s: got status %d, want %d: %s", method, path, a.Status, want, a.Body)
	}
	if code != "" || len(a.Body) == 0 {
		return v, code, nil
	}
	return v, "", a.JSON(&v)
}

// List returns all machines.
func (d *Daemon) List() ([]vm.VM, error) {
	a, err := d.Do("GET", "/vms", "", nil)
	if err != nil {
		return nil, err
	}
	if a.Status != http.StatusOK {
		return nil, fmt.Errorf("GET /vms: got status %d, want 200: %s", a.Status, a.Body)
	}
	var list struct{ VMs []vm.VM }
	err = a.JSON(&list)
	return list.VMs, err
}

// GuestPage returns the "key: value" lines of a page of the guest's web server. The
// guest has an address before it has a web server, so GuestPage tries until the
// timeout.
func GuestPage(v vm.VM, path string, timeout time.Duration) (map[string]string, error) {
	client := http.Client{Timeout: 5 * time.Second}
	var err error
	for deadline := time.Now().Add(timeout); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		var page map[string]string
		if page, err = fetchGuestPage(&client, GuestURL(v, path)); err == nil {
			return page, nil
		}
	}
	return nil, fmt.Errorf("the guest's page did not answer within %v: %w", timeout, err)
}

// GuestURL returns the URL of the guest's web server, as seen from the host.
func GuestURL(v vm.VM, path string) string {
	port := 80
	for _, f := range v.PortForwards {
		if f.Guest == 80 {
			port = f.Host
		}
	}
	return "http://" + net.JoinHostPort(v.IPAddress, strconv.Itoa(port)) + path
}

func fetchGuestPage(c *http.Client, url string) (map[string]string, error) {
	res, err := c.Get(url)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err != nil {
		return nil, err
	}
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("status %d: %s", res.StatusCode, b)
	}
	page := make(map[string]string)
	for line := range strings.Lines(string(b)) {
		if k, v, ok := strings.Cut(line, ":"); ok {
			page[strings.TrimSpace(k)] = strings.TrimSpace(v)
		}
	}
	return page, nil
}
