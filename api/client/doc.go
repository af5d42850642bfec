// Package client is the command line of osx-builder: the verbs that people and
// scripts type, each a request or two to a daemon's HTTP API.
//
// It knows the API as any other client does, by its JSON, and not by the types
// of package vm: a document is handed on byte by byte as the daemon sent it, so
// that fields of a newer daemon than this program arrive too, and what it reads
// itself are the few fields of the structs in machine.go. So the command line
// also shows that the API is enough for a client that does not share its code.
package client
