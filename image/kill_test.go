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
	const rounds, atOnce = 50, 4
	files := []file{vmx("a.vmx"), {name: "disk", body: noise(1<<19, 1)}, {name: "zeroes", body: make([]byte, 1<<20)}}
	b := gzipOf(t, tarOf(t, files...))
	s := sumOf(t, b)

	start := time.Now()
	url, _ := serveSlowly(t, b)
	dir := t.TempDir()
	cmd, _ := startHelper(t, "ensure", dir, url, s.String())
	started := time.Now()
	must(t, cmd.Wait())
	whole := time.Since(started)
	t.Logf("an Ensure takes %v, and %v with its process", whole, time.Since(start))
	openIn(t, dir)

	var wg sync.WaitGroup
	todo := make(chan int)
	for range atOnce {
		wg.Go(func() {
			for i := range todo {
				moment := rand.N(2 * whole) // each takes longer with others beside it
				t.Run(itoa(i), func(t *testing.T) { killed(t, moment, files, b) })
			}
		})
	}
	for i := range rounds {
		todo <- i
	}
	close(todo)
	wg.Wait()
}

// killed kills a process after that time of a cold Ensure.
func killed(t *testing.T, moment time.Duration, files []file, b []byte) {
	s := sumOf(t, b)
	url, ranges := serveSlowly(t, b)
	dir := t.TempDir()
	cmd, _ := startHelper(t, "ensure", dir, url, s.String())
	time.Sleep(moment)
	_ = cmd.Process.Kill()
	_ = cmd.Wait()

	have := int64(0)
	if info, err := os.Stat(filepath.Join(dir, s.String()+".part")); err == nil {
		have = info.Size()
	}
	_, err := os.Stat(filepath.Join(dir, "gold", s.String()))
	isGold := err == nil
	ranges()

	c := openIn(t, dir)
	g, err := c.Ensure(t.Context(), image.Source{URL: url, Sum: s}, nil)
	if err != nil {
		t.Fatalf("killed after %v with %d bytes: %v", moment, have, err)
	}
	wantFiles(t, g, files)
	switch asked := ranges(); {
	case isGold || have == int64(len(b)):
		if len(asked) != 0 {
			t.Errorf("killed after %v with everything there: asked for %q", moment, asked)
		}
	case have > 0 && (len(asked) != 1 || asked[0] != fmt.Sprintf("bytes=%d-", have)):
		t.Errorf("killed after %v with %d bytes: asked for %q", moment, have, asked)
	}
	if got := len(ls(t, dir)); got != 2 {
		t.Errorf("killed after %v: cache holds %v", moment, ls(t, dir))
	}
}

// serveSlowly serves b, and returns what returns the ranges that were asked for
// since its last call.
func serveSlowly(t *testing.T, b []byte) (url string, ranges func() []string) {
	var mu sync.Mutex
	var asked []string
	url = serveFunc(t, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		asked = append(asked, r.Header.Get("Range"))
		mu.Unlock()
		plain(&slowWriter{w}, r, b)
	})
	return url, func() []string {
		mu.Lock()
		defer mu.Unlock()
		was := asked
		asked = nil
		return was
	}
}

// slowWriter makes a transfer last long enough to be killed in the middle.
type slowWriter struct{ http.ResponseWriter }

func (s *slowWriter) Write(b []byte) (int, error) {
	time.Sleep(6 * time.Millisecond)
	return s.ResponseWriter.Write(b)
}
