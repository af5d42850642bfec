package image

// Disk is how full the disk is that holds the images, in bytes.
type Disk struct {
	Free      int64 `json:"free_bytes"`
	Total     int64 `json:"total_bytes"`
	Reserve   int64 `json:"reserve_bytes"`             // kept for the host
	Evictable int64 `json:"evictable_bytes,omitempty"` // of images that make room; counted where less than Reserve is free
}

// Disk looks at the disk.
func (c *Cache) Disk() (Disk, error) {
	free, total, err := diskSpace(c.dir)
	if err != nil {
		return Disk{}, err
	}
	d := Disk{Free: free, Total: total, Reserve: c.limits.FreeBytes}
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
