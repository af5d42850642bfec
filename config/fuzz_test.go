package config_test

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"osx-builder/config"
)

// Load never panics, and it returns the same Config again for the file that Print writes.
func FuzzLoad(f *testing.F) {
	f.Add("-listen\n[::1%lo]:0\n-insecure", "PORT=1\nOSX_BUILDER_FORWARD=1,2", "image-max-bytes = 1.1GiB\nlog-level = warn\n")
	f.Add("-forward\n80\n-data\n~/x", "HOME=/h\nOSX_BUILDER_LOG_FORMAT=json", "# x\r\nforward = 1\nforward=2")
	f.Add("-image-max-bytes=1048577", "", "")
	f.Add("-version", "", "=")
	f.Add("-h", "OSX_BUILDER_CREATIONS=1", "creations")
	f.Fuzz(func(t *testing.T, args, environ, text string) {
		e := env{}
		for line := range strings.SplitSeq(environ, "\n") {
			if key, value, ok := strings.Cut(line, "="); ok {
				e[key] = value
			}
		}
		e["OSX_BUILDER_CONFIG"] = file(t, text)
		list := strings.Split(args, "\n")
		for _, arg := range list {
			if strings.Contains(arg, "-config") {
				return // it would name another file to read
			}
		}
		c, err := config.Load(list, e.get)
		if err != nil {
			var help *config.HelpError
			if err.Error() == "" || errors.As(err, &help) && help.Text == "" {
				t.Error("got an empty error")
			}
			return
		}
		if c.Version {
			return
		}
		if !filepath.IsAbs(c.Data) || c.Creations < 1 || c.ImageMaxBytes < 1 {
			t.Fatalf("got %+v", c)
		}
		var b strings.Builder
		if err := c.Print(&b); err != nil {
			t.Fatal(err)
		}
		again, err := config.Load([]string{"-config", file(t, b.String())}, env{}.get)
		if err != nil {
			t.Fatalf("%v, reading\n%s", err, b.String())
		}
		again.File = c.File
		if diff := cmp.Diff(c, again, cmpopts.IgnoreUnexported(config.Config{})); diff != "" {
			t.Errorf("(-first +again):\n%s", diff)
		}
	})
}
