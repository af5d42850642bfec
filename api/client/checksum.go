package client

import (
	"context"
	"crypto/md5" // some publishers still use it
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

const (
	dialRetryTime = 10 * time.Second
	dialRetryWait = 100 * time.Millisecond
)

// hashes are the checksum types that the daemon accepts.
var hashes = map[string]func() hash.Hash{"md5": md5.New, "sha1": sha1.New, "sha256": sha256.New, "sha512": sha512.New}

func newChecksumCommand(c *cli) *cobra.Command {
	var checksumType string
	cmd := &cobra.Command{
		Use: "checksum FILE|URL", Short: "Print the checksum of an image's archive",
		Long: "Prints the checksum of an image's archive in hex. For a URL, it is the checksum of what the server\nsends now. It proves nothing if you do not trust the server and the connection.",
		Args: oneArg("the file or URL"),
		RunE: c.run(func(ctx context.Context, args []string) error {
			sum, err := computeChecksum(ctx, &c.output, args[0], checksumType)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(c.stdout, sum)
			return err
		}),
	}
	cmd.Flags().StringVar(&checksumType, "type", "sha256", "md5, sha1, sha256 or sha512")
	completeFlag(cmd, "type", "md5", "sha1", "sha256", "sha512")
	return cmd
}

// computeChecksum reads a file or URL and returns its checksum in hex.
func computeChecksum(ctx context.Context, out *output, source, checksumType string) (string, error) {
	newHash, ok := hashes[strings.ToLower(checksumType)]
	if !ok {
		return "", usageError("checksum type %q: it must be md5, sha1, sha256 or sha512", checksumType)
	}
	r, size, err := openSource(ctx, source)
	if err != nil {
		return "", err
	}
	defer r.Close()
	h := newHash()
	p := out.newProgress()
	defer p.end()
	p.setStage("computing the checksum of", fileName(source, p), true)
	if _, err := io.Copy(h, &progressReader{Reader: r, progress: p, total: size}); err != nil {
		if ctx.Err() != nil {
			return "", errInterrupted
		}
		return "", fmt.Errorf("reading %s: %w", source, err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// fileName returns what the progress calls a file or URL: on a terminal the end of its path, which fits into a line.
func fileName(source string, p *progress) string {
	if p.out == nil || p.width() == 0 {
		return source
	}
	if u, err := url.Parse(source); err == nil {
		source = u.Path
	}
	return path.Base(source)
}

// openSource opens a file or URL. The size is -1 if it is not known.
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
		return nil, 0, usageError("%w", err)
	}
	// Like the daemon, compute the checksum of the file on the server. With another encoding the transport would
	// decompress it.
	req.Header.Set("Accept-Encoding", "identity")
	res, err := get(req)
	if err != nil {
		if ctx.Err() != nil {
			return nil, 0, errInterrupted
		}
		return nil, 0, err
	}
	if res.StatusCode != http.StatusOK {
		_ = res.Body.Close()
		return nil, 0, fmt.Errorf("reading %s: the server returned %s", source, res.Status)
	}
	return res.Body, res.ContentLength, nil
}

// get sends the request. While the server accepts no connection, it tries again for dialRetryTime, because the server
// may be starting. The daemon's downloads do the same.
func get(req *http.Request) (*http.Response, error) {
	for end := time.Now().Add(dialRetryTime); ; {
		res, err := http.DefaultClient.Do(req)
		if op, ok := errors.AsType[*net.OpError](err); !ok || op.Op != "dial" || time.Now().After(end) {
			return res, err
		}
		select {
		case <-req.Context().Done():
			return nil, req.Context().Err()
		case <-time.After(dialRetryWait):
		}
	}
}

// progressReader reports the bytes read through it.
type progressReader struct {
	io.Reader
	progress *progress
	total    int64
	n        int64
}

func (r *progressReader) Read(b []byte) (int, error) {
	n, err := r.Reader.Read(b)
	r.n += int64(n)
	r.progress.setBytes(r.n, r.total)
	return n, err
}
