package vm

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"osx-builder/image"
)

// maxFailedPulls bounds the failed pulls that are remembered; the oldest are forgotten.
const maxFailedPulls = 100

// imageRecord is what is on disk about an image that a client pulls or has pinned, in <type>-<hex>.json. It is written
// before a pull is accepted, so that a crash loses none. A pull that succeeded leaves no record, unless the image is
// pinned.
type imageRecord struct {
	Version   int        `json:"version"`
	Image     Image      `json:"image"`
	Phase     ImagePhase `json:"phase"` // ImageAccepted, ImageReady or ImageFailed
	Error     *Error     `json:"error,omitempty"`
	Pinned    bool       `json:"pinned"`
	Attempts  int        `json:"attempts"`
	CreatedAt time.Time  `json:"created_at"`
	UpdatedAt time.Time  `json:"updated_at"`
}

func (r *imageRecord) document(p *pull) CachedImage {
	c := CachedImage{
		Checksum: r.Image.Checksum, ChecksumType: r.Image.ChecksumType, URL: image.PublicURL(r.Image.URL),
		CreatedAt: r.CreatedAt, LastUsedAt: r.UpdatedAt, Phase: r.Phase, Error: r.Error, Pinned: r.Pinned,
	}
	if p != nil {
		c.Phase, c.Progress, c.Error = p.phase, p.progress, nil
	}
	return c
}

// load reads the records that an earlier Manager left and holds the pinned images. It removes temporary files of
// [WriteFile]. A record that cannot be read is logged and left alone.
func (i *Images) load() error {
	if err := os.MkdirAll(i.dir, 0o700); err != nil {
		return fmt.Errorf("creating the folder of the images' records: %w", err)
	}
	files, err := os.ReadDir(i.dir)
	if err != nil {
		return fmt.Errorf("reading the images' records: %w", err)
	}
	for _, f := range files {
		if f.Type().IsRegular() && temporaryPull.MatchString(f.Name()) {
			if err := os.Remove(filepath.Join(i.dir, f.Name())); err != nil {
				i.log.Error("litter not removed", "path", filepath.Join(i.dir, f.Name()), "err", err)
			}
			continue
		}
		name, ok := strings.CutSuffix(f.Name(), recordSuffix)
		sum, err := image.FindSum(name)
		if !ok || err != nil || !strings.Contains(name, "-") {
			continue
		}
		r, err := i.read(sum)
		if err != nil {
			i.log.Error("the record of an image cannot be read", "file", i.path(sum), "err", err)
			continue
		}
		i.records[sum] = r
		if r.Pinned {
			i.cache.Hold(pinHolder+sum.String(), sum)
		}
	}
	return nil
}

func (i *Images) read(sum image.Sum) (*imageRecord, error) {
	b, err := os.ReadFile(i.path(sum))
	if err != nil {
		return nil, err
	}
	var r imageRecord
	if err := json.Unmarshal(b, &r); err != nil {
		return nil, err
	}
	if r.Version > recordVersion {
		return nil, errNewer
	}
	if r.Image.Checksum != sum.Hex || r.Image.ChecksumType != sum.Type || !slices.Contains([]ImagePhase{ImageAccepted, ImageReady, ImageFailed}, r.Phase) {
		return nil, errCorrupt
	}
	return &r, nil
}

// resume continues the pulls that were under way when the earlier Manager ended.
func (i *Images) resume() {
	begun := make(map[image.Sum]*pull)
	for sum, r := range i.records { // no pull runs yet
		if r.Phase == ImageAccepted && i.countAttempt(sum, r) {
			begun[sum] = newPull()
			close(begun[sum].written)
		}
	}
	maps.Copy(i.pulls, begun)
	records := maps.Clone(i.records) // a pull that ends changes the Images'
	for sum, p := range begun {
		if !i.start(sum, records[sum], p) {
			i.end(sum, p, true)
		}
	}
}

// countAttempt writes down that a pull is tried once more. It returns false, and fails the pull, if that was often enough.
func (i *Images) countAttempt(sum image.Sum, r *imageRecord) bool {
	r.Attempts++
	if r.Attempts > maxAttempts {
		r.Phase, r.Error = ImageFailed, &Error{
			Code: CodeAttempts, Message: fmt.Sprintf("the daemon ended %d times while it pulled this image; POST /images tries again", maxAttempts),
		}
	}
	if err := i.write(sum, *r); err != nil {
		i.log.Error("the number of attempts was not written", "image", sum, "err", err)
	}
	return r.Phase == ImageAccepted
}

// uncount takes back an attempt that the orderly stop of the daemon interrupts.
func (i *Images) uncount(sum image.Sum, r *imageRecord) {
	i.mu.Lock()
	counted := r.Attempts > 0
	r.Attempts = max(0, r.Attempts-1)
	copied := *r
	i.mu.Unlock()
	if !counted {
		return
	}
	if err := i.write(sum, copied); err != nil {
		i.log.Warn("the number of attempts was not written", "image", sum, "err", err)
	}
}

// forgetOldFailures removes the records of the oldest failed pulls, if there are too many.
func (i *Images) forgetOldFailures() {
	i.mu.Lock()
	var failed []image.Sum
	for sum, r := range i.records {
		if r.Phase == ImageFailed && !r.Pinned && i.pulls[sum] == nil {
			failed = append(failed, sum)
		}
	}
	slices.SortFunc(failed, func(a, b image.Sum) int { return i.records[a].UpdatedAt.Compare(i.records[b].UpdatedAt) })
	failed = failed[:max(0, len(failed)-maxFailedPulls)]
	for _, sum := range failed {
		delete(i.records, sum)
	}
	i.mu.Unlock()
	for _, sum := range failed {
		if err := i.removeRecord(sum); err != nil {
			i.log.Error("the record of a failed pull was not removed", "image", sum, "err", err)
		}
	}
}

func (i *Images) path(sum image.Sum) string { return filepath.Join(i.dir, sum.String()+recordSuffix) }

func (i *Images) write(sum image.Sum, r imageRecord) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := WriteFile(i.path(sum), append(b, '\n')); err != nil {
		return storeError(sum.String(), err)
	}
	return nil
}

func (i *Images) removeRecord(sum image.Sum) error {
	if err := os.Remove(i.path(sum)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return SyncPath(i.dir)
}
