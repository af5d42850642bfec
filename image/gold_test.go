package image

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// An image that is put in place during a lookup is found or not found, but does
// not count as changed.
func TestLookupWhileImageIsAdded(t *testing.T) {
	s := Sum{Type: "sha256", Hex: strings.Repeat("ab", 32)}
	g := &goldStore{dir: t.TempDir(), holds: newHolds()}
	staging := filepath.Join(g.dir, ".staging")
	b, err := json.Marshal(record{Sum: s})
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{staging, filepath.Join(g.dir, goldFolder)} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(staging, recordName), b, 0o600); err != nil {
		t.Fatal(err)
	}
	for range 500 {
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				if _, _, err := g.lookup(s); err != nil {
					t.Errorf("lookup: %v", err)
				}
			})
		}
		if err := g.add(staging, s); err != nil {
			t.Fatal(err)
		}
		wg.Wait()
		if err := os.Chmod(g.path(s), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(g.path(s), staging); err != nil {
			t.Fatal(err)
		}
	}
}
