//go:build amd64 || arm64

package crash_test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"osx-builder/vm"
	"osx-builder/vm/vmtest/e2e"
	"osx-builder/vm/vmtest/harness"
)

// TestPullCrash kills the daemon before one file operation of a pull, and kills
// the next daemon before one of its own. A third one must finish the pull without
// a further request. No byte that was on the disk is downloaded again, and nothing
// but the image is left.
//
// It tests every FAULTS_EACH-th operation, from the request to the last one of the
// pull.
func TestPullCrash(t *testing.T) {
	t.Parallel()
	p := pullCrash{t: t, binary: harness.MemoryDaemon(t), archive: randomArchive(t)}
	step := harness.EnvInt(t, "FAULTS_EACH", 8)
	runs, resumed := 0, 0
	for at := 1 + int(time.Now().UnixNano()/1000)%step; ; at += step {
		killed, requests := p.run(at)
		if t.Failed() {
			t.Fatalf("the test failed with a kill at operation %d", at)
		}
		if !killed {
			break // there are fewer operations
		}
		runs++
		if requests > 1 {
			resumed++
		}
	}
	t.Logf("in %d runs a daemon was killed at a different operation; %d of the downloads were resumed", runs, resumed)
	if resumed == 0 {
		t.Error("no kill interrupted a download")
	}
}

// randomArchive returns an image that does not compress, of several times the size
// of a write.
func randomArchive(t *testing.T) []byte {
	disk := make([]byte, 512<<10)
	random := rand.New(rand.NewPCG(1, 2))
	for i := range disk {
		disk[i] = byte(random.Uint32())
	}
	return harness.Archive(t, "a.vmx", "guestOS = \"other\"\n", "disk.vmdk", string(disk))
}

// pullCrash is the test of one archive.
type pullCrash struct {
	t       *testing.T
	binary  string
	archive []byte
}

// run does one pull. It returns whether a daemon was killed, and how many requests
// for the image came.
func (p *pullCrash) run(at int) (killed bool, requests int) {
	p.t.Helper()
	data := harness.DataDir(p.t)
	site := &countingSite{t: p.t, archive: p.archive, data: data}
	web := e2e.NewSite(p.t.TempDir())
	defer web.Close()
	web.SetServe(site.serve)
	image := (&harness.Harness{T: p.t, Site: web}).ImageOf("image", p.archive)
	body := fmt.Appendf(nil, `{"url": %q, "checksum": %q}`, image.URL, image.SHA256)
	path := "/images/sha256-" + image.SHA256

	accepted := p.die(data, at, func(d *e2e.Daemon) bool {
		a, err := d.Do("POST", "/images", "", body)
		return err == nil && a.Status == http.StatusAccepted
	}, &killed)
	if killed {
		p.die(data, 1+at%17, func(*e2e.Daemon) bool { return true }, new(bool))
	}
	d := p.start(data, nil)
	defer func() { harness.Must(p.t, d.Kill()) }()
	if !accepted {
		a, err := d.Do("POST", "/images", "", body)
		if err != nil || a.Status != http.StatusAccepted {
			p.t.Errorf("POST again: got %d %s, %v, want 202", a.Status, a.Body, err)
		}
	}
	var i vm.CachedImage
	a, err := d.Do("GET", path+"?wait=3m", "", nil)
	harness.Must(p.t, err)
	if err := a.JSON(&i); err != nil || a.Status != http.StatusOK || i.Phase != vm.ImageReady {
		p.t.Errorf("after the kills (the pull was accepted: %v): got %d %s, %v, want a ready image; the log: %s", accepted, a.Status, a.Body, err, d.Log())
	}
	p.checkLeft(d, path)
	return killed, site.check()
}

// underWay matches a list of images if one is being pulled.
var underWay = regexp.MustCompile(`"phase": "(accepted|downloading|unpacking|preparing)"`)

// die starts a daemon whose disk kills it at a file operation, lets use use it, and waits until the pull or the daemon
// has ended.
func (p *pullCrash) die(data string, at int, use func(*e2e.Daemon) bool, killed *bool) (ok bool) {
	p.t.Helper()
	disk := &e2e.FaultyDisk{}
	disk.Arm(e2e.Fault{At: at, Kill: true, Below: []string{"images", "pulls"}})
	d, err := e2e.Start(e2e.Options{Binary: p.binary, Data: data, Disk: disk})
	if err != nil { // it was killed while it started
		*killed = len(disk.Failed()) > 0
		if !*killed {
			p.t.Fatal(err)
		}
		return false
	}
	ok = use(d)
	for deadline := time.Now().Add(harness.Timeout); time.Now().Before(deadline) && len(disk.Failed()) == 0; time.Sleep(5 * time.Millisecond) {
		a, err := d.Do("GET", "/images", "", nil)
		if err == nil && !underWay.Match(a.Body) {
			break
		}
	}
	*killed = len(disk.Failed()) > 0
	harness.Must(p.t, d.Kill())
	if strings.Contains(d.Log(), "DATA RACE") {
		p.t.Errorf("the daemon's log:\n%s", d.Log())
	}
	return ok
}

func (p *pullCrash) start(data string, disk *e2e.FaultyDisk) *e2e.Daemon {
	p.t.Helper()
	d, err := e2e.Start(e2e.Options{Binary: p.binary, Data: data, Disk: disk})
	harness.Must(p.t, err)
	return d
}

// checkLeft checks that the image is all that is there, and that nothing is left once it is removed.
func (p *pullCrash) checkLeft(d *e2e.Daemon, path string) {
	p.t.Helper()
	if left := filesBelow(p.t, d.Data, "pulls"); len(left) > 0 {
		p.t.Errorf("records of a pull that succeeded: %q", left)
	}
	for _, file := range filesBelow(p.t, d.Data, "images") {
		if !strings.HasPrefix(file, "gold/sha256-") || strings.Contains(file, ".part") || strings.HasPrefix(filepath.Base(file), ".") {
			p.t.Errorf("left of the pull: %s", file)
		}
	}
	a, err := d.Do("DELETE", path, "", nil)
	if err != nil || a.Status != http.StatusNoContent {
		p.t.Errorf("DELETE: got %d %s, %v, want 204", a.Status, a.Body, err)
	}
	if left := append(filesBelow(p.t, d.Data, "images"), filesBelow(p.t, d.Data, "pulls")...); len(left) > 0 {
		p.t.Errorf("left after the image was removed: %q", left)
	}
}

// filesBelow lists the files below a folder of a data folder.
func filesBelow(t *testing.T, data, folder string) (files []string) {
	t.Helper()
	root := filepath.Join(data, folder)
	harness.Must(t, filepath.WalkDir(root, func(path string, e os.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			files = append(files, strings.TrimPrefix(path, root+"/"))
		}
		return err
	}))
	return files
}

// countingSite serves an archive, and records from where on each request asks for it and how much was on the daemon's
// disk then.
type countingSite struct {
	t       *testing.T
	archive []byte
	data    string

	mu     sync.Mutex
	starts []int64 // of each request
}

// chunk is how much is sent before it must be on the daemon's disk, so that a kill finds a download under way.
const chunk = 64 << 10

func (s *countingSite) serve(w http.ResponseWriter, r *http.Request, _ string) {
	var start int64
	if text := r.Header.Get("Range"); text != "" {
		if _, err := fmt.Sscanf(text, "bytes=%d-", &start); err != nil || (r.Header.Get("If-Range") != "" && r.Header.Get("If-Range") != `"v1"`) {
			s.t.Errorf("got Range %q, If-Range %q, want the rest of the same bytes", text, r.Header.Get("If-Range"))
		}
	}
	if have := s.onDisk(); have != start {
		s.t.Errorf("%d bytes are on the disk, and the daemon asks for those from %d on", have, start)
	}
	s.mu.Lock()
	s.starts = append(s.starts, start)
	s.mu.Unlock()
	w.Header().Set("ETag", `"v1"`)
	w.Header().Set("Accept-Ranges", "bytes")
	rest := s.archive[start:]
	w.Header().Set("Content-Length", fmt.Sprint(len(rest)))
	if start > 0 {
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", start, len(s.archive)-1, len(s.archive)))
		w.WriteHeader(http.StatusPartialContent)
	}
	for sent := start; len(rest) > 0; {
		n := min(chunk, len(rest))
		if _, err := w.Write(rest[:n]); err != nil {
			return
		}
		_ = http.NewResponseController(w).Flush() // the next write has the error
		rest, sent = rest[n:], sent+int64(n)
		for len(rest) > 0 && s.onDisk() < sent {
			select {
			case <-r.Context().Done():
				return
			case <-time.After(time.Millisecond):
			}
		}
	}
}

// onDisk returns how many bytes of the archive the daemon has written.
func (s *countingSite) onDisk() int64 {
	files, _ := filepath.Glob(filepath.Join(s.data, "images", "*.part"))
	if len(files) == 0 {
		return 0
	}
	info, err := os.Stat(files[0])
	if err != nil {
		return 0
	}
	return info.Size()
}

// check checks that each request continued where the bytes on the disk ended, and returns the number of requests.
func (s *countingSite) check() int {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.IsSorted(s.starts) || len(s.starts) == 0 || s.starts[0] != 0 {
		s.t.Errorf("the requests began at %v, want each to continue the one before", s.starts)
	}
	return len(s.starts)
}
