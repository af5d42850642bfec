package vm

import (
	"fmt"
	"regexp"
	"strings"

	"golang.org/x/crypto/ssh"
)

// The bounds of a GuestConfig.
const (
	MaxUserData = 64 << 10 // bytes

	// maxKeys and maxKeyBytes fit, together with everything else, into the 64 KiB that a guest's SMBIOS tables can have.
	maxKeys     = 64
	maxKeyBytes = 16 << 10 // of all keys

	// maxHostname is the longest name that Linux accepts, in bytes.
	maxHostname = 64
)

// GuestConfig is what a guest configures itself with at its first boot. The keys and the user data are secrets: besides
// the hypervisor, only the machine's record has them. It prints as "(secret)".
type GuestConfig struct {
	SSHAuthorizedKeys []string `json:"ssh_authorized_keys,omitempty"` // lines of an authorized_keys file
	Hostname          string   `json:"hostname,omitempty"`            // RFC 1123, or ""
	UserData          string   `json:"user_data,omitempty"`           // for cloud-init
}

// String implements [fmt.Stringer].
func (*GuestConfig) String() string { return "(secret)" }

// GoString implements [fmt.GoStringer].
func (*GuestConfig) GoString() string { return "(secret)" }

// hostname matches a name of RFC 1123.
var hostname = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*$`)

// parseGuestConfig checks what a request has for the guest. It returns nil if there is nothing. Its errors show no key
// and no user data.
func parseGuestConfig(q Request, p *problems) *GuestConfig {
	g := &GuestConfig{Hostname: q.Hostname, UserData: q.UserData, SSHAuthorizedKeys: parseKeys(q.SSHAuthorizedKeys, p)}
	if g.Hostname != "" && (!hostname.MatchString(g.Hostname) || len(g.Hostname) > maxHostname) {
		p.add(fieldError("hostname", fmt.Sprintf("%q", g.Hostname),
			fmt.Sprintf("a host name of RFC 1123: letters, digits and hyphens, in parts of 1 to 63 separated by dots, at most %d in all", maxHostname)))
	}
	if n := len(g.UserData); n > MaxUserData {
		p.add(&Error{
			Code: CodeInvalidField, Field: "user_data",
			Message: fmt.Sprintf("user_data has %d bytes; it must have at most %d (64 KiB): let it fetch what is longer", n, MaxUserData),
		})
	}
	if len(g.SSHAuthorizedKeys) == 0 && g.Hostname == "" && g.UserData == "" {
		return nil
	}
	return g
}

// parseKeys checks public keys, and removes the space around them.
func parseKeys(keys []string, p *problems) []string {
	refuse := func(format string, args ...any) {
		p.add(&Error{Code: CodeInvalidField, Field: "ssh_authorized_keys", Message: "ssh_authorized_keys: " + fmt.Sprintf(format, args...)})
	}
	if len(keys) > maxKeys {
		refuse("there are %d keys; at most %d are allowed", len(keys), maxKeys)
		return nil
	}
	var lines []string
	total := 0
	for i, key := range keys {
		key = strings.TrimSpace(key)
		total += len(key) + 1
		switch _, _, _, _, err := ssh.ParseAuthorizedKey([]byte(key)); {
		case strings.Contains(key, "PRIVATE KEY"):
			refuse("key %d is a private key, which nobody else should have; give the public one, whose file ends in .pub", i+1)
		case err != nil || strings.ContainsAny(key, "\r\n\x00"):
			refuse("key %d is not one line of an authorized_keys file, such as ssh-ed25519 AAAAC3Nz… name; this message does not repeat it", i+1)
		}
		lines = append(lines, key)
	}
	if total > maxKeyBytes {
		refuse("the keys have %d bytes; all together they must have at most %d", total, maxKeyBytes)
	}
	return lines
}
