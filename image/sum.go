package image

import (
	"cmp"
	"crypto/md5"  // #nosec G501 -- publishers of images still name MD5 sums
	"crypto/sha1" // #nosec G505 -- and SHA-1 sums
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"regexp"
	"slices"
	"strings"
)

// Sum is an archive's checksum, in the one form that ParseSum makes, so that
// two Sums are equal exactly if they mean the same.
type Sum struct {
	Type string `json:"type"` // md5, sha1, sha256 or sha512
	Hex  string `json:"hex"`  // lower case
}

// String returns "<type>-<hex>", which is also the name of the image's folder.
func (s Sum) String() string { return s.Type + "-" + s.Hex }

// hexLengths has the number of hex digits of each checksum type.
func hexLengths() map[string]int {
	return map[string]int{"md5": 32, "sha1": 40, "sha256": 64, "sha512": 128}
}

// ParseSum reads a checksum and its type, both in any letter case. The error
// names what is wrong and what is allowed.
func ParseSum(typ, digits string) (Sum, error) {
	s := Sum{Type: strings.ToLower(typ), Hex: strings.ToLower(digits)}
	want, ok := hexLengths()[s.Type]
	if !ok {
		return Sum{}, fmt.Errorf("checksum type %.200q is not one of md5, sha1, sha256, sha512", typ)
	}
	if len(s.Hex) != want {
		return Sum{}, fmt.Errorf("a %s checksum has %d hex digits, not %d", s.Type, want, len(s.Hex))
	}
	if _, err := hex.DecodeString(s.Hex); err != nil {
		return Sum{}, fmt.Errorf("checksum %q is not hexadecimal", digits)
	}
	return s, nil
}

// SumTypes lists the types of checksums.
func SumTypes() []string { return []string{"md5", "sha1", "sha256", "sha512"} }

// bsdLine matches what sha256sum --tag and the tools of BSD and macOS print.
var bsdLine = regexp.MustCompile(`^(\w+) ?\(.*\) ?= ?(\w+)$`)

// ReadSum reads a checksum as publishers write it: hex digits, "<type>:<hex>", or a line of sha256sum and its kind,
// which also has the file's name. typ may be empty: the checksum names its type, or its length determines it.
func ReadSum(typ, text string) (Sum, error) {
	text = strings.TrimSpace(text)
	if strings.ContainsAny(text, "\r\n") {
		return Sum{}, errors.New("it has several lines; it must be the line of one file")
	}
	named, digits := "", text
	if m := bsdLine.FindStringSubmatch(text); m != nil {
		named, digits = m[1], m[2]
	} else if before, after, ok := strings.Cut(text, ":"); ok && slices.Contains(SumTypes(), strings.ToLower(before)) {
		named, digits = before, after
	}
	if fields := strings.Fields(digits); len(fields) > 0 {
		digits = strings.TrimPrefix(fields[0], "\\") // sha256sum puts it before a line whose file name is escaped
	}
	switch {
	case named != "" && typ != "" && !strings.EqualFold(named, typ):
		return Sum{}, fmt.Errorf("it is a %.20s checksum, but the checksum type is %s", named, typ)
	case named != "" || typ != "":
		return ParseSum(cmp.Or(typ, named), digits)
	}
	return FindSum(digits)
}

// FindSum reads a checksum as people name an image: "<type>-<hex>", or the hex
// digits alone; their number determines the type.
func FindSum(name string) (Sum, error) {
	if typ, digits, ok := strings.Cut(name, "-"); ok {
		return ParseSum(typ, digits)
	}
	for typ, n := range hexLengths() {
		if n == len(name) {
			return ParseSum(typ, name)
		}
	}
	return Sum{}, fmt.Errorf("%.200q is no checksum: 32 (md5), 40 (sha1), 64 (sha256) or 128 (sha512) hex digits make one", name)
}

// hash returns a new hash of the sum's type. Each can save its state.
func (s Sum) hash() hash.Hash {
	switch s.Type {
	case "md5":
		return md5.New() // #nosec G401
	case "sha1":
		return sha1.New() // #nosec G401
	case "sha512":
		return sha512.New()
	default:
		return sha256.New()
	}
}
