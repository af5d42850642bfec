package harness

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"osx-builder/vm/vmtest/e2e"
)

// TinyVM is the file name of the small guest's image.
const TinyVM = "tinyvm.tar.gz"

// Image is a guest image that make has built.
func (h *Harness) Image(file string) e2e.Image {
	h.T.Helper()
	sum, err := e2e.SHA256(Need(h.T, filepath.Join(BuildDir(h.T), file)))
	Must(h.T, err)
	return e2e.Image{URL: h.Site.ImageURL(file), SHA256: sum}
}

// Serve makes the site serve these archives by name, in place of build/.
func (h *Harness) Serve(archives map[string][]byte) {
	h.Site.Serve = func(w http.ResponseWriter, _ *http.Request, file string) {
		_, _ = w.Write(archives[filepath.Base(file)])
	}
}

// Served is an archive that the site serves under this name.
func (h *Harness) Served(name string, archive []byte) e2e.Image {
	sum := sha256.Sum256(archive)
	return e2e.Image{URL: h.Site.ImageURL(name), SHA256: hex.EncodeToString(sum[:])}
}

// FirstExample is the body of the first example in the project's description,
// with its trailing comma.
func (h *Harness) FirstExample(i e2e.Image, memory string) string {
	return fmt.Sprintf(`{
"cpus": 2,
"memory": %q,
"network_type": "nat",
"image": {
"url": %q,
"checksum": %q,
"checksum_type": "sha256"
},
"launch_gui": true,
"callback_url": %q,
}`, memory, i.URL, i.SHA256, h.Site.CallbackURL())
}

// Small returns a request's fields that leave room for other machines on the
// host, and time. More is added to them.
func Small(more map[string]any) map[string]any {
	fields := map[string]any{"cpus": 1, "memory": "192mib", "tools_init_timeout": "2m"}
	for k, v := range more {
		fields[k] = v
	}
	return fields
}

// VMX is a .vmx with one disk.
func VMX(disk string) string {
	return fmt.Sprintf("config.version = \"8\"\nvirtualHW.version = \"19\"\nguestOS = \"other\"\nscsi0.present = \"TRUE\"\nscsi0.virtualDev = \"pvscsi\"\nscsi0:0.present = \"TRUE\"\nscsi0:0.fileName = \"%s\"\n", disk)
}

// Descriptor is a VMDK whose bytes are in another file: 8 sectors of it.
func Descriptor(extent string) string {
	return fmt.Sprintf("# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\ncreateType=\"monolithicFlat\"\n\n# Extent description\nRW 8 FLAT \"%s\" 0\n", extent)
}

// Archive is a tar.gz of these files: pairs of name and content. Content that
// begins with "-> " makes a symbolic link.
func Archive(t testing.TB, files ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	for i := 0; i < len(files); i += 2 {
		header := &tar.Header{Name: files[i], Mode: 0o644, Size: int64(len(files[i+1])), Typeflag: tar.TypeReg}
		if target, ok := strings.CutPrefix(files[i+1], "-> "); ok {
			header.Typeflag, header.Linkname, header.Size = tar.TypeSymlink, target, 0
		}
		Must(t, w.WriteHeader(header))
		if header.Size > 0 {
			_, err := w.Write([]byte(files[i+1]))
			Must(t, err)
		}
	}
	Must(t, w.Close())
	Must(t, z.Close())
	return b.Bytes()
}

// MemoryImages returns archives that differ, for the daemon whose machines are
// files, by name. The one called bad-archive is none.
func MemoryImages(t testing.TB) map[string][]byte {
	t.Helper()
	images := map[string][]byte{"bad-archive": []byte("no archive")}
	for i := range 3 {
		name := fmt.Sprintf("image%d", i)
		disk := bytes.Repeat([]byte(name), 50_000)
		images[name] = Archive(t, name+".vmx", "guestOS = \"other\"\n", "disk.vmdk", string(disk))
	}
	return images
}

// MakeWritable lets a folder with gold images, which are read-only, be removed
// without root.
func MakeWritable(dir string) {
	_ = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.IsDir() {
			_ = os.Chmod(path, 0o700)
		}
		return nil
	})
}

// FreePort returns a TCP port of loopback that nobody listens at.
func FreePort(t testing.TB) int {
	t.Helper()
	_, port, err := net.SplitHostPort(FreeAddress(t))
	Must(t, err)
	n, err := strconv.Atoi(port)
	Must(t, err)
	return n
}

// FreeAddress returns a loopback address that nobody listens at. A daemon that
// is started again can have it again.
func FreeAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	Must(t, err)
	Must(t, l.Close())
	return l.Addr().String()
}
