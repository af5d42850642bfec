package image

import "sync"

// holds records who needs which image. It is kept in memory only: a holder of
// images knows from its own files which ones it needs, and says so after a start.
type holds struct {
	mu      sync.Mutex // guards what follows
	images  map[string]Sum
	unknown map[string]error // of holders that need an image, but nobody knows which one
}

func newHolds() *holds {
	return &holds{images: map[string]Sum{}, unknown: map[string]error{}}
}

// Hold keeps an image, and an unfinished download of it, from being removed or
// evicted until the holder is released. A holder needs one image: a second Hold
// replaces the first. The image need not be there yet. After Open nothing is
// held, so the holders of before are named before Ensure is called first.
func (c *Cache) Hold(holder string, s Sum) {
	c.gold.holds.mu.Lock()
	defer c.gold.holds.mu.Unlock()
	delete(c.gold.holds.unknown, holder)
	c.gold.holds.images[holder] = s
}

// HoldAll keeps every image from being removed or evicted until the holder is
// released: it needs one, and reason says why nobody knows which.
func (c *Cache) HoldAll(holder string, reason error) {
	c.gold.holds.mu.Lock()
	defer c.gold.holds.mu.Unlock()
	delete(c.gold.holds.images, holder)
	c.gold.holds.unknown[holder] = reason
}

// Holders returns how many holders an image has. It fails with the reason of a HoldAll
// if there is one.
func (c *Cache) Holders(s Sum) (int, error) {
	held, err := c.gold.holds.count()
	return held[s], err
}

// Release ends what Hold or HoldAll began. It is a no-op for an unknown holder.
func (c *Cache) Release(holder string) {
	c.gold.holds.mu.Lock()
	defer c.gold.holds.mu.Unlock()
	delete(c.gold.holds.images, holder)
	delete(c.gold.holds.unknown, holder)
}

// count returns how many holders each image has. It fails with the reason of a
// HoldAll if there is one.
func (h *holds) count() (map[Sum]int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, reason := range h.unknown {
		return nil, reason
	}
	held := make(map[Sum]int)
	for _, s := range h.images {
		held[s]++
	}
	return held, nil
}
