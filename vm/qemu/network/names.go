package network

import (
	"crypto/sha256"
	"encoding/base32"
	"strings"
)

// Linux limits the name of a device to 15 characters: "osxb", 5 of the tag and
// 6 of the guest are all that fits.
const (
	prefix   = "osxb"
	tagChars = 5
	tapChars = 6
)

// DevicePrefix returns the prefix of every network device that a Manager with
// this [Config.Name] creates. Managers with other names use other prefixes.
func DevicePrefix(name string) string { return prefix + hashed(name, tagChars) }

// hashed returns the first n (at most 52) characters of the hash of s, all of
// them lower-case letters and digits.
func hashed(s string, n int) string {
	sum := sha256.Sum256([]byte(s))
	return strings.ToLower(base32.StdEncoding.EncodeToString(sum[:]))[:n]
}
