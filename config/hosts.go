package config

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
)

// hostName matches a DNS name. With "." or "*." before it, it stands for all names below it.
var hostName = regexp.MustCompile(`^(\*?\.)?[a-zA-Z0-9_]([a-zA-Z0-9_-]*[a-zA-Z0-9_])?(\.[a-zA-Z0-9_]([a-zA-Z0-9_-]*[a-zA-Z0-9_])?)*\.?$`)

// hostsValue is a list of host names, IP addresses and networks.
type hostsValue struct{ target *[]string }

func (v hostsValue) String() string { return strings.Join(*v.target, ",") }

func (v hostsValue) Set(s string) error {
	var list []string
	for word := range strings.SplitSeq(s, ",") {
		word = strings.TrimSpace(word)
		if word == "" || slices.Contains(list, word) {
			continue
		}
		if !isHost(word) {
			return fmt.Errorf("%q must be a host name, a domain such as .example.com, an IP address, or a network such as 10.0.0.0/8", word)
		}
		list = append(list, word)
	}
	*v.target = list
	return nil
}

// isHost reports whether word is a host name, an address or a network. A word of digits and dots that is no valid
// address is refused: such names do not exist, but some systems read them as addresses.
func isHost(word string) bool {
	_, notAddr := netip.ParseAddr(word)
	_, notNet := netip.ParsePrefix(word)
	digits := strings.Trim(word, "0123456789.") == ""
	return notAddr == nil || notNet == nil || !digits && len(word) <= 255 && hostName.MatchString(word)
}
