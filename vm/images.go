package vm

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"osx-builder/image"
)

// ImagePhase is how far an image is.
type ImagePhase string

// The phases of an image, in their order.
const (
	ImageAccepted    ImagePhase = "accepted"
	ImageDownloading ImagePhase = "downloading"
	ImageUnpacking   ImagePhase = "unpacking"
	ImagePreparing   ImagePhase = "preparing" // the hypervisor makes what machines will need
	ImageReady       ImagePhase = "ready"
	ImageFailed      ImagePhase = "failed"
)

// CachedImage is an image as the API shows it: one that machines are cloned from, or one that a client has asked for.
type CachedImage struct {
	Checksum     string    `json:"checksum"`
	ChecksumType string    `json:"checksum_type"`
	URL          string    `json:"url"`          // where it came from, without query
	Bytes        int64     `json:"bytes"`        // of its files, holes included
	DiskBytes    int64     `json:"disk_bytes"`   // what they take on disk
	CreatedAt    time.Time `json:"created_at"`   // UTC
	LastUsedAt   time.Time `json:"last_used_at"` // UTC
	VMs          int       `json:"vms"`          // machines that need it

	Phase    ImagePhase `json:"phase"`
	Progress *Progress  `json:"progress,omitempty"` // while it is downloaded or unpacked by a pull
	Error    *Error     `json:"error,omitempty"`    // of a pull that failed
	Pinned   bool       `json:"pinned"`             // it is not removed to make room
}

// Images are the images that machines are cloned from. Clients can pull them before they create machines. Its methods
// may be called concurrently.
type Images struct {
	cache  *image.Cache
	kept   *keptImages
	driver Driver
	pools  *pools
	hosts  *Hosts
	tasks  *tasks
	log    *slog.Logger
	dir    string // of the records

	mu      sync.Mutex // guards what follows
	records map[image.Sum]*imageRecord
	pulls   map[image.Sum]*pull // those under way
}

// Images returns the images of the Manager.
func (m *Manager) Images() *Images { return m.images }

// List returns the unpacked images, the least recently used first, then those that only the hypervisor has, and then
// those that were asked for and are not there yet, or could not be had.
func (i *Images) List() ([]CachedImage, error) {
	entries, err := i.cache.List()
	if err != nil {
		return nil, err
	}
	unpacked, wanted := i.join(entries)
	return append(i.kept.merge(unpacked), wanted...), nil
}

// join joins images of the cache with their pulls and pins. wanted are the images of pulls that are not among entries.
func (i *Images) join(entries []image.Entry) (unpacked, wanted []CachedImage) {
	i.mu.Lock()
	defer i.mu.Unlock()
	unpacked = make([]CachedImage, 0, len(entries))
	known := make(map[image.Sum]bool)
	for _, e := range entries {
		known[e.Sum] = true
		c := CachedImage{
			Checksum: e.Sum.Hex, ChecksumType: e.Sum.Type, URL: e.URL, Bytes: e.Bytes, DiskBytes: e.DiskBytes,
			CreatedAt: e.CreatedAt, LastUsedAt: e.UsedAt, VMs: max(e.InUse-i.pools.waiting(e.Sum), 0), Phase: ImageReady,
		}
		r := i.records[e.Sum]
		if r != nil && r.Pinned {
			c.Pinned = true
			c.VMs-- // the pin holds the image like a machine
		}
		switch {
		case i.pulls[e.Sum] != nil:
			c.Phase = ImagePreparing
		case r != nil && r.Phase == ImageFailed:
			c.Phase, c.Error = ImageFailed, r.Error
		}
		unpacked = append(unpacked, c)
	}
	for sum, r := range i.records {
		if !known[sum] {
			wanted = append(wanted, r.document(i.pulls[sum]))
		}
	}
	slices.SortFunc(wanted, func(a, b CachedImage) int {
		return cmp.Or(a.CreatedAt.Compare(b.CreatedAt), strings.Compare(a.Checksum, b.Checksum))
	})
	return unpacked, wanted
}

// Get returns one image. ref is its checksum in hex, or "<type>-<hex>", or the start of one with at least four hex
// digits.
func (i *Images) Get(ref string) (CachedImage, error) {
	sum, err := image.FindSum(ref)
	if err != nil { // only the list knows what begins with ref
		all, err := i.List()
		if err != nil {
			return CachedImage{}, err
		}
		if sum, err = i.find(ref, all); err != nil {
			return CachedImage{}, err
		}
	}
	var entries []image.Entry
	switch e, ok, err := i.cache.Entry(sum); {
	case err != nil:
		return CachedImage{}, err
	case ok:
		entries = append(entries, e)
	}
	unpacked, wanted := i.join(entries)
	for _, c := range append(i.kept.merge(unpacked), wanted...) {
		if c.Checksum == sum.Hex && c.ChecksumType == sum.Type {
			return c, nil
		}
	}
	return CachedImage{}, &Error{Code: CodeImageNotFound, Message: fmt.Sprintf("there is no image %s; GET /images lists the images", sum)}
}

// ValidChecksum reports whether ref is the whole checksum of an image in hex, or "<type>-<hex>".
func ValidChecksum(ref string) bool {
	_, err := image.FindSum(ref)
	return err == nil
}

// find returns the checksum of the image that ref means. It does not check whether an image with a whole checksum
// exists.
func (i *Images) find(ref string, list []CachedImage) (image.Sum, error) {
	sum, err := image.FindSum(ref)
	if err == nil {
		return sum, nil
	}
	typ, digits, ok := strings.Cut(strings.ToLower(ref), "-")
	if !ok {
		typ, digits = "", typ
	}
	if len(digits) < minPrefix || strings.Trim(digits, "0123456789abcdef") != "" {
		return sum, &Error{Code: CodeInvalidField, Field: "checksum", Message: fmt.Sprintf("%v; the first %d or more of them are enough", err, minPrefix)}
	}
	var found []string
	for _, c := range list {
		if strings.HasPrefix(c.Checksum, digits) && (typ == "" || typ == c.ChecksumType) {
			sum = image.Sum{Type: c.ChecksumType, Hex: c.Checksum}
			found = append(found, sum.String())
		}
	}
	switch len(found) {
	case 0:
		return sum, &Error{Code: CodeImageNotFound, Message: fmt.Sprintf("there is no image whose checksum begins with %q; GET /images lists the images", ref)}
	case 1:
		return sum, nil
	}
	slices.Sort(found)
	return sum, ambiguous(ref, found, nil)
}

// Remove removes an image, named as for Get, and its pin. It cancels a pull that is under way. While a machine is cloned
// from the image, or waits for it, Remove fails with [CodeImageInUse]. The machines of pools are removed first.
func (i *Images) Remove(ctx context.Context, ref string) error {
	list, err := i.List()
	if err != nil {
		return err
	}
	sum, err := i.find(ref, list)
	if err != nil {
		return err
	}
	if err := i.inUse(sum); err != nil {
		return err
	}
	return i.pools.without(ctx, sum, func() error { return i.remove(ctx, sum) })
}

// remove removes an image for which no machine waits.
func (i *Images) remove(ctx context.Context, sum image.Sum) error {
	known, err := i.forget(ctx, sum)
	if err != nil {
		return err
	}
	err = i.kept.remove(i.cache, sum)
	if err == nil {
		return i.removeTemplates(ctx, sum)
	}
	switch {
	case errors.Is(err, image.ErrInUse):
		return &Error{Code: CodeImageInUse, Message: err.Error(), Err: err}
	case errors.Is(err, image.ErrNotFound) && known:
		return i.cache.RemoveDownload(ctx, sum)
	case errors.Is(err, image.ErrNotFound):
		return &Error{Code: CodeImageNotFound, Message: err.Error() + "; GET /images lists the images", Err: err}
	}
	return err
}

// removeTemplates removes the templates of an image that is gone, which hold memory and disk space for nothing.
func (i *Images) removeTemplates(ctx context.Context, sum image.Sum) error {
	lister, ok := i.driver.(TemplateLister)
	remover, can := i.driver.(TemplateRemover)
	if !ok || !can {
		return nil
	}
	list, err := lister.Templates(ctx)
	for _, t := range list {
		if t.Checksum != sum.Hex || t.ChecksumType != sum.Type {
			continue
		}
		if e := remover.RemoveTemplate(ctx, t.Key); e != nil && clientError(e).Code != CodeTemplateNotFound {
			err = errors.Join(err, e)
		}
	}
	return err
}

// inUse returns an *[Error] of [CodeImageInUse] if machines need the image.
func (i *Images) inUse(sum image.Sum) error {
	holders, err := i.cache.Holders(sum)
	if err != nil {
		return err
	}
	holders -= i.pools.waiting(sum)
	i.mu.Lock()
	defer i.mu.Unlock()
	if r := i.records[sum]; r != nil && r.Pinned {
		holders--
	}
	if holders > 0 {
		return &Error{Code: CodeImageInUse, Message: fmt.Sprintf("image %s is needed by %d machines; remove them first", sum, holders)}
	}
	return nil
}
