package template_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"osx-builder/vm/qemu/network"
	"osx-builder/vm/qemu/template"
)

const mib = 1 << 20

// folder is the data of a store under test.
type folder struct {
	options template.Options
	work    string // where guests leave their files
}

func newFolder(t *testing.T) *folder {
	t.Helper()
	dir := t.TempDir()
	f := &folder{work: filepath.Join(dir, "work")}
	f.options = template.Options{Dir: filepath.Join(dir, "templates"), Gold: filepath.Join(dir, "gold"), Memory: 8 * mib}
	for _, d := range []string{f.work, filepath.Join(f.options.Gold, "sha1-aa")} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

func (f *folder) open(t *testing.T) *template.Store {
	t.Helper()
	s, err := template.Open(f.options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// content is what a guest has in its memory.
func content() []byte {
	b := make([]byte, 4*mib)
	copy(b, "the beginning")
	copy(b[2*mib+5:], "the middle")
	return b
}

// guest makes what a guest leaves.
func (f *folder) guest(t *testing.T, key string) (template.Info, template.Files) {
	t.Helper()
	m, err := template.NewMemory(4 * mib)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	if _, err := m.WriteAt([]byte("the beginning"), 0); err != nil {
		t.Fatal(err)
	}
	if _, err := m.WriteAt([]byte("the middle"), 2*mib+5); err != nil {
		t.Fatal(err)
	}
	if err := template.Seal(m); err != nil {
		t.Fatal(err)
	}
	file := func(name string) string {
		path := filepath.Join(f.work, name)
		if err := os.WriteFile(path, []byte(name+" of "+key), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	info := template.Info{Key: key, Image: "sha1-aa", CPUs: 2, Memory: 4, Network: network.NAT, Disks: 1, CreatedAt: time.Now()}
	return info, template.Files{Disks: []string{file("disk0")}, Empty: []string{file("empty0")}, State: file("state"), Memory: m}
}

func (f *folder) publish(t *testing.T, s *template.Store, key string) {
	t.Helper()
	if err := s.Publish(f.guest(t, key)); err != nil {
		t.Fatal(err)
	}
}

func keyOf(part string) string { return template.Key(part) }

// want checks that the template of the key is there as it was published.
func want(t *testing.T, s *template.Store, key string) {
	t.Helper()
	got, memory, err := s.Get(key)
	if err != nil {
		t.Fatal(err)
	}
	defer memory.Close()
	b, err := io.ReadAll(io.NewSectionReader(memory, 0, 8*mib))
	if err != nil || !bytes.Equal(b, content()) {
		t.Errorf("the memory has %d other bytes (%v)", len(b), err)
	}
	for path, text := range map[string]string{got.Disk(0): "disk0", got.Empty(0): "empty0"} {
		b, err := os.ReadFile(path)
		if err != nil || string(b) != text+" of "+key {
			t.Errorf("%s: got %q (%v), want %q", path, b, err, text)
		}
	}
	state, err := got.OpenState()
	if err != nil {
		t.Fatal(err)
	}
	defer state.Close()
	if b, err := io.ReadAll(state); err != nil || string(b) != "state of "+key {
		t.Errorf("state: got %q (%v)", b, err)
	}
}

func wantNone(t *testing.T, s *template.Store, key string) {
	t.Helper()
	if _, _, err := s.Get(key); !errors.Is(err, template.ErrNotFound) {
		t.Errorf("got %v, want %v", err, template.ErrNotFound)
	}
}

// A template is the same for the store that published it and for later ones.
func TestTemplateOutlivesTheStore(t *testing.T) {
	f := newFolder(t)
	key := keyOf("a")
	s := f.open(t)
	wantNone(t, s, key)
	f.publish(t, s, key)
	want(t, s, key)
	if got := s.Loaded(); got != 4 {
		t.Errorf("got %d MiB loaded, want 4", got)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = f.open(t)
	if got := s.Loaded(); got != 0 {
		t.Errorf("got %d MiB loaded before the first use, want none", got)
	}
	if list, err := s.List(); err != nil || len(list) != 1 || list[0].Key != key || list[0].MemoryBytes != 0 || list[0].DiskBytes == 0 {
		t.Errorf("got %+v (%v), want the template, whose memory is not loaded", list, err)
	}
	want(t, s, key)
	if list, err := s.List(); err != nil || list[0].MemoryBytes == 0 || list[0].MemoryBytes > 64<<10 || list[0].UsedAt.IsZero() {
		t.Errorf("got %+v (%v), want little memory, as most is a hole", list, err)
	}
	f.publish(t, s, key)
	want(t, s, key)
	if err := s.Remove(key); err != nil {
		t.Fatal(err)
	}
	wantNone(t, s, key)
	for _, bad := range []string{key, "", "..", strings.ToUpper(key)} {
		if err := s.Remove(bad); !errors.Is(err, template.ErrNotFound) {
			t.Errorf("removing %q: got %v, want %v", bad, err, template.ErrNotFound)
		}
	}
}

// Nobody who gets the memory can change it, in whatever way.
func TestMemoryIsSealed(t *testing.T) {
	f := newFolder(t)
	key := keyOf("a")
	s := f.open(t)
	f.publish(t, s, key)
	_, memory, err := s.Get(key)
	if err != nil {
		t.Fatal(err)
	}
	defer memory.Close()
	again, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", memory.Fd()), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	fd := int(again.Fd())
	if _, err := unix.Pwrite(fd, []byte("x"), 0); !errors.Is(err, unix.EPERM) {
		t.Errorf("writing: got %v, want %v", err, unix.EPERM)
	}
	if _, err := unix.Mmap(fd, 0, mib, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); !errors.Is(err, unix.EPERM) {
		t.Errorf("mapping: got %v, want %v", err, unix.EPERM)
	}
	if err := unix.Ftruncate(fd, 0); !errors.Is(err, unix.EPERM) {
		t.Errorf("truncating: got %v, want %v", err, unix.EPERM)
	}
	if err := unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, mib); !errors.Is(err, unix.EPERM) {
		t.Errorf("punching a hole: got %v, want %v", err, unix.EPERM)
	}
	own, err := unix.Mmap(fd, 0, 4*mib, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE) // as a machine does
	if err != nil {
		t.Fatal(err)
	}
	clear(own)
	if err := unix.Munmap(own); err != nil {
		t.Error(err)
	}
	want(t, s, key)
}

// Whatever step a crash interrupts, there is a whole template or none, and no
// litter after the next start.
func TestCrashWhilePublishing(t *testing.T) {
	f := newFolder(t)
	key := keyOf("a")
	s := f.open(t)
	f.publish(t, s, key)
	whole := filepath.Join(f.options.Dir, key)
	names, err := os.ReadDir(whole)
	if err != nil {
		t.Fatal(err)
	}
	for n := range len(names) + 1 {
		draft := filepath.Join(f.options.Dir, ".new-crashed")
		if err := os.Mkdir(draft, 0o700); err != nil {
			t.Fatal(err)
		}
		for _, name := range names[:n] {
			if err := os.Link(filepath.Join(whole, name.Name()), filepath.Join(draft, name.Name())); err != nil {
				t.Fatal(err)
			}
		}
		s := f.open(t)
		want(t, s, key)
		if entries, err := os.ReadDir(f.options.Dir); err != nil || len(entries) != 1 {
			t.Errorf("after a crash with %d files there is %v (%v), want the template alone", n, entries, err)
		}
	}
	// A failure leaves nothing, and the template of before.
	info, files := f.guest(t, key)
	files.State = filepath.Join(f.work, "missing")
	if err := s.Publish(info, files); err == nil {
		t.Error("a template without state was published")
	}
	if entries, err := os.ReadDir(f.options.Dir); err != nil || len(entries) != 1 {
		t.Errorf("after a failure there is %v (%v), want the template alone", entries, err)
	}
	want(t, f.open(t), key)
}

// Templates make room for others, the least recently used first, and go when they
// are too old and with their image.
func TestTemplatesAreRemoved(t *testing.T) {
	f := newFolder(t)
	a, b, c := keyOf("a"), keyOf("b"), keyOf("c")
	s := f.open(t)
	if s.Fits(9) || !s.Fits(8) {
		t.Error("Fits does not hold to the limit of 8 MiB")
	}
	f.publish(t, s, a)
	f.publish(t, s, b)
	want(t, s, a)
	f.publish(t, s, c)
	want(t, s, a)
	want(t, s, c)
	wantNone(t, s, b)
	info, files := f.guest(t, b)
	info.CreatedAt = time.Now().Add(-2 * time.Hour)
	if err := s.Publish(info, files); err != nil {
		t.Fatal(err)
	}
	wantNone(t, s, b)
	info, files = f.guest(t, b)
	info.CreatedAt, info.Agent = time.Now().Add(-2*time.Hour), true
	if err := s.Publish(info, files); err != nil {
		t.Fatal(err)
	}
	want(t, s, b)
	if err := os.Remove(filepath.Join(f.options.Gold, "sha1-aa")); err != nil {
		t.Fatal(err)
	}
	if err := s.Sweep(); err != nil {
		t.Fatal(err)
	}
	if list, err := s.List(); err != nil || len(list) != 0 {
		t.Errorf("without their image there are %v (%v)", list, err)
	}
}
