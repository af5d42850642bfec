package image

import "github.com/dustin/go-humanize"

// budgetBytes is how much is written between two looks at the free space.
const budgetBytes = 4 << 20

// spaceBudget checks the free space once every budgetBytes.
type spaceBudget struct {
	check func(need int64) error
	left  int64
}

func (r *spaceBudget) reserve(n int64) error {
	if r.left -= n; r.left > 0 {
		return nil
	}
	r.left = budgetBytes
	return r.check(0)
}

// checkSpace makes sure that need bytes can be written without touching the host's
// reserve. Images that nobody needs are evicted for that.
func (c *Cache) checkSpace(need int64) error {
	short, err := c.shortage(need)
	if err != nil || short <= 0 {
		return err
	}
	c.evicting.Lock()
	defer c.evicting.Unlock()
	for {
		short, err := c.shortage(need)
		if err != nil || short <= 0 {
			return err
		}
		evicted, err := c.evict(short)
		if err != nil {
			return err
		}
		if !evicted {
			return fail(ErrDiskFull, nil, "the disk that holds the images is short of %s, with %s kept for the host: free space on it, or remove machines and images",
				humanize.IBytes(uint64(short)), humanize.IBytes(uint64(c.limits.FreeBytes)))
		}
	}
}

// shortage returns how many bytes are missing to write need bytes, 0 or less
// if none are.
func (c *Cache) shortage(need int64) (int64, error) {
	free, _, err := diskSpace(c.dir)
	return need + c.limits.FreeBytes - free, err
}
