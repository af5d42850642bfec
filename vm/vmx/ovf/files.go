package ovf

import (
	"bufio"
	"compress/gzip"
	"context"
	"crypto/sha1" // #nosec G505 -- manifests of older packages
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"path"
	"regexp"
	"strings"
)

var (
	manifestLine = regexp.MustCompile(`^(SHA1|SHA256|SHA512) ?\((.+)\) ?= ?([0-9a-fA-F]+)$`)
	digests      = map[string]func() hash.Hash{"SHA1": sha1.New, "SHA256": sha256.New, "SHA512": sha512.New}
)

// verifyManifest compares the files with the digests in the package's manifest, if it has one.
func (p *pack) verifyManifest() error {
	manifest, ok := p.files.Find(strings.TrimSuffix(p.name, path.Ext(p.name)) + ".mf")
	if !ok {
		return nil
	}
	f, err := p.files.Root().Open(manifest)
	if err != nil {
		return fmt.Errorf("reading %s: %w", manifest, err)
	}
	defer f.Close()
	lines := bufio.NewScanner(io.LimitReader(f, maxDescriptor))
	seen := map[string]bool{}
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		m := manifestLine.FindStringSubmatch(line)
		switch {
		case line == "":
			continue
		case m == nil:
			return p.refuse("manifest", line, "the line of %s has not the form SHA256(FILE)= DIGEST; export the machine again", manifest)
		}
		name, err := p.path(m[2])
		if err != nil {
			return err
		}
		if seen[name] { // each file is read once, however long the manifest is
			return p.refuse("manifest", name, "the manifest %s has the file twice; export the machine again", manifest)
		}
		seen[name] = true
		got, err := p.digest(name, digests[m[1]]())
		if err != nil {
			return err
		}
		if !strings.EqualFold(got, m[3]) {
			return p.refuse("manifest", name, "the file has another %s than the manifest %s says; it was changed or damaged: export the machine again, or remove the manifest if you changed the file", m[1], manifest)
		}
	}
	if err := lines.Err(); err != nil {
		return p.refuse("manifest", manifest, "the manifest cannot be read: %v", err)
	}
	return nil
}

// digest returns the digest of a file in hexadecimal digits.
func (p *pack) digest(name string, h hash.Hash) (string, error) {
	f, err := p.files.Root().Open(name)
	if err != nil {
		return "", fmt.Errorf("reading %s: %w", name, err)
	}
	defer f.Close()
	if _, err := io.Copy(h, &interruptible{p.ctx, f}); err != nil {
		return "", fmt.Errorf("reading %s: %w", name, err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// interruptible reads until ctx ends.
type interruptible struct {
	ctx context.Context
	r   io.Reader
}

func (i *interruptible) Read(b []byte) (int, error) {
	if i.ctx.Err() != nil {
		return 0, context.Cause(i.ctx)
	}
	return i.r.Read(b)
}

// file returns the file of a reference, relative to the .ovf file. It joins the chunks of a file and decompresses it. made
// has the references that were made into files.
func (p *pack) file(ref string, made map[string]string) (string, error) {
	if name, ok := made[ref]; ok {
		return "", p.refuse("fileRef", ref, "two disks have the same file, %s; each disk needs a file of its own", name)
	}
	for _, r := range p.envelope.References {
		if r.ID != ref {
			continue
		}
		compressed := text1(r.Compression) != "" && text1(r.Compression) != "identity"
		if compressed && text1(r.Compression) != "gzip" {
			return "", p.refuse("compression", *r.Compression, "only gzip is known; export the machine without compression")
		}
		chunked := r.ChunkSize != nil && *r.ChunkSize > 0
		name, err := r.Href, error(nil)
		if compressed || chunked {
			name, err = p.join(r.Href, chunked, compressed)
		} else {
			var found string
			if found, err = p.path(r.Href); err == nil {
				name = strings.TrimPrefix(found, path.Dir(p.name)+"/")
			}
		}
		made[ref] = name
		return name, err
	}
	return "", p.refuse("fileRef", ref, "the package has no such reference; export the machine again")
}

// join writes a file from its chunks, which it removes one after another, and decompresses it.
func (p *pack) join(href string, chunked, compressed bool) (string, error) {
	c := &chunks{p: p, href: href, single: !chunked}
	defer c.close()
	if err := c.next(); err != nil {
		return "", err
	}
	var body io.Reader = c
	if compressed {
		z, err := gzip.NewReader(bufio.NewReaderSize(c, 256<<10))
		if err != nil {
			return "", p.refuse("compression", "gzip", "the file %s is not compressed by gzip: %v", href, err)
		}
		body = z
	}
	name := "joined-" + path.Base(unescaped(href))
	if err := p.files.Create(path.Join(path.Dir(p.name), name), body); err != nil {
		if c.err == nil && compressed {
			return "", fmt.Errorf("decompressing %s: %w", href, err)
		}
		return "", err
	}
	return name, c.close()
}

// chunks reads the files of a reference, one after another: HREF.000000000, HREF.000000001 and so on.
type chunks struct {
	p      *pack
	href   string
	single bool // there is one file, without a number
	n      int
	name   string // of the open file
	file   io.ReadCloser
	err    error
}

// next opens the next file. io.EOF means that there is none.
func (c *chunks) next() error {
	href := c.href
	if !c.single {
		href = fmt.Sprintf("%s.%09d", c.href, c.n)
	}
	if c.single && c.n > 0 {
		return io.EOF
	}
	name, err := c.p.path(href)
	if err != nil && c.n > 0 {
		return io.EOF
	}
	if err != nil {
		return err
	}
	c.n++
	c.name = name
	f, err := c.p.files.Root().Open(name)
	if err != nil {
		return fmt.Errorf("reading %s: %w", name, err)
	}
	c.file = f
	return nil
}

func (c *chunks) Read(b []byte) (int, error) {
	for c.err == nil {
		if c.p.ctx.Err() != nil {
			c.err = context.Cause(c.p.ctx)
			break
		}
		n, err := c.file.Read(b)
		if n > 0 {
			return n, nil
		}
		if err != io.EOF {
			c.err = err
			break
		}
		if c.err = c.close(); c.err == nil {
			c.err = c.next()
		}
	}
	return 0, c.err
}

// close closes and removes the open file.
func (c *chunks) close() error {
	if c.file == nil {
		return nil
	}
	err := c.file.Close()
	c.file = nil
	if err == nil {
		err = c.p.files.Remove(c.name)
	}
	return err
}
