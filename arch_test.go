package main_test

import (
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"osx-builder/api"
	"osx-builder/vm"
	"osx-builder/vm/vmtest/harness"
)

// arrows is the house: which package may import which of the others. What is
// not here is not allowed; tests may import what they like.
var arrows = map[string][]string{
	"":                     {"api", "api/client", "api/server", "callback", "config", "image", "vm", "vm/hypervisor", "vm/qemu", "vm/vix", "vm/vmx"},
	"api":                  {"api/page", "vm"},
	"api/client":           nil,
	"api/page":             nil,
	"api/server":           nil,
	"callback":             nil,
	"config":               nil,
	"image":                nil,
	"vm":                   {"callback", "image"},
	"vm/hypervisor":        {"vm", "vm/qemu", "vm/vix"},
	"vm/qemu":              {"vm", "vm/vmx", "vm/qemu/network"},
	"vm/qemu/network":      nil,
	"vm/vix":               {"vm", "vm/vmx"},
	"vm/vmtest":            {"vm"},
	"vm/vmtest/daemon":     {"api", "api/server", "callback", "config", "image", "vm", "vm/vmtest"},
	"vm/vmtest/demo":       {"vm", "vm/vmtest/e2e"},
	"vm/vmtest/crash":      nil,
	"vm/vmtest/e2e":        {"vm", "vm/qemu/network"},
	"vm/vmtest/harness":    {"vm", "vm/vmtest/e2e"},
	"vm/vmtest/testreport": nil,
	"vm/vmx":               nil,
}

type goPackage struct {
	ImportPath, Doc, Dir       string
	Imports, GoFiles, CgoFiles []string
}

// packages lists the module's packages as the go command sees them with these
// build tags.
func packages(t *testing.T, tags string) map[string]goPackage {
	t.Helper()
	out, err := exec.Command("go", "list", "-tags", tags, "-json=ImportPath,Doc,Dir,Imports,GoFiles,CgoFiles", "./...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	all := make(map[string]goPackage)
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p goPackage
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatalf("go list: %v", err)
		}
		all[strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, "osx-builder"), "/")] = p
	}
}

func TestArrows(t *testing.T) {
	for _, tags := range []string{"", "vix"} {
		t.Run("tags "+tags, func(t *testing.T) { followArrows(t, packages(t, tags)) })
	}
}

func followArrows(t *testing.T, all map[string]goPackage) {
	t.Helper()
	for name, p := range all {
		allowed, known := arrows[name]
		if !known {
			t.Errorf("package %q is not in the house; is it to be?", name)
		}
		for _, path := range p.Imports {
			if to, ok := strings.CutPrefix(path, "osx-builder/"); ok && !slices.Contains(allowed, to) {
				t.Errorf("%q imports %q, which it must not know", name, to)
			}
		}
		if name == "vm" && slices.Contains(p.Imports, "net/http") {
			t.Error("vm imports net/http; only api knows HTTP")
		}
		if p.Doc == "" {
			t.Errorf("package %q has no comment", name)
		}
	}
}

// methodLimits is how many methods a type may have at most. More of them belong
// to parts with their own state and lock.
var methodLimits = map[string]int{"vm.Manager": 30}

func TestMethodLimits(t *testing.T) {
	count := make(map[string]int)
	for name, p := range packages(t, "vix") {
		for _, file := range append(p.GoFiles, p.CgoFiles...) {
			f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, file), nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range f.Decls {
				if d, ok := d.(*ast.FuncDecl); ok && d.Recv != nil {
					count[name+"."+strings.TrimPrefix(types.ExprString(d.Recv.List[0].Type), "*")]++
				}
			}
		}
	}
	for name, limit := range methodLimits {
		if n := count[name]; n == 0 || n > limit {
			t.Errorf("%s has %d methods, want 1 to %d", name, n, limit)
		}
	}
}

// The API calls the Manager's verbs. It reaches through the Manager to nothing,
// because no field can be seen from outside.
func TestManagerHasNoVisibleFields(t *testing.T) {
	for f := range reflect.TypeFor[vm.Manager]().Fields() {
		if f.Anonymous || f.IsExported() {
			t.Errorf("vm.Manager has the field %s, want named unexported fields only", f.Name)
		}
	}
}

// Every exported declaration has a comment.
func TestExportedNamesHaveComments(t *testing.T) {
	for name, p := range packages(t, "vix") {
		for _, file := range append(p.GoFiles, p.CgoFiles...) {
			f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, file), nil, parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			for _, bare := range uncommented(f) {
				t.Errorf("%s/%s: %s has no comment", name, file, bare)
			}
		}
	}
}

// Every code that a client may see has a status and is in vm.Codes.
func TestCodes(t *testing.T) {
	statuses := api.Statuses()
	for _, code := range vm.Codes() {
		if statuses[code] == 0 {
			t.Errorf("code %s has no HTTP status", code)
		}
	}
	source := harness.ReadFile(t, "vm/error.go")
	for _, m := range regexp.MustCompile(`(?m)^\s+Code\w+\s+Code = "([a-z-]+)"`).FindAllStringSubmatch(source, -1) {
		if !slices.Contains(vm.Codes(), vm.Code(m[1])) {
			t.Errorf("code %s is not in vm.Codes", m[1])
		}
	}
}
