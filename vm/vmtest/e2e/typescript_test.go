package e2e_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"osx-builder/vm/vmtest/harness"
)

// A TypeScript client that is generated from the OpenAPI document compiles under --strict, and walks the whole life of a
// machine over HTTP. The daemon has the in-memory driver.
func TestTypeScriptClient(t *testing.T) {
	t.Parallel()
	modules := harness.Need(t, filepath.Join(harness.BuildDir(t), "typescript", "node_modules"))
	dir := t.TempDir()
	harness.Must(t, os.Symlink(modules, filepath.Join(dir, "node_modules")))
	harness.Must(t, os.CopyFS(dir, os.DirFS(filepath.Join("testdata", "typescript"))))
	run := func(name string, args ...string) {
		t.Helper()
		cmd := exec.Command(name, args...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s %q: %v\n%s", name, args, err, out)
		}
	}
	run(filepath.Join(modules, ".bin", "openapi-typescript"), harness.Path(t, "api/openapi.json"), "-o", "api.ts")
	run(filepath.Join(modules, ".bin", "tsc"))

	h := harness.NewProgram(t, harness.MemoryDaemon(t), nil, "-memory-reserve", "1mib")
	images := harness.MemoryImages(t)
	h.Serve(images)
	image := h.ImageOf("image0", images["image0"])
	run("node", filepath.Join("out", "life.js"), h.URL, image.URL, image.SHA256)
}
