package config

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"time"
)

// hostName is a name of DNS, or one that begins with a dot or "*." and stands
// for all below it.
var hostName = regexp.MustCompile(`^(\*?\.)?[a-zA-Z0-9_]([a-zA-Z0-9_-]*[a-zA-Z0-9_])?(\.[a-zA-Z0-9_]([a-zA-Z0-9_-]*[a-zA-Z0-9_])?)*\.?$`)

// hosts is a list of host names, IP addresses and networks.
type hosts struct{ at *[]string }

func (v hosts) String() string { return strings.Join(*v.at, ",") }

func (v hosts) Set(s string) error {
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
	*v.at = list
	return nil
}

// isHost refuses what is all digits and dots and yet no address: such a name
// there is none of, but systems read it as an address all the same.
func isHost(word string) bool {
	_, notAddr := netip.ParseAddr(word)
	_, notNet := netip.ParsePrefix(word)
	digits := strings.Trim(word, "0123456789.") == ""
	return notAddr == nil || notNet == nil || !digits && len(word) <= 255 && hostName.MatchString(word)
}

// span is a duration between two bounds.
type span struct {
	at          *time.Duration
	least, most time.Duration
}

func (v span) String() string { return v.at.String() }

func (v span) Set(s string) error {
	d, err := time.ParseDuration(s)
	if err != nil || d < v.least || d > v.most {
		return fmt.Errorf("must be a duration from %v to %v, as in 90s or 5m", v.least, v.most)
	}
	*v.at = d
	return nil
}
