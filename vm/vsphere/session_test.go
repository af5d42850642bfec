// The simulator of vCenter has data races of its own.
//go:build !race

package vsphere_test

import (
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"osx-builder/vm"
	"osx-builder/vm/vmtest/harness"
	"osx-builder/vm/vmtest/vcenter"
	"osx-builder/vm/vsphere"
)

// A server is used only if its certificate is trusted, and what is wrong is said.
func TestReady(t *testing.T) {
	t.Parallel()
	b := newBench(t, vcenter.Options{Clusters: 2})
	wrongCA := filepath.Join(t.TempDir(), "ca.pem")
	harness.Must(t, os.WriteFile(wrongCA, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: selfSigned(t)}), 0o600))
	tests := map[string]struct {
		change func(*vsphere.Options)
		says   []string // nothing if it is ready
	}{
		"by CA":                {func(*vsphere.Options) {}, nil},
		"by thumbprint":        {func(o *vsphere.Options) { o.CAFile, o.Thumbprint = "", b.server.Thumbprint }, nil},
		"by no check":          {func(o *vsphere.Options) { o.CAFile, o.Insecure = "", true }, nil},
		"by pool":              {func(o *vsphere.Options) { o.Cluster, o.Pool = "", "DC0_C1/Resources" }, nil},
		"a new folder":         {func(o *vsphere.Options) { o.Folder = "builders" }, nil},
		"a wrong CA":           {func(o *vsphere.Options) { o.CAFile = wrongCA }, []string{"is not trusted", "-vsphere-ca-file"}},
		"no CA":                {func(o *vsphere.Options) { o.CAFile = "" }, []string{"is not trusted", "-vsphere-thumbprint"}},
		"a wrong thumbprint":   {func(o *vsphere.Options) { o.CAFile, o.Thumbprint = "", "00"+b.server.Thumbprint[2:] }, []string{"is not trusted"}},
		"a missing CA file":    {func(o *vsphere.Options) { o.CAFile += "x" }, []string{"-vsphere-ca-file"}},
		"a wrong password":     {func(o *vsphere.Options) { o.ReadPassword = func() (string, error) { return "wrong", nil } }, []string{vcenter.Username, "-vsphere-password-file"}},
		"no password":          {func(o *vsphere.Options) { o.ReadPassword = func() (string, error) { return "", os.ErrNotExist } }, []string{"password", "cannot be read"}},
		"an unknown name":      {func(o *vsphere.Options) { o.URL = "https://vcenter.invalid/sdk" }, []string{"vcenter.invalid", "cannot be resolved"}},
		"nobody listens":       {func(o *vsphere.Options) { o.URL = "https://" + harness.FreeAddress(t) + "/sdk" }, []string{"cannot be reached"}},
		"an unknown cluster":   {func(o *vsphere.Options) { o.Cluster = "C9" }, []string{"-vsphere-cluster", `"C9"`}},
		"several clusters":     {func(o *vsphere.Options) { o.Cluster = "" }, []string{"more than one", "-vsphere-cluster or -vsphere-pool"}},
		"an unknown datastore": {func(o *vsphere.Options) { o.Datastore = "D9" }, []string{"-vsphere-datastore", `"D9"`}},
		"an unknown network":   {func(o *vsphere.Options) { o.Networks = map[string]string{"nat": "N9"} }, []string{"-vsphere-network", `"N9"`}},
		"an unknown folder":    {func(o *vsphere.Options) { o.Folder = "no/such" }, []string{"-vsphere-folder", `"no/such"`}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			o := b.options()
			tc.change(&o)
			d, err := vsphere.Open(o)
			harness.Must(t, err)
			defer d.Close()
			err = d.Ready(ctx(t))
			if len(tc.says) == 0 {
				if err != nil {
					t.Errorf("got %v, want it to be ready", err)
				}
				return
			}
			e, ok := errors.AsType[*vm.Error](err)
			if !ok || e.Code != vm.CodeHypervisorUnavailable {
				t.Fatalf("got %v, want code %s", err, vm.CodeHypervisorUnavailable)
			}
			for _, part := range tc.says {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("got %q, want %q in it", err, part)
				}
			}
			if strings.Contains(err.Error(), vcenter.Password) {
				t.Errorf("the error has the password: %v", err)
			}
		})
	}
}

// Each privilege of the role in the README that the account lacks is named, and so are all at once.
func TestMissingPrivileges(t *testing.T) {
	t.Parallel()
	b := newBench(t, vcenter.Options{})
	role := readRole(t)
	for _, missing := range append(privilegesAlone(role), role) {
		b.server.Revoke(missing...)
		err := b.open(t).Ready(ctx(t))
		e, ok := errors.AsType[*vm.Error](err)
		if !ok || e.Code != vm.CodeHypervisorUnavailable {
			t.Errorf("without %v: got %v, want code %s", missing, err, vm.CodeHypervisorUnavailable)
			continue
		}
		for _, id := range missing {
			if !strings.Contains(e.Message, id+" on the ") {
				t.Errorf("without %v: got %q, want %s in it", missing, e.Message, id)
			}
		}
	}
	b.server.Revoke()
	harness.Must(t, b.open(t).Ready(ctx(t)))
}

// readRole returns the privileges in the README's role that are needed for objects that exist: a folder is only made if
// it is missing, and every role has those of the system.
func readRole(t *testing.T) (role []string) {
	t.Helper()
	text, err := os.ReadFile("README.md")
	harness.Must(t, err)
	_, rest, _ := strings.Cut(string(text), "govc role.create osx-builder")
	rest, _, _ = strings.Cut(rest, "govc permissions.set")
	for _, word := range strings.Fields(rest) {
		if word != "\\" && word != "Folder.Create" && !strings.HasPrefix(word, "System.") {
			role = append(role, word)
		}
	}
	if len(role) < 20 {
		t.Fatalf("got the role %v", role)
	}
	return role
}

// privilegesAlone returns each privilege in a list of its own.
func privilegesAlone(role []string) (lists [][]string) {
	for _, id := range role {
		lists = append(lists, []string{id})
	}
	return lists
}

// Every verb works after the server has ended the session, and many callers that meet this log in once.
func TestEndedSession(t *testing.T) {
	t.Parallel()
	b := newBench(t, vcenter.Options{})
	d := b.open(t)
	m := b.machine()
	for _, step := range b.steps(d, m) {
		harness.Must(t, b.server.EndSessions(ctx(t)))
		if err := step.call(ctx(t)); err != nil {
			t.Errorf("%s after the session ended: %v", step.name, err)
		}
	}
	if left := b.server.Machines(); len(left) > 0 {
		t.Errorf("got %v, want no machine and no template", left)
	}
	harness.Must(t, b.server.EndSessions(ctx(t)))
	before, _ := b.server.Calls()
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if _, err := d.Inspect(ctx(t), m); err != nil {
				t.Errorf("Inspect beside others: %v", err)
			}
		})
	}
	wg.Wait()
	if after, _ := b.server.Calls(); after["Login"]-before["Login"] != 1 {
		t.Errorf("20 callers logged in %d times, want once", after["Login"]-before["Login"])
	}
}
