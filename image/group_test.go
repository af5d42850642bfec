package image

import (
	"slices"
	"testing"
)

// openCache returns a cache, which is closed when the test ends, and the checksum of an image that it does not have.
func openCache(t *testing.T) (*Cache, Sum) {
	t.Helper()
	c, err := Open(t.TempDir(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	s, err := ParseSum("md5", "0123456789abcdef0123456789abcdef")
	if err != nil {
		t.Fatal(err)
	}
	return c, s
}

// A fetch that has tried all its URLs accepts no waiter whose URL it would not
// try. The moment is too short to be met from outside the package.
func TestAnEndingFlightTakesNobodyOn(t *testing.T) {
	c, s := openCache(t)
	ending := &fetchGroup{sum: s, urls: []string{"http://127.0.0.1:1/first"}}
	c.fetches.groups[s] = ending
	for _, want := range []bool{true, false} {
		if url, ok := c.fetches.nextURL(ending); ok != want {
			t.Fatalf("got %q, %v, want %v", url, ok, want)
		}
	}
	late := Source{URL: "http://127.0.0.1:1/late", Sum: s}
	f, _, err := c.fetches.join(late, c.runGroup)
	if err != nil {
		t.Fatal(err)
	}
	if f == ending || !slices.Equal(f.urls, []string{late.URL}) {
		t.Errorf("joined the fetch of %q, want a new one of %s", f.urls, late.URL)
	}
	c.fetches.leave(f)
	c.fetches.remove(ending) // as its goroutine does last
}

// A caller is told of a download that it starts, even of one that has ended before it waits.
func TestShortDownloadIsReported(t *testing.T) {
	c, s := openCache(t)
	src := Source{URL: "http://127.0.0.1:1/", Sum: s}
	f, now, err := c.fetches.join(src, func(f *fetchGroup) {
		c.fetches.nextURL(f)
		f.meter.set(Unpacking, 0, 1)
		c.fetches.remove(f)
		close(f.done)
	})
	if err != nil {
		t.Fatal(err)
	}
	<-f.done
	var stages []Stage
	if _, err := c.wait(t.Context(), f, now, src.URL, func(p Progress) { stages = append(stages, p.Stage) }); err != nil {
		t.Fatal(err)
	}
	if want := []Stage{Downloading, Unpacking}; !slices.Equal(stages, want) {
		t.Errorf("got reports of %v, want %v", stages, want)
	}
}
