package vm_test

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"osx-builder/vm"
)

// imageServer serves different images and counts their downloads.
type imageServer struct {
	*httptest.Server
	archives [][]byte
	gets     []atomic.Int32
}

func newImageServer(t *testing.T, n int) *imageServer {
	g := &imageServer{gets: make([]atomic.Int32, n)}
	for i := range n {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for name, content := range map[string]string{"a.vmx": "guestOS = \"other\"\n", "disk.vmdk": strings.Repeat(fmt.Sprint(i), 10_000)} {
			must(t, w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(content)), Typeflag: tar.TypeReg}))
			_, err := w.Write([]byte(content))
			must(t, err)
		}
		must(t, w.Close())
		g.archives = append(g.archives, b.Bytes())
	}
	g.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var i int
		if _, err := fmt.Sscanf(r.URL.Path, "/%d", &i); err != nil || i >= n {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		g.gets[i].Add(1)
		_, _ = w.Write(g.archives[i])
	}))
	t.Cleanup(g.Close)
	return g
}

func (g *imageServer) image(i int) vm.Image {
	sum := sha256.Sum256(g.archives[i])
	return vm.Image{URL: fmt.Sprintf("%s/%d", g.URL, i), Checksum: hex.EncodeToString(sum[:]), ChecksumType: "sha256"}
}

// 64 machines are created at once from 8 images, and half of them are destroyed
// meanwhile. Each image is downloaded once, each callback is sent once, and
// nothing is left in the end.
func TestConcurrentCreations(t *testing.T) {
	const creations, images = 64, 8
	g := newImageServer(t, images)
	h := newHarness(t)
	h.options = func(o *vm.Options) { o.Creations = creations }
	h.open()
	ids := make([]string, creations)
	var wg sync.WaitGroup
	for n := range creations {
		wg.Go(func() {
			q := h.request()
			q.Image = g.image(n / 2 % images) // half of the machines of each image stay
			v, err := h.vms.Create(t.Context(), q, fmt.Sprint("key", n))
			if err != nil {
				t.Error(err)
				return
			}
			ids[n] = v.ID
			if n%2 == 0 {
				return
			}
			time.Sleep(time.Duration(n) * 3 * time.Millisecond) // each at a different moment
			for range 2 {
				if err := h.vms.Destroy(t.Context(), v.ID); err != nil && codeOf(err) != vm.CodeNotFound {
					t.Errorf("Destroy: %v", err)
				}
			}
		})
	}
	wg.Wait()
	sent := make(map[string]string)
	for range creations {
		v := h.callback()
		if sent[v.ID] != "" {
			t.Errorf("machine %s had two callbacks", v.ID)
		}
		sent[v.ID] = string(v.Phase)
	}
	for n, id := range ids {
		switch v, err := h.vms.Wait(t.Context(), id, time.Minute); {
		case n%2 == 1 && codeOf(err) != vm.CodeNotFound:
			t.Errorf("destroyed machine: got %s, %v, want %s", v.Phase, err, vm.CodeNotFound)
		case n%2 == 0 && (err != nil || v.Phase != vm.Ready || v.Status != vm.PoweredOn || sent[id] != "ready"):
			t.Errorf("machine: got %s, %s, %v, callback %s, want ready", v.Phase, v.Status, err, sent[id])
		}
	}
	for i := range images {
		// Half of an image's machines are destroyed; each may be the only one that needs it then, which ends the download.
		if n := g.gets[i].Load(); n < 1 || n > 1+creations/images/2 {
			t.Errorf("image %d was downloaded %d times", i, n)
		}
	}
	for n, id := range ids {
		if n%2 == 0 {
			must(t, h.vms.Destroy(t.Context(), id))
		}
	}
	h.close()
	if names := h.files(); len(names) != 0 {
		t.Errorf("left: %v", names)
	}
}

// A receiver that hangs delays neither the callbacks to other receivers nor the
// destruction of its own machines.
func TestSlowReceiverDelaysNothing(t *testing.T) {
	h := newHarness(t).open()
	entered := make(chan struct{}, 100)
	release := make(chan struct{})
	slow := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		entered <- struct{}{}
		<-release
	}))
	t.Cleanup(slow.Close)
	t.Cleanup(func() { close(release) })
	var held []string
	for range 12 {
		q := h.request()
		q.CallbackURL = slow.URL
		held = append(held, h.create(q).ID)
	}
	for _, id := range held {
		h.wait(id)
	}
	<-entered
	well := h.create(h.request())
	if got := h.callback(); got.ID != well.ID {
		t.Errorf("callback of %s, want %s", got.ID, well.ID)
	}
	started := time.Now()
	for _, id := range held {
		must(t, h.vms.Destroy(t.Context(), id))
	}
	if took := time.Since(started); took > 10*time.Second {
		t.Errorf("destroying %d machines with a hanging receiver took %v", len(held), took)
	}
}

// The machine's document has the attempts and the last error, even after a
// restart.
func TestCallbackState(t *testing.T) {
	h := newHarness(t)
	h.refuse.Store(1)
	h.open()
	v := h.wait(h.create(h.request()).ID)
	for deadline := time.Now().Add(hangTimeout); v.Callback.Attempts == 0 && time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		v = h.wait(v.ID)
	}
	if v.Callback.State != vm.CallbackPending || !strings.Contains(v.Callback.LastError, "503") {
		t.Errorf("after a refusal: got %+v, want pending with the receiver's 503", v.Callback)
	}
	h.close()
	h.open()
	if c := h.delivered(v.ID).Callback; c.Attempts != 2 || c.LastError != "" || c.DeliveredAt == nil {
		t.Errorf("after the second try: got %+v, want delivered after 2 attempts", c)
	}
}
