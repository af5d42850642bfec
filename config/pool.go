package config

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
)

const (
	minPoolMemory = 32 << 20 // of a machine
	maxPool       = 1000     // machines
)

// Pool says which machines are kept prepared up to the last step.
type Pool struct {
	Checksum string // of the image
	CPUs     int    // virtual processors, at least 1
	Memory   int    // MiB, at least 32
	Count    int    // of machines, 1 to 1000
}

// checksum matches the checksum of an image, with or without its type.
var checksum = regexp.MustCompile(`^(?i:(md5|sha1|sha256|sha512)[:-])?([0-9a-fA-F]{32}|[0-9a-fA-F]{40}|[0-9a-fA-F]{64}|[0-9a-fA-F]{128})$`)

// poolsValue is a list of pools, such as "CHECKSUM cpus=2 memory=1GiB start=memory count=4".
type poolsValue struct{ target *[]Pool }

func (v poolsValue) String() string {
	var all []string
	for _, p := range *v.target {
		memory := int64(p.Memory) << 20
		all = append(all, fmt.Sprintf("%s cpus=%d memory=%s start=memory count=%d", p.Checksum, p.CPUs, sizeValue{target: &memory}, p.Count))
	}
	return strings.Join(all, ", ")
}

func (v poolsValue) Set(s string) error {
	var all []Pool
	for text := range strings.SplitSeq(s, ",") {
		if strings.TrimSpace(text) == "" {
			continue
		}
		p, err := parsePool(strings.Fields(text))
		if err != nil {
			return err
		}
		all = append(all, p)
	}
	*v.target = all
	return nil
}

// parsePool reads a pool, whose defaults are those of requests.
func parsePool(words []string) (Pool, error) {
	p := Pool{Checksum: strings.ToLower(words[0]), CPUs: 2, Memory: 512, Count: 1}
	if !checksum.MatchString(words[0]) {
		return p, fmt.Errorf("%.200q must be the checksum of an image in hex, with or without its type, as in sha256:…; then cpus=2 memory=1GiB start=memory count=4", words[0])
	}
	seen := map[string]bool{}
	for _, word := range words[1:] {
		name, value, _ := strings.Cut(word, "=")
		if seen[name] {
			return p, fmt.Errorf("%q is given twice for one pool; separate pools by commas", name)
		}
		seen[name] = true
		if err := p.set(name, value); err != nil {
			return p, fmt.Errorf("%.200q: %w", word, err)
		}
	}
	return p, nil
}

// set sets one property.
func (p *Pool) set(name, value string) error {
	switch name {
	case "cpus":
		return intValue{&p.CPUs, 1, 255}.Set(value)
	case "count":
		return intValue{&p.Count, 1, maxPool}.Set(value)
	case "memory":
		var bytes int64
		if err := (sizeValue{&bytes, minPoolMemory}).Set(value); err != nil {
			return err
		}
		p.Memory = int((bytes + 1<<20 - 1) >> 20)
		return nil
	case "start":
		if value != "memory" {
			return errors.New("must be memory: only machines that start from memory can be prepared")
		}
		return nil
	}
	return errors.New("must be one of cpus=2, memory=1GiB, start=memory and count=4")
}
