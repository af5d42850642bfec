package image

import (
	"slices"
	"testing"
)

// A fetch that has tried all its URLs accepts no waiter whose URL it would not
// try. The moment is too short to be met from outside the package.
func TestAnEndingFlightTakesNobodyOn(t *testing.T) {
	c, err := Open(t.TempDir(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	s, err := ParseSum("md5", "0123456789abcdef0123456789abcdef")
	if err != nil {
		t.Fatal(err)
	}
	ending := &fetchGroup{sum: s, urls: []string{"http://127.0.0.1:1/first"}}
	c.fetches.groups[s] = ending
	for _, want := range []bool{true, false} {
		if url, ok := c.fetches.nextURL(ending); ok != want {
			t.Fatalf("got %q, %v, want %v", url, ok, want)
		}
	}
	late := Source{URL: "http://127.0.0.1:1/late", Sum: s}
	f, err := c.fetches.join(late, c.runGroup)
	if err != nil {
		t.Fatal(err)
	}
	if f == ending || !slices.Equal(f.urls, []string{late.URL}) {
		t.Errorf("joined the fetch of %q, want a new one of %s", f.urls, late.URL)
	}
	c.fetches.leave(f)
	c.fetches.remove(ending) // as its goroutine does last
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
}
