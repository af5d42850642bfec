package image_test

import (
	"path/filepath"
	"testing"

	"osx-builder/image"
	"osx-builder/vm/vmtest"
)

// Disk shows what could be evicted if space is short, without what machines need.
func TestDisk(t *testing.T) {
	dir := filepath.Join(vmtest.TempDir(t), "images")
	open := func(reserve int64) *image.Cache {
		c, err := image.Open(dir, image.Options{Limits: image.Limits{FreeBytes: reserve}})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	look := func(c *image.Cache) image.Disk {
		t.Helper()
		d, err := c.Disk()
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	c := open(-1)
	sum, _ := keep(t, c, 64)
	if d := look(c); d.Free <= 0 || d.Total < d.Free || d.Reserve != 0 || d.Evictable != 0 {
		t.Errorf("with room: got %+v", d)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	c = open(1 << 60)
	defer c.Close()
	if d := look(c); d.Reserve != 1<<60 || d.Evictable < 64<<10 {
		t.Errorf("short of room: got %+v, want the image's 64 KiB to be evictable", d)
	}
	c.Hold("a machine", sum)
	if d := look(c); d.Evictable != 0 {
		t.Errorf("short of room, the image in use: got %+v, want nothing evictable", d)
	}
}
