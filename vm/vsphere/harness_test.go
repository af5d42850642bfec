// The simulator of vCenter has data races of its own.
//go:build !race

package vsphere_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"osx-builder/vm"
	"osx-builder/vm/vmtest/harness"
	"osx-builder/vm/vmtest/vcenter"
	"osx-builder/vm/vsphere"
)

// image is the checksum of the image that tests use.
const image = "sha256-0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

const goldVMX = `config.version = "8"
virtualHW.version = "19"
displayName = "small"
guestOS = "debian11-64"
firmware = "efi"
numvcpus = "1"
memsize = "256"
scsi0.present = "TRUE"
scsi0.virtualDev = "pvscsi"
scsi0:0.present = "TRUE"
scsi0:0.fileName = "small.vmdk"
ethernet0.present = "TRUE"
ethernet0.virtualDev = "vmxnet3"
`

// bench is a data folder with an unpacked image, and a server.
type bench struct {
	t      testing.TB
	server *vcenter.Server
	dir    string
	change func(*vsphere.Options)
}

// newBench starts a server and prepares a data folder.
func newBench(t testing.TB, o vcenter.Options) *bench {
	t.Helper()
	server, err := vcenter.Start(o)
	harness.Must(t, err)
	t.Cleanup(server.Close)
	return newBenchOn(t, server)
}

// newBenchOn prepares another data folder for a server.
func newBenchOn(t testing.TB, server *vcenter.Server) *bench {
	t.Helper()
	b := &bench{t: t, server: server, dir: t.TempDir()}
	b.addImage(image, goldVMX, "small.vmdk")
	return b
}

// addImage unpacks an image with small disks. Its .vmx file is image.vmx.
func (b *bench) addImage(name, text string, disks ...string) string {
	b.t.Helper()
	dir := filepath.Join(b.dir, "gold", name)
	harness.Must(b.t, os.MkdirAll(dir, 0o755))
	for _, disk := range disks {
		out, err := exec.Command("qemu-img", "create", "-q", "-f", "vmdk", filepath.Join(dir, disk), "4M").CombinedOutput()
		if err != nil {
			b.t.Fatalf("qemu-img: %v: %s", err, out)
		}
	}
	path := filepath.Join(dir, "image.vmx")
	harness.Must(b.t, os.WriteFile(path, []byte(text), 0o644))
	return path
}

func (b *bench) gold() string { return filepath.Join(b.dir, "gold", image, "image.vmx") }

// options returns the options of a driver on the data folder.
func (b *bench) options() vsphere.Options {
	o := vsphere.Options{
		Settings: vsphere.Settings{
			URL: b.server.URL, Username: vcenter.Username, CAFile: b.server.CAFile,
			ReadPassword: func() (string, error) { return vcenter.Password, nil },
			Networks:     map[string]string{"nat": "VM Network"},
		},
		Dir: b.dir, Machines: filepath.Join(b.dir, "vms"), Gold: filepath.Join(b.dir, "gold"),
		Heartbeat: 100 * time.Millisecond,
	}
	if strings.Contains(strings.Join(b.server.Clusters(), " "), "DC0_C0") {
		o.Cluster = "DC0_C0"
	}
	if b.change != nil {
		b.change(&o)
	}
	return o
}

// open opens a driver, and closes it with the test.
func (b *bench) open(t testing.TB) *vsphere.Driver {
	t.Helper()
	d, err := vsphere.Open(b.options())
	harness.Must(t, err)
	t.Cleanup(func() { d.Close() })
	return d
}

// machine returns a new machine of the data folder.
func (b *bench) machine() vm.Machine {
	id := uuid.NewString()
	return vm.Machine{ID: id, Dir: filepath.Join(b.dir, "vms", id), CPUs: 1, Memory: 256, Network: vm.NAT, Annotation: "a test"}
}

// templates returns the names of the templates on the server.
func (b *bench) templates() []string {
	return slices.DeleteFunc(b.server.Machines(), func(name string) bool { return !strings.HasPrefix(name, "osxb-image-") })
}

// machines returns the names of the machines on the server that are no templates.
func (b *bench) machines() []string {
	return slices.DeleteFunc(b.server.Machines(), func(name string) bool { return strings.HasPrefix(name, "osxb-image-") })
}

func ctx(t testing.TB) context.Context {
	c, cancel := context.WithTimeout(t.Context(), harness.Timeout)
	t.Cleanup(cancel)
	return c
}

func removeFolder(m vm.Machine) error { return os.RemoveAll(m.Dir) }

// rename renames a machine on the server.
func (b *bench) rename(t *testing.T, m vm.Machine, name string) {
	t.Helper()
	if !b.server.Change("osxb-"+m.ID, func(v *mo.VirtualMachine) { v.Name = name }) {
		t.Fatalf("there is no machine %s", m.ID)
	}
}

// serverHook makes calls use another hook; nil ends that.
func (b *bench) serverHook(calls *failures, hook func(method string) types.BaseMethodFault) {
	calls.mu.Lock()
	defer calls.mu.Unlock()
	calls.other = hook
}
