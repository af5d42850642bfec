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

// gallery serves images that differ, and counts their downloads.
type gallery struct {
	*httptest.Server
	archives [][]byte
	gets     []atomic.Int32
}

func newGallery(t *testing.T, n int) *gallery {
	g := &gallery{gets: make([]atomic.Int32, n)}
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

func (g *gallery) image(i int) vm.Image {
	sum := sha256.Sum256(g.archives[i])
	return vm.Image{URL: fmt.Sprintf("%s/%d", g.URL, i), Checksum: hex.EncodeToString(sum[:]), ChecksumType: "sha256"}
}

// 64 creations at once of 8 images, with every other machine destroyed
// meanwhile, cost a download each, end as they should, tell each callback once
// and leave nothing.
func TestStorm(t *testing.T) {
	const creations, images = 64, 8
	g := newGallery(t, images)
	h := newHouse(t)
	h.options = func(o *vm.Options) { o.Creations = creations }
	h.open()
	ids := make([]string, creations)
	var wg sync.WaitGroup
	for n := range creations {
		wg.Go(func() {
			q := h.request()
			q.Image = g.image(n / 2 % images) // so that half of those that want it stay
			v, err := h.vms.Create(t.Context(), q, fmt.Sprint("key", n))
			if err != nil {
				t.Error(err)
				return
			}
			ids[n] = v.ID
			if n%2 == 0 {
				return
			}
			time.Sleep(time.Duration(n) * 3 * time.Millisecond) // so that each meets another moment
			for range 2 {
				if err := h.vms.Destroy(t.Context(), v.ID); err != nil && codeOf(err) != vm.CodeNotFound {
					t.Errorf("Destroy: %v", err)
				}
			}
		})
	}
	wg.Wait()
	told := make(map[string]string)
	for range creations {
		v := h.callback()
		if told[v.ID] != "" {
			t.Errorf("machine %s was told of twice", v.ID)
		}
		told[v.ID] = string(v.Phase)
	}
	for n, id := range ids {
		switch v, err := h.vms.Wait(t.Context(), id, time.Minute); {
		case n%2 == 1 && codeOf(err) != vm.CodeNotFound:
			t.Errorf("destroyed machine: got %s, %v, want %s", v.Phase, err, vm.CodeNotFound)
		case n%2 == 0 && (err != nil || v.Phase != vm.Ready || v.Status != vm.PoweredOn || told[id] != "ready"):
			t.Errorf("machine: got %s, %s, %v, told %s, want ready", v.Phase, v.Status, err, told[id])
		}
	}
	for i := range images {
		if n := g.gets[i].Load(); n < 1 || n > 2 { // a second where all who wanted it were destroyed meanwhile
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

// A receiver that hangs holds up neither other receivers' callbacks nor the
// destruction of its machines, and what it did is told.
func TestSlowReceiverHoldsUpNobody(t *testing.T) {
	h := newHouse(t).open()
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

// Attempts and the last error are in the machine's document, across a restart.
func TestCallbackIsTold(t *testing.T) {
	h := newHouse(t)
	h.refuse.Store(1)
	h.open()
	v := h.wait(h.create(h.request()).ID)
	for deadline := time.Now().Add(10 * time.Second); v.Callback.Attempts == 0 && time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
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
