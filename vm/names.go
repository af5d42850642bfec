package vm

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/agext/levenshtein"
)

const (
	// minPrefix is the shortest start of an id, in characters, that names a machine or an image.
	minPrefix = 4

	// maxCandidates is the largest number of ids that an error lists.
	maxCandidates = 5

	// maxTypos is the largest edit distance between what a client wrote and a name that an error suggests.
	maxTypos = 2
)

// label matches an RFC 1123 label.
var label = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// checkName checks the name of a machine. "" is no name. A name that has the form of an id would hide the machine with
// that id, and the name localhost would lead guests away from themselves.
func checkName(name string) error {
	if name == "" || (label.MatchString(name) && !ValidID(name) && name != "localhost") {
		return nil
	}
	return fieldError("name", fmt.Sprintf("%q", name),
		"1 to 63 lower-case letters, digits and hyphens, begin and end with a letter or digit, and be neither localhost nor a UUID")
}

// nameIndex knows the ids, the names and the owners of the machines that exist.
type nameIndex struct {
	mu     sync.Mutex           // guards what follows
	byID   map[string]ownedName // of each machine
	byName map[string]string    // the id of each machine that has a name
}

// ownedName is the name of a machine, and its owner. Both may be "".
type ownedName struct{ name, owner string }

func newNameIndex() *nameIndex {
	return &nameIndex{byID: make(map[string]ownedName), byName: make(map[string]string)}
}

// add adds a machine. It returns an *[Error] of [CodeNameTaken] if another machine has its name. Names are unique among
// the machines of all owners, because guests find each other by them; the error shows only the owner of a machine its id.
func (n *nameIndex) add(id, name, owner string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if holder := n.byName[name]; holder != "" && holder != id {
		whose := fmt.Sprintf("belongs to machine %s; choose another name, or destroy that machine first", holder)
		if owner != "" && n.byID[holder].owner != owner {
			whose = "belongs to a machine of another token; choose another name"
		}
		return &Error{Code: CodeNameTaken, Field: "name", Message: fmt.Sprintf("the name %q %s", name, whose)}
	}
	n.byID[id] = ownedName{name, owner}
	if name != "" {
		n.byName[name] = id
	}
	return nil
}

// remove removes a machine. It is a no-op if the index does not have it.
func (n *nameIndex) remove(id string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if name := n.byID[id].name; n.byName[name] == id {
		delete(n.byName, name)
	}
	delete(n.byID, id)
}

// Resolve returns the id of the machine that ref means: its id, its name, or the start of its id with at least four
// characters. A name takes precedence over the start of an id. Machines of other owners do not exist for Resolve. If all
// owners are selected, it does not check whether a whole id exists. Its errors are *[Error]: of [CodeAmbiguous] if
// several ids begin with ref, and of [CodeNotFound].
func (m *Manager) Resolve(ref string, o Owners) (id string, err error) {
	if ValidID(ref) && o.All {
		return ref, nil
	}
	return m.names.resolve(ref, o)
}

// ownedBy returns those of the ids that are of machines of the owners.
func (n *nameIndex) ownedBy(ids []string, o Owners) []string {
	if o.All {
		return ids
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.DeleteFunc(ids, func(id string) bool { return !o.include(n.byID[id].owner) })
}

func (n *nameIndex) resolve(ref string, o Owners) (string, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if id := n.byName[ref]; id != "" && o.include(n.byID[id].owner) {
		return id, nil
	}
	var ids []string
	if ref != "" {
		for id, m := range n.byID {
			if strings.HasPrefix(id, ref) && o.include(m.owner) {
				ids = append(ids, id)
			}
		}
	}
	slices.Sort(ids)
	switch {
	case len(ids) == 1 && len(ref) >= minPrefix:
		return ids[0], nil
	case len(ids) > 1 && len(ref) >= minPrefix:
		return "", ambiguous(ref, ids, n.byID)
	}
	return "", n.unknown(ref, ids, o)
}

// ambiguous is the error for the start of several ids. names may lack some of them.
func ambiguous(ref string, ids []string, names map[string]ownedName) error {
	return &Error{
		Code:    CodeAmbiguous,
		Message: fmt.Sprintf("%d ids begin with %q: %s; add characters until only one does", len(ids), ref, candidates(ids, names)),
	}
}

// candidates lists ids for a message.
func candidates(ids []string, names map[string]ownedName) string {
	var words []string
	for _, id := range ids[:min(len(ids), maxCandidates)] {
		if name := names[id].name; name != "" {
			id += " (" + name + ")"
		}
		words = append(words, id)
	}
	if len(ids) > maxCandidates {
		words = append(words, "...")
	}
	return strings.Join(words, ", ")
}

// unknown is the error for a reference to no machine. It suggests machines that the client may have meant: those whose
// ids begin with ref, which is too short then, or those of the owners with similar names. It needs mu held.
func (n *nameIndex) unknown(ref string, ids []string, o Owners) error {
	e := notFound(ref)
	if len(ids) > 0 {
		e.Message += fmt.Sprintf("; did you mean %s? The start of an id needs at least %d characters", candidates(ids, n.byID), minPrefix)
		return e
	}
	var names []string
	for name, id := range n.byName {
		if o.include(n.byID[id].owner) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	if similar := similarNames(ref, names); len(similar) > 0 {
		e.Message += "; did you mean " + strings.Join(similar, ", ") + "?"
	}
	return e
}

// similarNames returns the names that ref may be a misspelling of, the most similar first.
func similarNames(ref string, names []string) []string {
	if len(ref) > maxShownValue {
		return nil
	}
	distance := func(name string) int { return levenshtein.Distance(ref, name, nil) }
	similar := slices.DeleteFunc(names, func(name string) bool { return distance(name) > min(maxTypos, (len(ref)+1)/2) })
	slices.SortStableFunc(similar, func(a, b string) int { return cmp.Compare(distance(a), distance(b)) })
	return similar[:min(len(similar), maxCandidates)]
}
