package image_test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"osx-builder/image"
)

// A process is killed at random moments of a cold Ensure. The next one ends
// with the image, downloads no byte that it has, and leaves no litter.
func TestKilledAtRandomMoments(t *testing.T) {
	const rounds = 50
	files := []file{vmx("a.vmx"), {name: "disk", body: noise(1<<20, 1)}, {name: "zeroes", body: make([]byte, 3<<20)}}
	b := gzipOf(t, tarOf(t, files...))
	s := sumOf(t, b)
	var mu sync.Mutex
	var ranges []string
	url := serveFunc(t, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		ranges = append(ranges, r.Header.Get("Range"))
		mu.Unlock()
		plain(&slowWriter{w}, r, b)
	})

	start := time.Now()
	dir := t.TempDir()
	cmd, _ := startHelper(t, "ensure", dir, url, s.String())
	started := time.Now()
	must(t, cmd.Wait())
	whole := time.Since(started)
	t.Logf("an Ensure takes %v, and %v with its process", whole, time.Since(start))
	openIn(t, dir)

	for range rounds {
		dir := t.TempDir()
		cmd, _ := startHelper(t, "ensure", dir, url, s.String())
		moment := rand.N(whole)
		time.Sleep(moment)
		_ = cmd.Process.Kill()
		_ = cmd.Wait()

		have := int64(0)
		if info, err := os.Stat(filepath.Join(dir, s.String()+".part")); err == nil {
			have = info.Size()
		}
		_, err := os.Stat(filepath.Join(dir, "gold", s.String()))
		isGold := err == nil
		mu.Lock()
		ranges = nil
		mu.Unlock()

		c := openIn(t, dir)
		g, err := c.Ensure(t.Context(), image.Source{URL: url, Sum: s}, nil)
		if err != nil {
			t.Fatalf("killed after %v with %d bytes: %v", moment, have, err)
		}
		wantFiles(t, g, files)
		mu.Lock()
		switch {
		case isGold || have == int64(len(b)):
			if len(ranges) != 0 {
				t.Errorf("killed after %v with everything there: asked for %q", moment, ranges)
			}
		case have > 0 && (len(ranges) != 1 || ranges[0] != fmt.Sprintf("bytes=%d-", have)):
			t.Errorf("killed after %v with %d bytes: asked for %q", moment, have, ranges)
		}
		mu.Unlock()
		if got := len(ls(t, dir)); got != 2 {
			t.Errorf("killed after %v: cache holds %v", moment, ls(t, dir))
		}
	}
}

// slowWriter makes a transfer last long enough to be killed in the middle.
type slowWriter struct{ http.ResponseWriter }

func (s *slowWriter) Write(b []byte) (int, error) {
	time.Sleep(3 * time.Millisecond)
	return s.ResponseWriter.Write(b)
}
