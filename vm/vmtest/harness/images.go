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

// Image returns a guest image that make built.
func (h *Harness) Image(file string) e2e.Image {
	h.T.Helper()
	Need(h.T, filepath.Join(BuildDir(h.T), file))
	i, err := h.Site.Image(file)
	Must(h.T, err)
	return i
}

// Serve makes the site serve these archives by name, instead of the files of
// [BuildDir].
func (h *Harness) Serve(archives map[string][]byte) {
	h.Site.SetServe(func(w http.ResponseWriter, _ *http.Request, file string) {
		_, _ = w.Write(archives[filepath.Base(file)])
	})
}

// ImageOf returns the image of an archive that the site serves by this name.
func (h *Harness) ImageOf(name string, archive []byte) e2e.Image {
	sum := sha256.Sum256(archive)
	return e2e.Image{URL: h.Site.ImageURL(name), SHA256: hex.EncodeToString(sum[:])}
}

// ExampleRequest returns the body of the first example in the project's original
// description, including its trailing comma.
func (h *Harness) ExampleRequest(i e2e.Image, memory string) string {
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

// SmallVM returns the fields of a request for a machine that leaves memory for
// other machines and that may take long to boot. The fields in more are added or
// replace them.
func SmallVM(more map[string]any) map[string]any {
	fields := map[string]any{"cpus": 1, "memory": "192mib", "tools_init_timeout": "4m"}
	for k, v := range more {
		fields[k] = v
	}
	return fields
}

// VMX returns a .vmx file with one disk.
func VMX(disk string) string {
	return fmt.Sprintf(`config.version = "8"
virtualHW.version = "19"
guestOS = "other"
scsi0.present = "TRUE"
scsi0.virtualDev = "pvscsi"
scsi0:0.present = "TRUE"
scsi0:0.fileName = "%s"
`, disk)
}

// Descriptor returns a VMDK descriptor whose flat extent is 8 sectors of another
// file.
func Descriptor(extent string) string {
	return fmt.Sprintf(`# Disk DescriptorFile
version=1
CID=fffffffe
parentCID=ffffffff
createType="monolithicFlat"

# Extent description
RW 8 FLAT "%s" 0
`, extent)
}

// Archive returns a tar.gz of these files, given as pairs of name and content.
// Content that begins with "-> " makes a symbolic link.
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

// MemoryImages returns different image archives by name, for [MemoryDaemon]. The
// one named bad-archive is not an archive.
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

// DataDir returns a new data folder, which is removed at the end of the test. Its path
// is short, because it will contain sockets.
func DataDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "osxb")
	Must(t, err)
	t.Cleanup(func() {
		MakeWritable(dir)
		Must(t, os.RemoveAll(dir))
	})
	return dir
}

// MakeWritable makes the folders below dir writable, so that a user other than
// root can remove gold images, which are read-only.
func MakeWritable(dir string) {
	_ = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.IsDir() {
			_ = os.Chmod(path, 0o700)
		}
		return nil
	})
}

// FreePort returns a free TCP port of the loopback address.
func FreePort(t testing.TB) int {
	t.Helper()
	_, port, err := net.SplitHostPort(FreeAddress(t))
	Must(t, err)
	n, err := strconv.Atoi(port)
	Must(t, err)
	return n
}

// FreeAddress returns a loopback address with a free TCP port, for a daemon that
// must have the same address after a restart.
func FreeAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	Must(t, err)
	Must(t, l.Close())
	return l.Addr().String()
}
