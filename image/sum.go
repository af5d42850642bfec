package image

import (
	"crypto/md5"  // #nosec G501 -- publishers of images still name MD5 sums
	"crypto/sha1" // #nosec G505 -- and SHA-1 sums
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"fmt"
	"hash"
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
		return Sum{}, fmt.Errorf("checksum type %q is not one of md5, sha1, sha256, sha512", typ)
	}
	if len(s.Hex) != want {
		return Sum{}, fmt.Errorf("a %s checksum has %d hex digits, not %d", s.Type, want, len(s.Hex))
	}
	if _, err := hex.DecodeString(s.Hex); err != nil {
		return Sum{}, fmt.Errorf("checksum %q is not hexadecimal", digits)
	}
	return s, nil
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
	return Sum{}, fmt.Errorf("%q is no checksum: 32 (md5), 40 (sha1), 64 (sha256) or 128 (sha512) hex digits make one", name)
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
