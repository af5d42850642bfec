package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// recordName is the file that describes an image, in the image's folder.
const recordName = "image.json"

// record is the file image.json.
type record struct {
	URL          string     `json:"url"` // without user info and query
	Sum          Sum        `json:"checksum"`
	VMX          string     `json:"vmx"`           // slash-separated path
	ArchiveBytes int64      `json:"archive_bytes"` // what was downloaded
	Bytes        int64      `json:"bytes"`         // of all files, holes included
	DiskBytes    int64      `json:"disk_bytes"`    // what the files take on disk
	CreatedAt    time.Time  `json:"created_at"`
	Files        []goldFile `json:"files"`
}

// goldFile is how a file of the image must look for as long as it is gold.
type goldFile struct {
	Path    string    `json:"path"` // slash-separated
	Bytes   int64     `json:"bytes"`
	ModTime time.Time `json:"mod_time"`
}

// goldStore is the folder of finished images.
type goldStore struct {
	dir     string // of the Cache
	derived string // [Options].Derived
	holds   *holds

	// mu guards the names below gold/. It is held to hand an image out, to put
	// one in place and to remove one, so that no image is handed out while it is
	// removed. It is held across a few renames and stats, never while files are
	// read or folders walked.
	mu sync.Mutex
}

func (g *goldStore) path(s Sum) string { return filepath.Join(g.dir, goldFolder, s.String()) }

// publish makes a staging folder gold: it describes its files, makes them
// read-only, brings all of it to the disk and gives it its name by one rename.
func (c *Cache) publish(ctx context.Context, staging string, t *tree, url string, p *part) (Gold, error) {
	r := record{
		URL: PublicURL(url), Sum: p.sum, VMX: t.vmx, ArchiveBytes: p.size, Bytes: t.bytes,
		CreatedAt: time.Now().UTC().Truncate(time.Second),
	}
	if err := r.settle(ctx, staging, t.files); err != nil {
		return Gold{}, fmt.Errorf("keeping the image: %w", diskError(err))
	}
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return Gold{}, fmt.Errorf("keeping the image: %w", err)
	}
	if err := writeSynced(filepath.Join(staging, recordName), b); err != nil {
		return Gold{}, fmt.Errorf("keeping the image: %w", diskError(err))
	}
	if err := settleFolders(staging); err != nil {
		return Gold{}, fmt.Errorf("keeping the image: %w", diskError(err))
	}
	if err := c.gold.add(staging, p.sum); err != nil {
		return Gold{}, fmt.Errorf("keeping the image: %w", diskError(err))
	}
	c.trim(p.sum)
	c.expireParts()
	return c.gold.image(&r), nil
}

// settle syncs the files, makes them read-only and notes how they look.
func (r *record) settle(ctx context.Context, dir string, files []string) error {
	for _, name := range files {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := SyncPath(path); err != nil {
			return err
		}
		if err := os.Chmod(path, 0o444); err != nil {
			return err
		}
		info, err := os.Lstat(path)
		if err != nil {
			return err
		}
		r.Files = append(r.Files, goldFile{Path: name, Bytes: info.Size(), ModTime: info.ModTime()})
		r.DiskBytes += diskBytes(path, info)
	}
	return nil
}

// settleFolders syncs the folders and makes them read-only, except the
// topmost: a folder that its owner may not write cannot be renamed.
func settleFolders(dir string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		mode := fs.FileMode(0o555)
		if path == dir {
			mode = 0o755
		}
		if err := os.Chmod(path, mode); err != nil {
			return err
		}
		return SyncPath(path)
	})
}

// add renames a finished folder to its place below gold/.
func (g *goldStore) add(staging string, s Sum) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	to := g.path(s)
	if err := rename(staging, to); err != nil {
		return err
	}
	if err := os.Chmod(to, 0o555); err != nil { // #nosec G302 -- a folder
		return err
	}
	return SyncPath(filepath.Dir(to))
}

func writeSynced(path string, b []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o444) // #nosec G304
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Sync(), f.Close())
}

func (g *goldStore) image(r *record) Gold {
	dir := g.path(r.Sum)
	return Gold{Dir: dir, VMX: filepath.Join(dir, filepath.FromSlash(r.VMX))}
}

// lookup returns the image if it is there, and records that it was used. An
// image that was changed on disk is an error: a clone of it would be a machine
// that nobody asked for.
func (g *goldStore) lookup(s Sum) (Gold, bool, error) {
	r, err := g.check(s) // without the lock: it looks at every file
	g.mu.Lock()
	defer g.mu.Unlock()
	if !exists(g.path(s)) {
		return Gold{}, false, nil // or it was removed meanwhile
	}
	if err != nil { // or it was put in place, or removed and put in place, meanwhile
		r, err = g.check(s)
	}
	if err != nil {
		return Gold{}, false, fail(ErrInvalid, err, "the image %s was changed on this host's disk since it was checked (%v): remove the machines made from it and then the image, and it will be downloaded again", s, changeOf(err))
	}
	now := time.Now()
	if err := os.Chtimes(g.path(s), now, now); err != nil {
		return Gold{}, false, fmt.Errorf("recording the use of an image: %w", err)
	}
	return g.image(r), true, nil
}

// check reads the record of an image and compares it with the files.
func (g *goldStore) check(s Sum) (*record, error) {
	r, err := g.read(s)
	if err != nil {
		return nil, err
	}
	return r, r.unchanged(g.path(s))
}

// changeOf leaves the host's paths out of an error.
func changeOf(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return fmt.Errorf("%s: %w", filepath.Base(p.Path), p.Err)
	}
	return err
}

func (g *goldStore) read(s Sum) (*record, error) {
	b, err := os.ReadFile(filepath.Join(g.path(s), recordName))
	if err != nil {
		return nil, err
	}
	var r record
	if err := json.Unmarshal(b, &r); err != nil {
		return nil, fmt.Errorf("%s: %w", recordName, err)
	}
	if r.Sum != s {
		return nil, fmt.Errorf("%s is that of %s", recordName, r.Sum)
	}
	return &r, nil
}

// unchanged compares the files' sizes and times with the record, and sees that
// none was added.
func (r *record) unchanged(dir string) error {
	want := make(map[string]goldFile, len(r.Files))
	for _, f := range r.Files {
		want[f.Path] = f
	}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil || rel == recordName {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		f, ok := want[filepath.ToSlash(rel)]
		if !ok || !info.Mode().IsRegular() {
			return fmt.Errorf("%s was not in it", rel)
		}
		if info.Size() != f.Bytes || !info.ModTime().Equal(f.ModTime) {
			return fmt.Errorf("%s has another size or time", rel)
		}
		delete(want, f.Path)
		return nil
	})
	if err != nil {
		return err
	}
	for name := range want {
		return fmt.Errorf("%s is missing", name)
	}
	return nil
}
