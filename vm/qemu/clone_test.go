package qemu_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"osx-builder/vm"
	"osx-builder/vm/qemu"
	"osx-builder/vm/vmtest/harness"
)

// scsi0 are the lines of a disk on a SCSI controller of the given model.
func scsi0(model string) []string {
	return []string{
		`scsi0.present = "TRUE"`, `scsi0.virtualDev = "` + model + `"`,
		`scsi0:0.present = "TRUE"`, `scsi0:0.fileName = "disk.vmdk"`,
	}
}

func on(slot string) []string {
	controller, _, _ := strings.Cut(slot, ":")
	return []string{controller + `.present = "TRUE"`, slot + `.present = "TRUE"`, slot + `.fileName = "disk.vmdk"`}
}

// Every kind of controller and card that QEMU has boots the image, and so do those that QEMU does not have or cannot
// boot from, with a warning.
func TestHardwareBoots(t *testing.T) {
	t.Parallel()
	windows := `guestOS = "windows9srv-64"`
	for name, test := range map[string]struct {
		lines   []string
		warning string // words of the only warning, or ""
	}{
		"pvscsi":              {scsi0("pvscsi"), ""},
		"lsisas1068":          {scsi0("lsisas1068"), ""},
		"lsilogic":            {scsi0("lsilogic"), ""},
		"buslogic":            {scsi0("buslogic"), "scsi0: the machine has an LSI 53C895A instead of a BusLogic"},
		"lsilogic, far unit":  {append(on("scsi0:15"), `scsi0.virtualDev = "lsilogic"`), ""},
		"lsisas, far unit":    {append(on("scsi1:9"), `scsi1.virtualDev = "lsisas1068"`), ""},
		"lsilogic of Windows": {append(scsi0("lsilogic"), windows), "scsi0:0: the disk is on IDE instead of lsilogic, because Windows"},
		"sata":                {on("sata0:5"), ""},
		"sata, far unit":      {on("sata0:29"), ""},
		"ide":                 {on("ide1:1"), ""},
		"nvme":                {on("nvme0:0"), ""},
		"two disks":           {append(on("ide0:0"), on("nvme1:3")...), ""},
		"e1000":               {append(on("ide0:0"), nic(0, "e1000")...), ""},
		"e1000e":              {append(on("ide0:0"), nic(0, "e1000e")...), ""},
		"vlance":              {append(on("ide0:0"), nic(0, "vlance")...), ""},
		"flexible":            {append(on("ide0:0"), nic(0, "flexible")...), `ethernet0: the machine has the model pcnet instead of "flexible"`},
		"vmxnet":              {append(on("ide0:0"), nic(0, "vmxnet")...), `the model e1000 instead of "vmxnet"`},
		"unknown card":        {append(on("ide0:0"), nic(0, "ne2000")...), `the model e1000 instead of "ne2000"`},
		"no card":             {on("ide0:0"), ""},
		"old board":           {append(on("ide0:0"), `guestOS = "winXPPro"`), ""},
		"ten cards":           {slices.Concat(on("ide0:0"), nic(0, "e1000"), nic(1, "e1000"), nic(2, "vlance"), nic(3, "e1000"), nic(4, "e1000"), nic(5, "e1000"), nic(6, "e1000"), nic(7, "e1000e"), nic(8, "vmxnet3"), nic(9, "e1000")), ""},
		"many devices":        {append(append(scsi0("pvscsi"), on("sata0:0")...), on("nvme0:0")...), ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newTestDriver(t)
			m := r.machine()
			r.clone(m, r.image(idleGuest, test.lines...))
			r.start(m)
			until(t, harness.Timeout, "a word on the serial port", func() bool { return serial(m) == "OK\n" })
			st := r.inspect(m)
			cards := max(1, strings.Count(strings.Join(test.lines, ""), ".virtualDev = \"e1")+
				strings.Count(strings.Join(test.lines, ""), "vmxnet")+strings.Count(strings.Join(test.lines, ""), "vlance")+
				strings.Count(strings.Join(test.lines, ""), "flexible")+strings.Count(strings.Join(test.lines, ""), "ne2000"))
			if len(st.NICs) != cards || st.MAC != st.NICs[0].MACAddress || st.MAC == "" {
				t.Errorf("got MAC address %q and NICs %+v, want %d with the first one's address", st.MAC, st.NICs, cards)
			}
			if len(st.Warnings) > 1 || (len(st.Warnings) == 1) != (test.warning != "") || test.warning != "" && !strings.Contains(st.Warnings[0].Message, test.warning) {
				t.Errorf("got warnings %+v, want %q", st.Warnings, test.warning)
			}
		})
	}
}

// nic are the lines of a network card of the given model.
func nic(n int, model string, more ...string) []string {
	lines := []string{fmt.Sprintf(`ethernet%d.present = "TRUE"`, n), fmt.Sprintf(`ethernet%d.virtualDev = "%s"`, n, model), fmt.Sprintf(`ethernet%d.connectionType = "nat"`, n)}
	for _, m := range more {
		lines = append(lines, fmt.Sprintf("ethernet%d.%s", n, m))
	}
	return lines
}

// The first disk has the size that the request asks for, and keeps it when the machine starts again.
func TestLargerDisk(t *testing.T) {
	t.Parallel()
	r := newTestDriver(t)
	gold := r.image(idleGuest, append(on("ide1:0"), plain...)...)
	if size, err := r.FirstDisk(gold); err != nil || size != 1<<20 {
		t.Fatalf("got a first disk of %d bytes, %v, want 1 MiB", size, err)
	}
	m := r.machine()
	m.Disk = 40 << 30
	r.clone(m, gold)
	for range 2 {
		r.start(m)
		until(t, harness.Timeout, "a word on the serial port", func() bool { return strings.HasPrefix(serial(m), "OK\n") })
		if err := r.Power(t.Context(), m, vm.ActionOff); err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string]int64{"disk0.qcow2": 40 << 30, "disk1.qcow2": 1 << 20} {
			var info struct {
				Size int64 `json:"virtual-size"`
			}
			out, err := exec.Command("qemu-img", "info", "--output=json", filepath.Join(m.Dir, name)).Output()
			harness.Must(t, err)
			harness.Must(t, json.Unmarshal(out, &info))
			if info.Size != want {
				t.Errorf("%s has %d bytes, want %d", name, info.Size, want)
			}
		}
	}
}

// What QEMU has no device or no place for is refused in words that name it.
func TestHardwareRefused(t *testing.T) {
	t.Parallel()
	var many []string
	for n := range 4 {
		many = slices.Concat(many, on(fmt.Sprintf("sata%d:0", n)), on(fmt.Sprintf("sata%d:7", n)), on(fmt.Sprintf("sata%d:13", n)), on(fmt.Sprintf("sata%d:19", n)), on(fmt.Sprintf("sata%d:25", n)))
		many = slices.Concat(many, on(fmt.Sprintf("nvme%d:0", n)), nic(n, "e1000"))
	}
	for name, test := range map[string]struct {
		lines []string
		words []string
	}{
		"unknown controller": {scsi0("adaptec"), []string{"scsi0:0", "adaptec", "pvscsi, lsisas1068, lsilogic or buslogic"}},
		"many controllers":   {many, []string{"28 disk controllers and network cards", "24", "more disks on each"}},
		"macOS":              {append(on("sata0:0"), `guestOS = "darwin20-64"`), []string{"macOS", "darwin20-64", "VMware Fusion"}},
		"IDE on ARM":         {append(on("ide0:0"), `guestOS = "arm-debian12-64"`), []string{"ide0:0", "nvme or sata"}},
		"no disk":            {nil, []string{"no hard disk"}},
		"disk not there":     {[]string{`ide0:0.present = "TRUE"`, `ide0:0.fileName = "other.vmdk"`}, []string{"other.vmdk"}},
		"no place in VMware": {on("ide7:0"), []string{"ide7:0"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newTestDriver(t)
			m := r.machine()
			err := r.Clone(t.Context(), m, r.image(idleGuest, test.lines...))
			wantCode(t, err, vm.CodeImageInvalid, test.words...)
			if st := r.inspect(m); !cmp.Equal(st, vm.Status{}) {
				t.Errorf("got %+v of a machine that could not be cloned, want nothing", st)
			}
		})
	}
}

// A machine that the previous version made keeps its board, its devices and its network card.
func TestMachineOfPreviousVersion(t *testing.T) {
	t.Parallel()
	r := newTestDriver(t)
	m := r.machine()
	r.clone(m, r.image(idleGuest, append(on("sata0:2"), nic(0, "e1000")...)...))
	var clone struct{ Disks []map[string]any }
	text, err := os.ReadFile(filepath.Join(m.Dir, "machine.json"))
	harness.Must(t, err)
	harness.Must(t, json.Unmarshal(text, &clone))
	text, err = json.Marshal(map[string]any{"annotation": "", "guest_os": "winNetStandard", "firmware": "bios", "disks": clone.Disks, "nic": "e1000"})
	harness.Must(t, err)
	harness.Must(t, os.WriteFile(filepath.Join(m.Dir, "machine.json"), text, 0o600))
	harness.Must(t, os.WriteFile(filepath.Join(m.Dir, "link.json"), fmt.Appendf(nil, `{"forwards": [{"host": %d, "guest": 22}]}`, harness.FreePort(t)), 0o600))
	argv, err := r.Command(t.Context(), m)
	harness.Must(t, err)
	line := strings.Join(argv, " ")
	for _, want := range []string{
		"-machine pc -accel ", "-rtc base=localtime", "-device ich9-ahci,id=sata0 ", "-device ide-hd,bus=sata0.2,",
		"-device e1000,netdev=net0,mac=" + r.inspect(m).MAC + ",romfile=",
	} {
		if !strings.Contains(line, want) {
			t.Errorf("got %s, want %q in it", line, want)
		}
	}
	if strings.Contains(line, "pcie") || strings.Contains(line, "ICH9") {
		t.Errorf("got %s, want no PCI Express", line)
	}
	r.start(m)
	until(t, harness.Timeout, "a word on the serial port", func() bool { return serial(m) == "OK\n" })
	if st := r.inspect(m); len(st.NICs) != 1 || st.NICs[0].Model != "e1000" || st.IP != "127.0.0.1" || len(st.Forwards) != 2 {
		t.Errorf("got %+v, want its card and its two forwarded ports", st)
	}
}

// Disks that are changes to other disks are read through the whole chain.
func TestLayeredImage(t *testing.T) {
	t.Parallel()
	r := newTestDriver(t)
	gold := r.image(idleGuest, plain...)
	dir := filepath.Dir(gold)
	r.run("qemu-img", "convert", "-O", "vmdk", filepath.Join(dir, "disk.vmdk"), filepath.Join(dir, "base.vmdk"))
	if err := os.Remove(filepath.Join(dir, "disk.vmdk")); err != nil {
		t.Fatal(err)
	}
	r.run("sh", "-c", `cd "$1" && qemu-img create -q -f vmdk -F vmdk -b base.vmdk disk.vmdk`, "sh", dir)
	m := r.machine()
	r.clone(m, gold)
	r.start(m)
	until(t, harness.Timeout, "a word on the serial port", func() bool { return serial(m) == "OK\n" })
}

// EFI firmware is there for an image that wants it, with variables of its own, also with Secure Boot.
func TestEFI(t *testing.T) {
	t.Parallel()
	for name, lines := range map[string][]string{
		"plain": nil, "Secure Boot": {`uefi.secureBoot.enabled = "TRUE"`}, "TPM": {`vtpm.present = "TRUE"`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newTestDriver(t)
			m := r.machine()
			gold := r.image(idleGuest, slices.Concat([]string{`firmware = "efi"`}, lines, on("sata0:0"))...)
			err := r.Clone(t.Context(), m, gold)
			var lack *vm.Error
			if errors.As(err, &lack) && lack.Code == vm.CodeHypervisorUnavailable && os.Getenv("CI") == "" {
				t.Skip(lack.Message)
			}
			if err != nil {
				t.Fatal(err)
			}
			r.start(m)
			st := r.inspect(m)
			if st.Power != vm.PoweredOn {
				t.Errorf("got %q, want %q", st.Power, vm.PoweredOn)
			}
			until(t, harness.Timeout, "a word of the firmware in its variables", func() bool {
				info, err := os.Stat(filepath.Join(m.Dir, "efivars.fd"))
				return err == nil && info.ModTime().After(mustStat(t, filepath.Join(m.Dir, "machine.json")).ModTime())
			})
			argv, err := r.Command(t.Context(), m)
			if err != nil {
				t.Fatal(err)
			}
			if secure := strings.Contains(strings.Join(argv, " "), "smm=on"); secure != (name == "Secure Boot") {
				t.Errorf("Secure Boot is on: %t", secure)
			}
			if warned := slices.ContainsFunc(st.Warnings, func(w vm.Warning) bool { return w.Code == vm.WarningTPMReplaced }); warned != (name == "TPM") {
				t.Errorf("got warnings %+v", st.Warnings)
			}
		})
	}
}

func mustStat(t *testing.T, path string) os.FileInfo {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info
}

// An interrupted Clone leaves nothing that counts as a machine, and the next Clone
// starts over.
func TestCloneAfterInterruption(t *testing.T) {
	t.Parallel()
	r := newTestDriver(t)
	m := r.machine()
	if err := os.MkdirAll(m.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"disk0.qcow2", "litter"} {
		if err := os.WriteFile(filepath.Join(m.Dir, name), []byte("half"), 0o400); err != nil {
			t.Fatal(err)
		}
	}
	if st := r.inspect(m); !cmp.Equal(st, vm.Status{}) {
		t.Errorf("got %+v of a half-made clone, want nothing", st)
	}
	gold := r.image(idleGuest, plain...)
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.Clone(cancelled, m, gold); !errors.Is(err, context.Canceled) {
		t.Errorf("got error %v of a cancelled Clone, want one that wraps the context's", err)
	}
	r.clone(m, gold)
	if _, err := os.Stat(filepath.Join(m.Dir, "litter")); err == nil {
		t.Error("litter of the interrupted clone is still there")
	}
	r.start(m)
}

// A second Clone does not take away what the guest wrote.
func TestCloneOfWhole(t *testing.T) {
	t.Parallel()
	r := newTestDriver(t)
	m := r.machine()
	gold := r.image(idleGuest, plain...)
	r.clone(m, gold)
	before := sums(t, m.Dir)
	r.run("qemu-io", "-c", "write 64k 512", filepath.Join(m.Dir, "disk0.qcow2"))
	written := sums(t, m.Dir)
	if cmp.Equal(before, written) {
		t.Fatal("writing to the disk changed nothing")
	}
	r.clone(m, gold)
	if diff := cmp.Diff(written, sums(t, m.Dir)); diff != "" {
		t.Errorf("the second Clone changed files, -before +after:\n%s", diff)
	}
}

// An ARM image on a host without QEMU for ARM fails with the name of the package.
func TestARMWithoutQEMU(t *testing.T) {
	t.Parallel()
	r := newTestDriver(t)
	x86, err := exec.LookPath("qemu-system-x86_64")
	harness.Must(t, err)
	program := filepath.Join(t.TempDir(), "qemu-system-x86_64")
	harness.Must(t, os.Symlink(x86, program))
	r.reopen(func(o *qemu.Options) { o.QEMU = program })
	err = r.Clone(t.Context(), r.machine(), r.image(idleGuest, append(on("nvme0:0"), `guestOS = "arm-debian12-64"`)...))
	wantCode(t, err, vm.CodeHypervisorUnavailable, "qemu-system-aarch64", "apt-get install qemu-system-arm qemu-efi-aarch64")
}
