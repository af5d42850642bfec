package vm

import (
	"os"
	"regexp"
	"strings"
)

// temporary matches the name of a file that [WriteFile] had not renamed yet.
var temporary = regexp.MustCompile(`^\.([0-9a-f-]{36})(\.tombstone)?\.json[0-9]+$`)

// temporaryPull is the same for the records of pulls and pins.
var temporaryPull = regexp.MustCompile(`^\.[a-z0-9]+-[0-9a-f]+\.json[0-9]+$`)

// litter returns the names of folders and files that belong to no record, because
// a crash left them: the machines' folders and temporary files. others are the
// names of what the daemon did not make, such as an operator's backup.
func (s *store) litter() (litter, others []string, err error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, nil, err
	}
	ids, err := s.ids()
	if err != nil {
		return nil, nil, err
	}
	records := make(map[string]bool)
	for _, id := range ids {
		records[id] = true
	}
	for _, e := range entries {
		name := e.Name()
		id := strings.TrimSuffix(strings.TrimSuffix(strings.TrimSuffix(name, corruptSuffix), recordSuffix), ".tombstone")
		switch {
		case e.IsDir() && ValidID(name):
			if !records[name] {
				litter = append(litter, name)
			}
		case e.Type().IsRegular() && temporary.MatchString(name):
			litter = append(litter, name)
		case e.IsDir() || !ValidID(id) || !strings.Contains(name, recordSuffix):
			others = append(others, name)
		}
	}
	return litter, others, nil
}
