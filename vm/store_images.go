package vm

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"osx-builder/image"
)

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
