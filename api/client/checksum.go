package client

import (
	"context"
	"crypto/md5" // published sums are of this type, too
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"net/http"
	"os"
	"strings"

	"github.com/spf13/cobra"
)

// hashes are the types of checksums that the daemon takes.
var hashes = map[string]func() hash.Hash{"md5": md5.New, "sha1": sha1.New, "sha256": sha256.New, "sha512": sha512.New}

// sumType tells the type of a checksum in hex by its length. What is none is
// for the daemon to refuse.
func sumType(sum string) string {
	for name, h := range hashes {
		if len(sum) == 2*h().Size() {
			return name
		}
	}
	return "sha256"
}

func (c *cli) checksumCommand() *cobra.Command {
	var kind string
	cmd := &cobra.Command{
		Use: "checksum FILE|URL", Short: "Print the checksum of an image's archive",
		Long: "Prints the checksum of an image's archive in hex. Of a URL it is the sum of what the\nserver sends now: right if the server and the way to it are to be trusted.",
		Args: cobra.ExactArgs(1),
		RunE: c.verb(func(ctx context.Context, args []string) error {
			sum, err := c.sum(ctx, args[0], kind)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(c.Stdout, sum)
			return err
		}),
	}
	cmd.Flags().StringVar(&kind, "type", "sha256", "md5, sha1, sha256 or sha512")
	return cmd
}

// sum reads a file, or what a URL serves, and returns its checksum in hex.
func (c *cli) sum(ctx context.Context, source, kind string) (string, error) {
	newHash, ok := hashes[strings.ToLower(kind)]
	if !ok {
		return "", usage("checksum type %q: it must be md5, sha1, sha256 or sha512", kind)
	}
	r, size, err := openSource(ctx, source)
	if err != nil {
		return "", err
	}
	defer r.Close()
	h := newHash()
	p := c.newProgress()
	defer p.end()
	p.enter("computing the checksum of "+source, true)
	m := &meter{Reader: r, progress: p, total: size}
	if _, err := io.Copy(h, m); err != nil {
		if ctx.Err() != nil {
			return "", errInterrupted
		}
		return "", fmt.Errorf("reading %s: %w", source, err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// openSource opens a file or a URL. The size is -1 where nobody knows.
func openSource(ctx context.Context, source string) (io.ReadCloser, int64, error) {
	if !strings.HasPrefix(source, "http://") && !strings.HasPrefix(source, "https://") {
		f, err := os.Open(source)
		if err != nil {
			return nil, 0, err
		}
		st, err := f.Stat()
		if err != nil {
			_ = f.Close()
			return nil, 0, err
		}
		return f, st.Size(), nil
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, source, nil)
	if err != nil {
		return nil, 0, usage("%w", err)
	}
	// What the server stores is summed up, as the daemon does, not what it
	// could be unpacked to on the way.
	req.Header.Set("Accept-Encoding", "identity")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return nil, 0, errInterrupted
		}
		return nil, 0, err
	}
	if res.StatusCode != http.StatusOK {
		_ = res.Body.Close()
		return nil, 0, fmt.Errorf("reading %s: the server answers %s", source, res.Status)
	}
	return res.Body, res.ContentLength, nil
}

// meter tells of the bytes that are read through it.
type meter struct {
	io.Reader
	progress *progress
	total    int64
	n        int64
}

func (m *meter) Read(b []byte) (int, error) {
	n, err := m.Reader.Read(b)
	m.n += int64(n)
	m.progress.bytes(m.n, m.total)
	return n, err
}
