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

// Body is the JSON of a request for a machine from an image. Each of fields is
// added to it, or takes a field's place.
func (i Image) Body(fields map[string]any) []byte {
	q := map[string]any{
		"image": map[string]string{"url": i.URL, "checksum": i.SHA256, "checksum_type": "sha256"},
	}
	for k, v := range fields {
		q[k] = v
	}
	b, err := json.MarshalIndent(q, "", "  ")
	if err != nil {
		panic(err) // maps of strings and what the test put in
	}
	return b
}

// VM asks for a machine. A status other than want is an error that has the
// answer's body; the code of an error body is in code.
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

// Page fetches the guest's page: its "key: value" lines. It tries until the
// guest answers or limit is over, since an address comes before a web server.
func Page(v vm.VM, path string, limit time.Duration) (map[string]string, error) {
	client := http.Client{Timeout: 5 * time.Second}
	var err error
	for deadline := time.Now().Add(limit); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		var page map[string]string
		if page, err = fetch(&client, GuestURL(v, path)); err == nil {
			return page, nil
		}
	}
	return nil, fmt.Errorf("the guest's page did not come within %v: %w", limit, err)
}

// GuestURL is where the guest's web server answers the host.
func GuestURL(v vm.VM, path string) string {
	port := 80
	for _, f := range v.PortForwards {
		if f.Guest == 80 {
			port = f.Host
		}
	}
	return "http://" + net.JoinHostPort(v.IPAddress, strconv.Itoa(port)) + path
}

func fetch(c *http.Client, url string) (map[string]string, error) {
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
