package vm

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"osx-builder/image"
)

// CachedImage is an unpacked image that machines are cloned from, as the API
// shows it.
type CachedImage struct {
	Checksum     string    `json:"checksum"`
	ChecksumType string    `json:"checksum_type"`
	URL          string    `json:"url"`          // where it came from, without query
	Bytes        int64     `json:"bytes"`        // of its files, holes included
	DiskBytes    int64     `json:"disk_bytes"`   // what they take on disk
	CreatedAt    time.Time `json:"created_at"`   // UTC
	LastUsedAt   time.Time `json:"last_used_at"` // UTC
	VMs          int       `json:"vms"`          // machines that need it
}

// CachedImages lists the unpacked images, the least recently used first, and then
// those that only the hypervisor has.
func (m *Manager) CachedImages() ([]CachedImage, error) {
	entries, err := m.opts.Images.List()
	if err != nil {
		return nil, err
	}
	list := make([]CachedImage, 0, len(entries))
	for _, e := range entries {
		list = append(list, CachedImage{
			Checksum: e.Sum.Hex, ChecksumType: e.Sum.Type, URL: e.URL, Bytes: e.Bytes, DiskBytes: e.DiskBytes,
			CreatedAt: e.CreatedAt, LastUsedAt: e.UsedAt, VMs: e.InUse,
		})
	}
	return m.kept.merge(list), nil
}

// findImage returns the checksum of the image that name means: a checksum in hex or
// as "<type>-<hex>", or the start of one image's with at least four hex digits. It
// does not check whether an image with a whole checksum exists.
func (m *Manager) findImage(name string) (image.Sum, error) {
	sum, err := image.FindSum(name)
	if err == nil {
		return sum, nil
	}
	typ, digits, ok := strings.Cut(strings.ToLower(name), "-")
	if !ok {
		typ, digits = "", typ
	}
	if len(digits) < minPrefix || strings.Trim(digits, "0123456789abcdef") != "" {
		return sum, &Error{Code: CodeInvalidField, Field: "checksum", Message: fmt.Sprintf("%v; the first %d or more of them are enough", err, minPrefix)}
	}
	images, err := m.opts.Images.List()
	if err != nil {
		return sum, err
	}
	var found []string
	for _, i := range images {
		if strings.HasPrefix(i.Sum.Hex, digits) && (typ == "" || typ == i.Sum.Type) {
			sum, found = i.Sum, append(found, i.Sum.String())
		}
	}
	switch len(found) {
	case 0:
		return sum, &Error{Code: CodeImageNotFound, Message: fmt.Sprintf("there is no image whose checksum begins with %q; GET /images lists the images", name)}
	case 1:
		return sum, nil
	}
	slices.Sort(found)
	return sum, ambiguous(name, found, nil)
}

// RemoveImage removes an unpacked image, named as by findImage. While a machine is
// cloned from it, or waits for it, it fails with CodeImageInUse.
func (m *Manager) RemoveImage(name string) error {
	sum, err := m.findImage(name)
	if err != nil {
		return err
	}
	err = m.kept.remove(m.opts.Images, sum)
	switch {
	case errors.Is(err, image.ErrInUse):
		return &Error{Code: CodeImageInUse, Message: err.Error(), Err: err}
	case errors.Is(err, image.ErrNotFound):
		return &Error{Code: CodeImageNotFound, Message: err.Error() + "; GET /images lists the images", Err: err}
	}
	return err
}

// imageOf returns the image of a record's machine, and whether the machine
// needs it. A machine that failed needs none once its folder is removed. A
// tombstone needs none.
func (s *store) imageOf(id string) (needed bool, sum image.Sum, err error) {
	r, unread := s.read(id)
	switch {
	case errors.Is(unread, fs.ErrNotExist):
		return false, sum, nil
	case unread != nil:
		if r = s.readImage(id); r == nil {
			return false, sum, unread
		}
	case r.Gone:
		return false, sum, nil
	case r.Phase == Failed:
		_, err := os.Lstat(filepath.Join(s.dir, id))
		if errors.Is(err, fs.ErrNotExist) {
			return false, sum, nil
		}
	}
	src, err := r.Spec.source()
	if err != nil && unread != nil {
		return false, sum, unread
	}
	return err == nil, src.Sum, nil
}

// readImage reads only the image from a record that cannot be used: a newer
// daemon writes it in the same place. It returns nil if that is not possible.
func (s *store) readImage(id string) *record {
	for _, path := range []string{s.path(id), s.path(id) + corruptSuffix} {
		b, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		var r struct {
			Spec struct {
				Image Image `json:"image"`
			} `json:"spec"`
		}
		if json.Unmarshal(b, &r) == nil {
			return &record{Spec: spec{Image: r.Spec.Image}}
		}
	}
	return nil
}
