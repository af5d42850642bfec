package image_test

import (
	"errors"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"osx-builder/image"
)

func TestMain(m *testing.M) {
	if helper(os.Args) {
		return
	}
	goleak.VerifyTestMain(m)
}

// open opens a cache in a new folder, with limits that make failures quick.
func open(t testing.TB, change ...func(*image.Options)) (*image.Cache, string) {
	t.Helper()
	dir := t.TempDir()
	return openIn(t, dir, change...), dir
}

func openIn(t testing.TB, dir string, change ...func(*image.Options)) *image.Cache {
	t.Helper()
	o := image.Options{Limits: image.Limits{Tries: 3, RetryWait: time.Millisecond, FreeBytes: -1}}
	for _, f := range change {
		f(&o)
	}
	c, err := image.Open(dir, o)
	must(t, err)
	t.Cleanup(func() {
		must(t, c.Close())
		_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				return os.Chmod(path, 0o755) // so that t.TempDir can remove it
			}
			return err
		})
	})
	return c
}

func limits(f func(*image.Limits)) func(*image.Options) {
	return func(o *image.Options) { f(&o.Limits) }
}

// ls lists the cache's folder, two levels deep.
func ls(t testing.TB, dir string) []string {
	t.Helper()
	var names []string
	for _, sub := range []string{"", "gold"} {
		entries, err := os.ReadDir(filepath.Join(dir, sub))
		must(t, err)
		for _, e := range entries {
			names = append(names, filepath.Join(sub, e.Name()))
		}
	}
	return names
}

// wantEmpty fails unless the cache is as it was born.
func wantEmpty(t testing.TB, dir string) {
	t.Helper()
	if diff := cmp.Diff([]string{"gold"}, ls(t, dir)); diff != "" {
		t.Errorf("cache folder is not empty (-want +got):\n%s", diff)
	}
}

// serve serves b under any path, as a plain file server does, and counts.
func serve(t testing.TB, b []byte) (url string, requests *atomic.Int64) {
	t.Helper()
	requests = new(atomic.Int64)
	url = serveFunc(t, func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		http.ServeContent(w, r, "image", time.Unix(1e9, 0), strings.NewReader(string(b)))
	})
	return url, requests
}

func serveFunc(t testing.TB, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL + "/image?secret=hush"
}

// wantFiles fails unless the gold image holds the files, read-only.
func wantFiles(t testing.TB, g image.Gold, files []file) {
	t.Helper()
	want, got := map[string]string{}, map[string]string{}
	for _, f := range files {
		if !strings.HasSuffix(f.name, "/") {
			want[f.name] = string(f.body)
		}
	}
	must(t, filepath.WalkDir(g.Dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if info.Mode().Perm()&0o222 != 0 {
			t.Errorf("mode of %s is %v, want read-only", path, info.Mode())
		}
		rel, err := filepath.Rel(g.Dir, path)
		if d.IsDir() || rel == "image.json" || err != nil {
			return err
		}
		b, err := os.ReadFile(path)
		got[filepath.ToSlash(rel)] = string(b)
		return err
	}))
	for name, body := range want {
		if got[name] != body {
			t.Errorf("%s has %d bytes, want %d, or others", name, len(got[name]), len(body))
		}
		delete(got, name)
	}
	if len(got) > 0 {
		t.Errorf("%d files too many", len(got))
	}
}

func TestEveryFormatBecomesGold(t *testing.T) {
	plain := tarOf(t, someFiles()...)
	v7 := tarOf(t, someFiles()...)
	oldTar(v7)
	for name, b := range map[string][]byte{
		"tar": plain, "tar before POSIX": v7, "tar.gz": gzipOf(t, plain), "tar.bz2": bzip2Of(t, plain),
		"tar.xz": xzOf(t, plain), "tar.zst": zstdOf(t, plain), "zip": zipOf(t, someFiles()...),
		"two gzip members": append(gzipOf(t, plain[:2000]), gzipOf(t, plain[2000:])...),
	} {
		t.Run(name, func(t *testing.T) {
			url, _ := serve(t, b)
			c, dir := open(t)
			s := sumOf(t, b)
			var stages []image.Stage
			g, err := c.Ensure(t.Context(), image.Source{URL: url, Sum: s}, func(p image.Progress) {
				if len(stages) == 0 || stages[len(stages)-1] != p.Stage {
					stages = append(stages, p.Stage)
				}
				if p.Bytes < 0 || p.Total >= 0 && p.Bytes > p.Total {
					t.Errorf("progress %+v is over its total", p)
				}
			})
			must(t, err)
			wantFiles(t, g, someFiles())
			if want := filepath.Join(dir, "gold", s.String(), "mac/mac.vmx"); g.VMX != want {
				t.Errorf("VMX is %s, want %s", g.VMX, want)
			}
			if diff := cmp.Diff([]string{"gold", "gold/" + s.String()}, ls(t, dir)); diff != "" {
				t.Errorf("cache folder (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff([]image.Stage{image.Downloading, image.Unpacking}, stages); diff != "" {
				t.Errorf("stages (-want +got):\n%s", diff)
			}
			record, err := os.ReadFile(filepath.Join(g.Dir, "image.json"))
			must(t, err)
			if strings.Contains(string(record), "hush") {
				t.Errorf("image.json shows the URL's query: %s", record)
			}
		})
	}
}

// oldTar takes the magic out of every header, as tar had it before POSIX.
func oldTar(b []byte) {
	for off := 0; off+512 <= len(b); off += 512 {
		h := b[off : off+512]
		if string(h[257:262]) != "ustar" {
			continue
		}
		for i := 257; i < 512; i++ {
			h[i] = 0
		}
		sum := 8 * int(' ')
		for i, c := range h {
			if i < 148 || i >= 156 {
				sum += int(c)
			}
		}
		copy(h[148:156], []byte{'0' + byte(sum>>15&7), '0' + byte(sum>>12&7), '0' + byte(sum>>9&7), '0' + byte(sum>>6&7), '0' + byte(sum>>3&7), '0' + byte(sum&7), 0, ' '})
	}
}

func TestEveryChecksumType(t *testing.T) {
	b := gzipOf(t, tarOf(t, someFiles()...))
	url, requests := serve(t, b)
	c, _ := open(t)
	for i, typ := range []string{"md5", "sha1", "sha256", "sha512"} {
		_, err := c.Ensure(t.Context(), image.Source{URL: url, Sum: sumOf(t, b, typ)}, nil)
		must(t, err)
		if got, want := requests.Load(), int64(i+1); got != want {
			t.Errorf("after %s %d requests, want %d", typ, got, want)
		}
	}
}

func TestAnImageThatIsThereIsNotDownloadedAgain(t *testing.T) {
	b := gzipOf(t, tarOf(t, someFiles()...))
	url, requests := serve(t, b)
	c, dir := open(t)
	src := image.Source{URL: url, Sum: sumOf(t, b)}
	first, err := c.Ensure(t.Context(), src, nil)
	must(t, err)
	must(t, c.Close())
	c = openIn(t, dir)
	second, err := c.Ensure(t.Context(), src, func(p image.Progress) { t.Errorf("progress %+v of an image that is there", p) })
	must(t, err)
	if first != second || requests.Load() != 1 {
		t.Errorf("got %v after %d requests, want %v after 1", second, requests.Load(), first)
	}
}

// Whatever is wrong with an image, Ensure names it by the right sentinel and
// nothing of it stays on disk.
func TestBadImagesLeaveNothing(t *testing.T) {
	plain := tarOf(t, someFiles()...)
	good := gzipOf(t, plain)
	wrong := sumOf(t, []byte("something else"))
	for name, tt := range map[string]struct {
		body []byte
		sum  *image.Sum
		want error
		text string
	}{
		"checksum of another file":  {body: good, sum: &wrong, want: image.ErrChecksum, text: wrong.Hex},
		"page that is no archive":   {body: []byte("<!DOCTYPE html>"), want: image.ErrInvalid, text: "web page"},
		"page for another checksum": {body: []byte("<!DOCTYPE html>"), sum: &wrong, want: image.ErrChecksum, text: wrong.Hex},
		"nothing at all":            {body: nil, want: image.ErrInvalid, text: "archive"},
		"no .vmx":                   {body: gzipOf(t, tarOf(t, file{name: "disk.vmdk", body: []byte("x")})), want: image.ErrInvalid, text: "no .vmx"},
		"two .vmx":                  {body: gzipOf(t, tarOf(t, vmx("a/a.vmx"), vmx("b/B.VMX"))), want: image.ErrInvalid, text: "a/a.vmx and b/B.VMX"},
		"empty tar":                 {body: gzipOf(t, tarOf(t)), want: image.ErrInvalid, text: "no file"},
		"empty zip":                 {body: zipOf(t), want: image.ErrInvalid, text: "no file"},
		"gzip cut off":              {body: good[:len(good)-5], want: image.ErrInvalid, text: "cut off"},
		"tar cut off in a file":     {body: gzipOf(t, plain[:100_000]), want: image.ErrInvalid, text: "cut off"},
		"tar without its end":       {body: gzipOf(t, plain[:len(plain)-1024]), want: image.ErrInvalid, text: "end mark"},
		"zip cut off":               {body: zipOf(t, someFiles()...)[:300_000], want: image.ErrInvalid, text: "damaged"},
		"xz cut off":                {body: cut(xzOf(t, plain)), want: image.ErrInvalid},
		"bzip2 cut off":             {body: cut(bzip2Of(t, plain)), want: image.ErrInvalid},
		"zstd cut off":              {body: cut(zstdOf(t, plain)), want: image.ErrInvalid},
		"junk behind a tar":         {body: append(bytesOf(plain), noise(2048, 9)...), want: image.ErrInvalid, text: "behind its end"},
		"junk behind a gzip":        {body: append(bytesOf(good), "junk"...), want: image.ErrInvalid},
		"junk behind a bzip2":       {body: append(bzip2Of(t, plain), "junk"...), want: image.ErrInvalid},
		"junk behind an xz":         {body: append(xzOf(t, plain), "junk"...), want: image.ErrInvalid},
		"junk behind a zstd":        {body: append(zstdOf(t, plain), "junk"...), want: image.ErrInvalid},
		"junk behind a zip":         {body: append(zipOf(t, someFiles()...), "junk"...), want: image.ErrInvalid, text: "behind its end"},
		"gzip in gzip":              {body: gzipOf(t, good), want: image.ErrInvalid, text: "packed twice"},
		"zip in gzip":               {body: gzipOf(t, zipOf(t, someFiles()...)), want: image.ErrInvalid, text: "packed twice"},
		"no archive in gzip":        {body: gzipOf(t, []byte("hello")), want: image.ErrInvalid, text: "no tar archive"},
		"gzip with a flipped bit":   {body: flipped(good), want: image.ErrInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			url, _ := serve(t, tt.body)
			c, dir := open(t)
			src := image.Source{URL: url, Sum: sumOf(t, tt.body)}
			if tt.sum != nil {
				src.Sum = *tt.sum
			}
			_, err := c.Ensure(t.Context(), src, nil)
			if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("got %v, want %v that says %q", err, tt.want, tt.text)
			}
			if strings.Contains(err.Error(), "hush") || strings.Contains(err.Error(), dir) {
				t.Errorf("error shows a secret or a path: %v", err)
			}
			wantEmpty(t, dir)
		})
	}
}

func cut(b []byte) []byte     { return b[:len(b)*2/3] }
func bytesOf(b []byte) []byte { return append([]byte(nil), b...) }

func flipped(b []byte) []byte {
	b = bytesOf(b)
	b[len(b)/2] ^= 0x10
	return b
}
