// Package client is the command line of osx-builder: the verbs that people and scripts type. Each verb sends a few
// requests to a daemon's HTTP API.
//
// The package knows only the JSON of the API and does not use the types of package vm. If stdout is not a
// terminal, it prints documents exactly as the daemon sent them, so that they include fields of a newer daemon. The few
// fields that it reads itself are in documents.go. This also proves that the API is sufficient for a client without shared code.
//
// Each verb has a constructor that returns its cobra command, and its flags are the fields of a struct whose run method
// does the work. All verbs share a [cli], which consists of the settings of the connection and the output.
package client
