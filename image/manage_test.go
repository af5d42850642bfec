package image_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"osx-builder/image"
)

// keep puts a new image of about kib KiB into c.
func keep(t testing.TB, c *image.Cache, kib int) (image.Sum, image.Gold) {
	t.Helper()
	b := tarOf(t, vmx("a.vmx"), file{name: "dir/disk", body: noise(kib<<10, uint64(kib))})
	url, _ := serve(t, b)
	s := sumOf(t, b)
	g, err := c.Ensure(t.Context(), image.Source{URL: url, Sum: s}, nil)
	must(t, err)
	return s, g
}

func sums(t testing.TB, c *image.Cache) []image.Sum {
	t.Helper()
	list, err := c.List()
	must(t, err)
	var s []image.Sum
	for _, e := range list {
		s = append(s, e.Sum)
	}
	return s
}

func TestListAndRemove(t *testing.T) {
	c, dir := open(t)
	before := time.Now().Add(-time.Second)
	s, _ := keep(t, c, 100)
	c.Hold("one", s)
	c.Hold("two", s)
	c.Hold("two", s) // again, as after a start
	list, err := c.List()
	must(t, err)
	want := []image.Entry{{Sum: s, Bytes: 100<<10 + 21, InUse: 2}}
	if diff := cmp.Diff(want, list, cmpopts.IgnoreFields(image.Entry{}, "URL", "ArchiveBytes", "DiskBytes", "CreatedAt", "UsedAt")); diff != "" {
		t.Errorf("list (-want +got):\n%s", diff)
	}
	if e := list[0]; e.ArchiveBytes < 100<<10 || e.DiskBytes < 100<<10 || e.CreatedAt.Before(before.Truncate(time.Second)) || e.UsedAt.Before(before) ||
		!strings.HasPrefix(e.URL, "http://127.0.0.1") || strings.Contains(e.URL, "hush") {
		t.Errorf("entry %+v", e)
	}
	if err := c.Remove(s); !errors.Is(err, image.ErrInUse) || !strings.Contains(err.Error(), "2 machines") {
		t.Errorf("removing an image in use: %v, want ErrInUse", err)
	}
	c.Release("one")
	if err := c.Remove(s); !errors.Is(err, image.ErrInUse) || !strings.Contains(err.Error(), "1 machines") {
		t.Errorf("removing an image that one of two released: %v, want ErrInUse", err)
	}
	c.Hold("two", image.Sum{Type: "md5", Hex: strings.Repeat("0", 32)}) // in place of s
	c.HoldAll("three", errors.New("nobody knows"))
	if err := c.Remove(s); err == nil || !strings.Contains(err.Error(), "nobody knows") {
		t.Errorf("removing an image while all are held: %v, want the reason", err)
	}
	if _, err := c.List(); err == nil || !strings.Contains(err.Error(), "nobody knows") {
		t.Errorf("listing images while all are held: %v, want the reason", err)
	}
	c.Release("three")
	must(t, c.Remove(s))
	wantEmpty(t, dir)
	if err := c.Remove(s); !errors.Is(err, image.ErrNotFound) {
		t.Errorf("removing it again: %v, want ErrNotFound", err)
	}
}

// Over its size the cache gives up what nobody needs, the least recently used
// first.
func TestTheCacheIsTrimmed(t *testing.T) {
	c, dir := open(t, func(o *image.Options) {
		o.CacheBytes = 700 << 10
	})
	needed, _ := keep(t, c, 200)
	c.Hold("a machine", needed)
	oldest, gold := keep(t, c, 201)
	older, _ := keep(t, c, 202)
	must(t, os.Chtimes(filepath.Join(dir, "gold", older.String()), time.Time{}, time.Now().Add(-time.Hour)))
	must(t, os.Chtimes(filepath.Join(dir, "gold", oldest.String()), time.Time{}, time.Now().Add(-2*time.Hour)))
	again, err := c.Ensure(t.Context(), image.Source{URL: "http://127.0.0.1:1/", Sum: oldest}, nil) // used now, so older goes first
	must(t, err)
	if again != gold {
		t.Errorf("got %v, want %v", again, gold)
	}
	newest, _ := keep(t, c, 203)
	if diff := cmp.Diff([]image.Sum{needed, oldest, newest}, sums(t, c)); diff != "" {
		t.Errorf("images left (-want +got):\n%s", diff)
	}
	alone, _ := keep(t, c, 900) // larger than the cache, and needed by its caller at least
	if diff := cmp.Diff([]image.Sum{needed, alone}, sums(t, c)); diff != "" {
		t.Errorf("images left (-want +got):\n%s", diff)
	}
}

// Whoever touches a gold image's files is noticed, and it is not handed out;
// once it is removed it can be had again.
func TestAChangedImageIsNotCloned(t *testing.T) {
	for name, change := range map[string]func(dir string) error{
		"other size": func(dir string) error { return os.Truncate(filepath.Join(dir, "dir/disk"), 5) },
		"other time": func(dir string) error {
			return os.Chtimes(filepath.Join(dir, "a.vmx"), time.Now(), time.Now().Add(time.Minute))
		},
		"file gone":   func(dir string) error { return os.Remove(filepath.Join(dir, "dir/disk")) },
		"file added":  func(dir string) error { return os.WriteFile(filepath.Join(dir, "dir/more"), nil, 0o644) },
		"link put in": func(dir string) error { return os.Symlink("/etc/passwd", filepath.Join(dir, "dir/link")) },
		"record gone": func(dir string) error { return os.Remove(filepath.Join(dir, "image.json")) },
		"record torn": func(dir string) error {
			return errors.Join(os.Chmod(filepath.Join(dir, "image.json"), 0o644), os.WriteFile(filepath.Join(dir, "image.json"), []byte("{"), 0o644))
		},
	} {
		t.Run(name, func(t *testing.T) {
			c, dir := open(t)
			s, g := keep(t, c, 10)
			for _, path := range []string{g.Dir, filepath.Join(g.Dir, "dir")} {
				must(t, os.Chmod(path, 0o755))
			}
			must(t, os.Chmod(filepath.Join(g.Dir, "dir/disk"), 0o644))
			must(t, change(g.Dir))
			_, err := c.Ensure(t.Context(), image.Source{URL: "http://127.0.0.1:1/", Sum: s}, nil)
			if !errors.Is(err, image.ErrInvalid) || !strings.Contains(err.Error(), "was changed") || strings.Contains(err.Error(), dir) {
				t.Errorf("got %v, want ErrInvalid that says so, without a path", err)
			}
			must(t, c.Remove(s))
			again, _ := keep(t, c, 10)
			if again != s {
				t.Errorf("got %v, want %v", again, s)
			}
		})
	}
}

// What an earlier process left unfinished goes at Open; a download that can be
// resumed stays, unless it is old or its image is there.
func TestOpenSweeps(t *testing.T) {
	c, dir := open(t)
	s, _ := keep(t, c, 10)
	must(t, c.Close())
	fresh, old := sumOf(t, []byte("fresh")), sumOf(t, []byte("old"))
	put := func(name string) {
		must(t, os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o600))
	}
	must(t, os.MkdirAll(filepath.Join(dir, ".staging-1/sub"), 0o755))
	put(".staging-1/sub/file")
	must(t, os.Chmod(filepath.Join(dir, ".staging-1/sub"), 0o555))
	must(t, os.MkdirAll(filepath.Join(dir, ".trash-1/image"), 0o755))
	must(t, os.Chmod(filepath.Join(dir, ".trash-1"), 0o555))
	put(".tmp")
	put(s.String() + ".part")
	put(s.String() + ".part.json")
	put(fresh.String() + ".part")
	put(fresh.String() + ".part.json")
	put(old.String() + ".part")
	put(old.String() + ".part.json")
	month := time.Now().Add(-30 * 24 * time.Hour)
	must(t, os.Chtimes(filepath.Join(dir, old.String()+".part"), month, month))
	put(sumOf(t, []byte("orphan")).String() + ".part.json")
	put("README")
	c = openIn(t, dir)
	want := []string{"README", "gold", fresh.String() + ".part", fresh.String() + ".part.json", "gold/" + s.String()}
	if diff := cmp.Diff(want, ls(t, dir)); diff != "" {
		t.Errorf("cache folder (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]image.Sum{s}, sums(t, c)); diff != "" {
		t.Errorf("images (-want +got):\n%s", diff)
	}
}

func TestSums(t *testing.T) {
	const hex = "D41D8CD98F00B204E9800998ECF8427E"
	want := image.Sum{Type: "md5", Hex: strings.ToLower(hex)}
	for _, name := range []string{hex, "md5-" + hex, "MD5-" + hex} {
		if got, err := image.FindSum(name); err != nil || got != want {
			t.Errorf("FindSum(%q) is %v, %v, want %v", name, got, err, want)
		}
	}
	for _, tt := range []struct{ typ, hex, text string }{
		{"crc32", "00000000", "md5, sha1, sha256, sha512"},
		{"sha256", hex, "64 hex digits, not 32"},
		{"md5", "g" + hex[1:], "hexadecimal"},
		{"", "", "not one of"},
	} {
		if _, err := image.ParseSum(tt.typ, tt.hex); err == nil || !strings.Contains(err.Error(), tt.text) {
			t.Errorf("ParseSum(%q, %q): %v, want %q", tt.typ, tt.hex, err, tt.text)
		}
	}
	for _, name := range []string{"", "..", "../gold", "md5-../../x", hex + "0"} {
		if s, err := image.FindSum(name); err == nil {
			t.Errorf("FindSum(%q) is %v, want an error", name, s)
		}
	}
	if got := fmt.Sprint(want); got != "md5-"+strings.ToLower(hex) {
		t.Errorf("a Sum prints as %q", got)
	}
}

// A file that others share with an image takes no disk space of its own.
func TestSharedFilesCountOnce(t *testing.T) {
	c, dir := open(t, func(o *image.Options) { o.Derived = "made" })
	s, gold := keep(t, c, 500)
	before, err := c.List()
	must(t, err)
	made := filepath.Join(dir, "made", s.String())
	must(t, os.MkdirAll(made, 0o755))
	must(t, os.Link(filepath.Join(filepath.Dir(gold.VMX), "dir", "disk"), filepath.Join(made, "disk")))
	after, err := c.List()
	must(t, err)
	if after[0].DiskBytes != before[0].DiskBytes {
		t.Errorf("with a shared disk the image takes %d bytes on disk, want %d as before", after[0].DiskBytes, before[0].DiskBytes)
	}
}

// What others made of an image counts as its own and goes with it, whether it
// is removed or evicted.
func TestWhatWasMadeOfAnImageGoesWithIt(t *testing.T) {
	c, dir := open(t, func(o *image.Options) { o.CacheBytes, o.Derived = 700<<10, "made" })
	derive := func(s image.Sum) {
		must(t, os.MkdirAll(filepath.Join(dir, "made", s.String()), 0o755))
		must(t, os.WriteFile(filepath.Join(dir, "made", s.String(), "disk"), noise(500<<10, 1), 0o444))
	}
	left := func() []string {
		names, err := filepath.Glob(filepath.Join(dir, "made", "*"))
		must(t, err)
		return names
	}
	evicted, _ := keep(t, c, 100)
	derive(evicted)
	list, err := c.List()
	must(t, err)
	if got := list[0].DiskBytes; got < 600<<10 {
		t.Errorf("the image takes %d bytes on disk, want those of what was made of it counted", got)
	}
	removed, _ := keep(t, c, 150)
	if got := sums(t, c); len(got) != 1 || got[0] != removed || len(left()) != 0 {
		t.Errorf("got images %v and %v made of them, want the new one alone", got, left())
	}
	derive(removed)
	must(t, c.Remove(removed))
	if diff := cmp.Diff([]string{"gold", "made"}, ls(t, dir)); diff != "" || len(left()) != 0 {
		t.Errorf("got %v left, and (-want +got):\n%s", left(), diff)
	}
}
