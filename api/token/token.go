// Package token reads the tokens of the API's clients from a file, with the names and the scopes that the operator gave
// them.
package token

import (
	"slices"
	"strings"
)

// Scope is a right of a token. Each scope adds rights; the documentation lists which requests each allows.
type Scope string

// The scopes.
const (
	Read   Scope = "read"   // see everything
	Create Scope = "create" // create machines and get images
	Own    Scope = "own"    // see, change and destroy the machines of the token's name
	Admin  Scope = "admin"  // everything
)

// Scopes lists every Scope.
func Scopes() []Scope { return []Scope{Read, Create, Own, Admin} }

// Token is what is known of a client that sends a valid token. The zero value allows nothing.
type Token struct {
	Name   string // "" for one without a name
	Scopes []Scope
}

// Full returns a token without a name that allows everything.
func Full() Token { return Token{Scopes: []Scope{Admin}} }

// Has reports whether the token has one of the scopes, or [Admin].
func (t Token) Has(any ...Scope) bool {
	return slices.ContainsFunc(t.Scopes, func(s Scope) bool { return s == Admin || slices.Contains(any, s) })
}

// Join lists scopes for a message, with the word before the last one, as in "read, create or own".
func Join(scopes []Scope, word string) string {
	var b strings.Builder
	for i, s := range scopes {
		switch {
		case i > 0 && i == len(scopes)-1:
			b.WriteString(" " + word + " ")
		case i > 0:
			b.WriteString(", ")
		}
		b.WriteString(string(s))
	}
	return b.String()
}
