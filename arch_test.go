package main_test

import (
	"cmp"
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

// allowedImports lists which packages of the module each package may import. Tests
// may import all of them.
var allowedImports = map[string][]string{
	"": {
		"api", "api/client", "api/server", "callback", "config", "image", "vm", "vm/hypervisor", "vm/vix",
		"vm/vmx", "vm/vmx/ovf",
	},
	"api":                     {"api/page", "api/token", "vm"},
	"api/client":              nil,
	"api/page":                nil,
	"api/server":              {"api/token"},
	"api/token":               nil,
	"callback":                nil,
	"config":                  nil,
	"image":                   nil,
	"vm":                      {"callback", "image", "vm/probe"},
	"vm/cloudinit":            {"vm"},
	"vm/hypervisor":           {"vm", "vm/qemu", "vm/vix", "vm/vmrun", "vm/vmware", "vm/vsphere"},
	"vm/qemu":                 {"vm", "vm/cloudinit", "vm/vmx", "vm/qemu/cgroup", "vm/qemu/confine", "vm/qemu/disk", "vm/qemu/efivars", "vm/qemu/keyedmutex", "vm/qemu/network", "vm/qemu/process", "vm/qemu/qmp", "vm/qemu/readiness", "vm/qemu/template"},
	"vm/qemu/cgroup":          nil,
	"vm/qemu/confine":         nil,
	"vm/qemu/disk":            {"vm", "vm/vmx", "vm/qemu/confine", "vm/qemu/keyedmutex", "vm/qemu/process"},
	"vm/qemu/keyedmutex":      nil,
	"vm/qemu/network":         nil,
	"vm/qemu/process":         {"vm/qemu/confine"},
	"vm/qemu/qmp":             {"vm/qemu/keyedmutex"},
	"vm/qemu/qmp/qmptest":     nil,
	"vm/qemu/readiness":       nil,
	"vm/qemu/template":        {"vm", "vm/qemu/network"},
	"vm/vix":                  {"vm", "vm/vmware"},
	"vm/probe":                nil,
	"vm/vmtest":               {"vm"},
	"vm/vmtest/daemon":        {"api", "api/server", "callback", "config", "image", "vm", "vm/vmtest"},
	"vm/vmtest/demo":          {"vm", "vm/vmtest/e2e", "vm/vmtest/vcenter"},
	"vm/vmtest/crash":         nil,
	"vm/vmtest/e2e":           {"vm", "vm/qemu/network"},
	"vm/vmtest/hostile":       nil,
	"vm/vmtest/harness":       {"vm", "vm/vmtest/e2e"},
	"vm/vmtest/testreport":    nil,
	"vm/vmtest/vcenter":       nil,
	"vm/vmtest/windows":       nil,
	"vm/vmtest/windows/vmrun": nil,
	"vm/vmtest/vcenter/vcsim": {"vm/vmtest/vcenter"},
	"vm/vmrun":                {"vm", "vm/qemu/keyedmutex", "vm/vmware"},
	"vm/vmware":               {"vm", "vm/cloudinit", "vm/vmx"},
	"vm/vmx":                  nil,
	"vm/vmx/ovf":              {"vm/vmx"},
	"vm/vsphere":              {"vm", "vm/cloudinit", "vm/vmx"},
	"vm/qemu/efivars":         nil,
}

type goPackage struct {
	ImportPath, Doc, Dir       string
	Imports, GoFiles, CgoFiles []string
}

// packages returns the module's packages by name, as the go command lists them with
// these build tags.
func packages(t *testing.T, tags string) map[string]goPackage {
	t.Helper()
	const fields = "-json=ImportPath,Doc,Dir,Imports,GoFiles,CgoFiles"
	out, err := exec.Command("go", "list", "-tags", tags, fields, "./...").Output()
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

func TestImports(t *testing.T) {
	for _, tags := range []string{"", "vix"} {
		t.Run("tags "+tags, func(t *testing.T) { checkImports(t, packages(t, tags)) })
	}
}

// checkImports checks that each package has a comment and imports only what it may.
func checkImports(t *testing.T, all map[string]goPackage) {
	t.Helper()
	for name, p := range all {
		allowed, known := allowedImports[name]
		if !known {
			t.Errorf("package %q is not in allowedImports", name)
		}
		for _, path := range p.Imports {
			if to, ok := strings.CutPrefix(path, "osx-builder/"); ok && !slices.Contains(allowed, to) {
				t.Errorf("%q imports %q, which allowedImports does not allow", name, to)
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

// mostMethods is the highest number of methods of a type, except for those in
// methodLimits. A type that needs more has parts with their own state and lock.
const mostMethods = 40

var methodLimits = map[string]int{"vm.Manager": 30, "vm/qemu.Driver": 30, "vm/vix.Driver": 25}

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
	for name, n := range count {
		if limit := cmp.Or(methodLimits[name], mostMethods); n > limit {
			t.Errorf("%s has %d methods, want at most %d", name, n, limit)
		}
	}
	for name := range methodLimits {
		if count[name] == 0 {
			t.Errorf("%s has no methods; is it still called that?", name)
		}
	}
}

// The API uses only the methods of the Manager, because no field is exported.
func TestManagerHasNoExportedFields(t *testing.T) {
	for f := range reflect.TypeFor[vm.Manager]().Fields() {
		if f.Anonymous || f.IsExported() {
			t.Errorf("vm.Manager has the field %s, want only unexported fields with a name", f.Name)
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
			for _, undocumented := range uncommented(f) {
				t.Errorf("%s/%s: %s has no comment", name, file, undocumented)
			}
		}
	}
}

// Every code of a warning is in [vm.WarningCodes], in api/openapi.json and in api/README.md.
func TestWarningCodes(t *testing.T) {
	source := harness.ReadFile(t, "vm/warning.go")
	for _, m := range regexp.MustCompile(`(?m)^\s+Warning\w+\s+WarningCode = "([a-z-]+)"`).FindAllStringSubmatch(source, -1) {
		if !slices.Contains(vm.WarningCodes(), vm.WarningCode(m[1])) {
			t.Errorf("code %s is not in vm.WarningCodes", m[1])
		}
	}
	openAPI, readme := harness.ReadFile(t, "api/openapi.json"), harness.ReadFile(t, "api/README.md")
	for _, code := range vm.WarningCodes() {
		if !strings.Contains(openAPI, `"`+string(code)+`"`) || !strings.Contains(readme, "| `"+string(code)+"` |") {
			t.Errorf("api/openapi.json or api/README.md does not explain the warning %s", code)
		}
	}
}

// Every error code is in [vm.Codes] and has an HTTP status.
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
