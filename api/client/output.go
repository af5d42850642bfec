package client

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// output writes documents and tables to stdout, and messages to stderr.
type output struct {
	stdout, stderr io.Writer
	field          string // the field of documents to print; "" for the whole document
	quiet          bool   // no messages
}

// printDocument writes a document to stdout, or only the field that --field names.
func (o *output) printDocument(document []byte) error {
	if o.field == "" || len(document) == 0 {
		_, err := o.stdout.Write(document)
		return err
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(document, &fields); err != nil {
		return fmt.Errorf("reading the document: %w", err)
	}
	value, ok := fields[o.field]
	if !ok {
		return usageError("--field %s: the document has no such field", o.field)
	}
	text := string(value)
	if s := ""; json.Unmarshal(value, &s) == nil {
		text = s
	}
	_, err := fmt.Fprintln(o.stdout, text)
	return err
}

// withFieldFlag adds --field to a verb that prints a document.
func (o *output) withFieldFlag(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().StringVar(&o.field, "field", "", "print only this field of the document, such as id or ip_address, without quotes")
	return cmd
}

// printTable writes a table to stdout. Its header and rows are lines with cells separated by tabs.
func (o *output) printTable(header string, rows func(io.Writer)) error {
	w := tabwriter.NewWriter(o.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, header)
	rows(w)
	return w.Flush()
}

// infof writes a message to stderr.
func (o *output) infof(format string, args ...any) {
	if !o.quiet {
		fmt.Fprintf(o.stderr, "osx-builder: "+format+"\n", args...)
	}
}

// newProgress returns a progress display on stderr.
func (o *output) newProgress() *progress {
	if o.quiet {
		return &progress{}
	}
	return &progress{out: o.stderr, terminal: isTerminal(o.stderr)}
}

// isTerminal reports whether w is a terminal.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
