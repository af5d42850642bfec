package image

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Disk is how full the disk is that holds the images, in bytes.
type Disk struct {
	Free      int64 `json:"free_bytes"`
	Total     int64 `json:"total_bytes"`
	Reserve   int64 `json:"reserve_bytes"`             // kept for the host
	Evictable int64 `json:"evictable_bytes,omitempty"` // of images that make room; counted where less than Reserve is free
}

// Disk looks at the disk.
func (c *Cache) Disk() (Disk, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(c.dir, &st); err != nil {
		return Disk{}, fmt.Errorf("asking for free disk space: %w", err)
	}
	block := int64(st.Bsize) // #nosec G115
	d := Disk{Free: int64(st.Bavail) * block, Total: int64(st.Blocks) * block, Reserve: c.limits.FreeBytes}
	if d.Free >= d.Reserve {
		return d, nil // what could go is of no interest
	}
	list, err := c.List()
	for _, e := range list {
		if e.InUse == 0 {
			d.Evictable += e.DiskBytes
		}
	}
	return d, err
}
