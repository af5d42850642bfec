// The simulator of vCenter has data races of its own.
//go:build !race

package vsphere_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"osx-builder/vm"
	"osx-builder/vm/vmtest/harness"
	"osx-builder/vm/vmtest/vcenter"
	"osx-builder/vm/vsphere"
)

// Every controller, model of NIC and firmware of an image arrives in the template's hardware.
func TestImportHardware(t *testing.T) {
	t.Parallel()
	b := newBench(t, vcenter.Options{})
	d := b.open(t)
	controllers := map[string]string{
		"pvscsi": "scsi0", "lsilogic": "scsi0", "lsisas1068": "scsi0", "buslogic": "scsi0", "ahci": "sata0", "nvme": "nvme0", "ide": "ide0",
	}
	nics := map[string]string{"e1000": "e1000", "e1000e": "e1000e", "vmxnet3": "vmxnet3", "vmxnet2": "vmxnet2", "vlance": "pcnet32"}
	wantController := map[string]string{
		"pvscsi": "pvscsi", "lsilogic": "lsilogic", "lsisas1068": "lsilogic-sas", "buslogic": "buslogic", "ahci": "ahci", "nvme": "nvme", "ide": "ide",
	}
	check := func(controller, nic, firmware string) {
		slot := controllers[controller]
		text := fmt.Sprintf("guestOS = \"ubuntu-64\"\nfirmware = %q\n%s.present = \"TRUE\"\n%s:0.present = \"TRUE\"\n%s:0.fileName = \"small.vmdk\"\n"+
			"ethernet0.present = \"TRUE\"\nethernet0.virtualDev = %q\n", firmware, slot, slot, slot, nic)
		if strings.HasPrefix(slot, "scsi") {
			text += fmt.Sprintf("scsi0.virtualDev = %q\n", controller)
		}
		name := fmt.Sprintf("md5-%x", controller+nic+firmware)
		gold := b.addImage(name, text, "small.vmdk")
		m := b.machine()
		harness.Must(t, d.Clone(ctx(t), m, gold))
		if !b.server.Change("osxb-"+m.ID, func(v *mo.VirtualMachine) { checkHardware(t, v, wantController[controller], nics[nic], "") }) {
			t.Errorf("%s, %s: no machine", controller, nic)
		}
		for _, template := range b.templates() {
			b.server.Change(template, func(v *mo.VirtualMachine) {
				for _, o := range v.Config.ExtraConfig {
					if o := o.GetOptionValue(); o.Key == "osxb.image" && o.Value == name {
						checkHardware(t, v, wantController[controller], nics[nic], firmware)
						if v.Config.GuestId != "ubuntu64Guest" {
							t.Errorf("got guest %q", v.Config.GuestId)
						}
					}
				}
			})
		}
	}
	for controller := range controllers {
		check(controller, "vmxnet3", "efi")
	}
	for nic := range nics {
		check("pvscsi", nic, "bios")
	}
}

// checkHardware checks that a machine has a disk on the controller, the NIC, and the firmware unless that is "".
func checkHardware(t *testing.T, v *mo.VirtualMachine, controller, nic, firmware string) {
	t.Helper()
	devices := object.VirtualDeviceList(v.Config.Hardware.Device)
	disks := devices.SelectByType((*types.VirtualDisk)(nil))
	if len(disks) != 1 {
		t.Fatalf("%s: got %d disks, want one", v.Name, len(disks))
	}
	at := devices.FindByKey(disks[0].GetVirtualDevice().ControllerKey)
	if got := devices.Type(at); got != controller {
		t.Errorf("%s: the disk is on %q, want %q", v.Name, got, controller)
	}
	cards := devices.SelectByType((*types.VirtualEthernetCard)(nil))
	if len(cards) != 1 || !strings.Contains(strings.ToLower(devices.TypeName(cards[0])), nic) {
		t.Errorf("%s: got NICs %v, want one %s", v.Name, cards, nic)
	}
	if firmware != "" && v.Config.Firmware != firmware {
		t.Errorf("%s: got firmware %q, want %q", v.Name, v.Config.Firmware, firmware)
	}
}

// An import reports its progress, removes the converted disks, and leaves nothing of an image that cannot be read.
func TestImport(t *testing.T) {
	t.Parallel()
	b := newBench(t, vcenter.Options{})
	d := b.open(t)
	m := b.machine()
	var mu sync.Mutex
	var total int64
	m.Progress = func(_, all int64) {
		mu.Lock()
		defer mu.Unlock()
		total = all
	}
	harness.Must(t, d.Clone(ctx(t), m, b.gold()))
	if total == 0 {
		t.Error("no progress was reported")
	}
	broken := b.addImage("sha256-broken", goldVMX, "small.vmdk")
	harness.Must(t, os.Truncate(filepath.Join(filepath.Dir(broken), "small.vmdk"), 100))
	err := d.Clone(ctx(t), b.machine(), broken)
	if e, ok := errors.AsType[*vm.Error](err); !ok || e.Code != vm.CodeImageInvalid && e.Code != vm.CodeImageUnsafe {
		t.Errorf("a broken disk: got %v, want code %s", err, vm.CodeImageInvalid)
	}
	if _, err := os.Stat(filepath.Join(b.dir, "vsphere")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("converted disks are left: %v", err)
	}
	if got := b.templates(); len(got) != 1 {
		t.Errorf("got templates %v, want one", got)
	}
}

// An upload that arrived as other bytes fails, and leaves nothing.
func TestDamagedUpload(t *testing.T) {
	t.Parallel()
	b := newBench(t, vcenter.Options{Damaged: true})
	err := b.open(t).Clone(ctx(t), b.machine(), b.gold())
	if e, ok := errors.AsType[*vm.Error](err); !ok || e.Code != vm.CodeHypervisor || !strings.Contains(err.Error(), "SHA-1") {
		t.Errorf("got %v, want code %s with SHA-1", err, vm.CodeHypervisor)
	}
	if left := b.server.Machines(); len(left) > 0 {
		t.Errorf("got %v, want nothing", left)
	}
}

// An image that was prepared is imported once, also if many ask for it at once.
func TestPrepareImage(t *testing.T) {
	t.Parallel()
	b := newBench(t, vcenter.Options{})
	d := b.open(t)
	var wg sync.WaitGroup
	for range 5 {
		wg.Go(func() {
			if err := d.PrepareImage(ctx(t), b.gold()); err != nil {
				t.Errorf("PrepareImage: %v", err)
			}
		})
	}
	wg.Wait()
	b.cloneMany(t, d, 2)
	if calls, _ := b.server.Calls(); calls["ImportVApp"] != 1 {
		t.Errorf("got %d imports, want one", calls["ImportVApp"])
	}
}

// A template is listed, is in use while a machine of any daemon is linked to it, and is removed with its image.
func TestKeptImages(t *testing.T) {
	t.Parallel()
	b := newBench(t, vcenter.Options{})
	d := b.open(t)
	other := newBenchOn(t, b.server)
	d2 := other.open(t)
	m := other.cloneMany(t, d2, 1)[0]
	list, err := d.KeptImages(ctx(t))
	if err != nil || len(list) != 1 || list[0].Image != image || list[0].Machines != 1 {
		t.Errorf("got %+v, %v, want the image with one machine", list, err)
	}
	err = d.RemoveImage(ctx(t), image)
	if e, ok := errors.AsType[*vm.Error](err); !ok || e.Code != vm.CodeImageInUse {
		t.Errorf("while a machine needs it: got %v, want code %s", err, vm.CodeImageInUse)
	}
	harness.Must(t, d2.Destroy(ctx(t), m))
	harness.Must(t, d.RemoveImage(ctx(t), image))
	harness.Must(t, d.RemoveImage(ctx(t), image))
	if got := b.server.Machines(); len(got) != 0 {
		t.Errorf("got %v, want nothing", got)
	}
}

// The password is in no log, error, description or file.
func TestPasswordStaysHidden(t *testing.T) {
	t.Parallel()
	calls := &failures{}
	b := newBench(t, vcenter.Options{Hook: calls.hook})
	var log bytes.Buffer
	var mu sync.Mutex
	b.change = func(o *vsphere.Options) {
		o.Log = slog.New(slog.NewTextHandler(lockedWriter{&mu, &log}, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	d := b.open(t)
	m := b.cloneMany(t, d, 1)[0]
	texts := []string{fmt.Sprint(d.Describe(ctx(t))), fmt.Sprintf("%+v", b.options().Settings)}
	for _, method := range []string{"CloneVM_Task", "Login"} {
		harness.Must(t, b.server.EndSessions(ctx(t)))
		calls.set(method, 0, &types.InvalidLogin{})
		err := d.Clone(ctx(t), b.machine(), b.gold())
		if err == nil {
			t.Errorf("%s: got no error", method)
		}
		texts = append(texts, fmt.Sprintf("%+v", err))
	}
	calls.set("", 0, nil)
	harness.Must(t, filepath.WalkDir(b.dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			text, readErr := os.ReadFile(path)
			texts, err = append(texts, string(text)), readErr
		}
		return err
	}))
	harness.Must(t, d.Destroy(ctx(t), m))
	mu.Lock()
	defer mu.Unlock()
	for _, text := range append(texts, log.String()) {
		if strings.Contains(text, vcenter.Password) {
			t.Errorf("the password is in %.200q", text)
		}
	}
}

// lockedWriter lets many goroutines write.
type lockedWriter struct {
	mu *sync.Mutex
	to *bytes.Buffer
}

func (w lockedWriter) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.to.Write(b)
}
