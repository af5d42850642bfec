package vm

import (
	"fmt"
	"slices"
	"strings"
)

// problems collects what is wrong with the fields of a request.
type problems struct{ list []*Error }

// add adds an error, unless the field has one already.
func (p *problems) add(err error) { p.addFor("", err) }

// addFor is add for an error that may lack its field.
func (p *problems) addFor(field string, err error) {
	e := asError(err)
	if e == nil {
		return
	}
	if e.Field == "" {
		withField := *e
		withField.Field = field
		e = &withField
	}
	if !slices.ContainsFunc(p.list, func(other *Error) bool { return other.Field == e.Field }) {
		p.list = append(p.list, e)
	}
}

// maxShownValue is the largest number of bytes of an invalid value that an error shows.
const maxShownValue = 200

// fieldError says which field is wrong, with the start of the invalid value and what would be right.
func fieldError(field, value, want string) *Error {
	if len(value) > maxShownValue {
		value = fmt.Sprintf("%s… (%d bytes)", strings.ToValidUTF8(value[:maxShownValue], ""), len(value))
	}
	return &Error{Code: CodeInvalidField, Field: field, Message: fmt.Sprintf("%s is %s; it must be %s", field, value, want)}
}

// missing says that a field is missing, and what it must be.
func missing(field, want string) *Error {
	return &Error{Code: CodeInvalidField, Field: field, Message: fmt.Sprintf("%s is missing; it must be %s", field, want)}
}
