package vmware

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"osx-builder/vm"
	"osx-builder/vm/cloudinit"
	"osx-builder/vm/vmx"
)

func readVMX(path string) (*vmx.File, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return vmx.Parse(data)
}

// readWarnings returns what the clones of an image lack.
func readWarnings(gold string) (warnings vm.Warnings, err error) {
	f, err := readVMX(gold)
	if err != nil {
		return nil, unreadableImage(err)
	}
	for _, line := range f.Normalize() {
		warnings.Add(vm.WarningDeviceLeftOut, "VMware cannot read a line of the image's .vmx: %s", line)
	}
	for _, line := range f.DisableHostAccess() {
		warnings.Add(vm.WarningDeviceLeftOut, "%s", line)
	}
	if f.RemoveTPM() {
		warnings.Add(vm.WarningTPMLeftOut, "the image has a virtual TPM, which is encrypted for its maker, and the machine has none; "+
			"a guest whose disk is encrypted with the TPM asks for its recovery key")
	}
	hardware, err := f.Hardware()
	if err != nil {
		return nil, unreadableImage(err)
	}
	for _, what := range hardware.Remarks {
		warnings.Add(vm.WarningOVFLeftOut, "%s", what)
	}
	for i, nic := range hardware.NICs {
		if _, replaced := nic.Network(); replaced && i > 0 {
			warnings.Add(vm.WarningNetworkReplaced, "ethernet%d: the card is on the hostonly network instead of the image's network of type %q", nic.Index, nic.Connection)
		}
	}
	return warnings, nil
}

// writeVMX writes the .vmx of a base: that of the image without devices of the host and lines that VMware cannot read,
// and powered off.
func (s *Bases) writeVMX(b Base) error {
	f, err := readVMX(b.gold)
	if err != nil {
		return unreadableImage(err)
	}
	f.Normalize() // readWarnings has what these leave out
	f.DisableHostAccess()
	f.RemoveTPM()
	f.DeleteFunc(func(key string) bool {
		// A suspended machine cannot be cloned, and an independent disk has no snapshots.
		return strings.HasPrefix(key, "checkpoint.vmstate") || independentDisk(f, key) || strings.HasPrefix(key, "remotedisplay.vnc.")
	})
	if err := setAll(f, append(dialogAnswers, isolation...)); err != nil {
		return err
	}
	return vm.WriteFile(b.VMX(), f.Bytes())
}

var diskMode = regexp.MustCompile(`^(scsi|sata|ide|nvme)[0-9]+:[0-9]+\.mode$`)

// independentDisk reports whether key makes a disk independent of snapshots.
func independentDisk(f *vmx.File, key string) bool {
	mode, _ := f.Get(key)
	return diskMode.MatchString(key) && strings.HasPrefix(strings.ToLower(strings.TrimSpace(mode)), "independent")
}

// setting is a key of a .vmx file and its value.
type setting struct{ key, value string }

// dialogAnswers answer what VMware would ask in a dialog, which nobody may see: the default answer, and that the
// machine was copied.
var dialogAnswers = []setting{{"msg.autoAnswer", "TRUE"}, {"uuid.action", "create"}}

// isolation closes what VMware opens between a guest and its host: the image's own VNC server, shared folders, the
// clipboard, and drag and drop. Tools use other channels for the guest's state, address and shutdown.
var isolation = []setting{
	{"RemoteDisplay.vnc.enabled", "FALSE"},
	{"sharedFolder.maxNum", "0"},
	{"hgfs.mapRootShare", "FALSE"},
	{"hgfs.linkRootShare", "FALSE"},
	{"isolation.tools.hgfs.disable", "TRUE"},
	{"isolation.tools.copy.disable", "TRUE"},
	{"isolation.tools.paste.disable", "TRUE"},
	{"isolation.tools.dnd.disable", "TRUE"},
	{"isolation.tools.setGUIOptions.enable", "FALSE"},
	{"vmci0.unrestricted", "FALSE"},
}

func setAll(f *vmx.File, settings []setting) error {
	for _, s := range settings {
		if err := f.Set(s.key, s.value); err != nil {
			return err
		}
	}
	return nil
}

// customize changes the .vmx of a clone to what the machine's request asks for.
func customize(path string, m vm.Machine) error {
	f, err := readVMX(path)
	if err != nil {
		return fmt.Errorf("reading the clone's .vmx: %w", err)
	}
	settings := append([]setting{
		{"memsize", strconv.Itoa(m.Memory)},
		{"numvcpus", strconv.Itoa(m.CPUs)},
		{"displayName", m.ID},
		{"annotation", m.Annotation},
	}, append(dialogAnswers, isolation...)...)
	// VMware refuses a machine whose processors do not fill its sockets.
	f.Delete("cpuid.coresPerSocket")
	network, err := networkSettings(f, m.Network)
	if err != nil {
		return err
	}
	if m.Guest != nil { // what the image has was for its maker's machine
		f.DeleteFunc(func(key string) bool { return slices.Contains(cloudinit.GuestInfoKeys, key) })
	}
	for _, s := range cloudinit.GuestInfo(m) {
		settings = append(settings, setting{s.Key, s.Value})
	}
	if err := setAll(f, append(settings, network...)); err != nil {
		return err
	}
	if m.Guest != nil { // VMware created the file for everybody to read, which the new one would keep
		if err := os.Chmod(path, 0o600); err != nil {
			return err
		}
	}
	return vm.WriteFile(path, f.Bytes())
}

// networkSettings connects the first NIC to the requested network and the others to those of their types, and removes
// the MAC addresses, so that VMware generates new ones.
func networkSettings(f *vmx.File, t vm.NetworkType) ([]setting, error) {
	hardware, err := f.Hardware()
	if err != nil {
		return nil, err
	}
	var settings []setting
	for i, nic := range hardware.NICs {
		network, _ := nic.Network()
		if i == 0 {
			network = string(t)
		}
		prefix := "ethernet" + strconv.Itoa(nic.Index)
		for _, key := range []string{"address", "generatedAddress", "generatedAddressOffset", "vnet", "networkName", "checkMACAddress"} {
			f.Delete(prefix + "." + key)
		}
		settings = append(
			settings,
			setting{prefix + ".present", "TRUE"},
			setting{prefix + ".startConnected", "TRUE"},
			setting{prefix + ".virtualDev", nic.Model},
			setting{prefix + ".connectionType", network},
			setting{prefix + ".addressType", "generated"},
		)
	}
	return settings, nil
}

// nics returns the machine's NICs. VMware writes the MAC addresses that it generates into the .vmx.
func nics(path string) []vm.NIC {
	f, err := readVMX(path)
	if err != nil {
		return nil
	}
	hardware, err := f.Hardware()
	if err != nil {
		return nil
	}
	var all []vm.NIC
	for _, n := range hardware.NICs {
		all = append(all, vm.NIC{Model: n.Model, MACAddress: n.MAC, NetworkType: vm.NetworkType(n.Connection)})
	}
	return all
}

// ReadSettings sets the guest's operating system, the processors and the memory of a machine's status to what its .vmx
// says.
func ReadSettings(st *vm.Status, m vm.Machine) error {
	f, err := readVMX(VMXPath(m))
	if err != nil {
		return &vm.Error{Code: vm.CodeOpen, Message: fmt.Sprintf("the machine's .vmx cannot be read: %v", err), Err: err}
	}
	st.GuestOS, _ = f.Get("guestOS")
	st.CPUs, st.Memory = number(f, "numvcpus", 1), number(f, "memsize", 256)
	return nil
}

// number returns the whole number that the file has for key, or VMware's default.
func number(f *vmx.File, key string, def int) int {
	value, _ := f.Get(key)
	if n, err := strconv.Atoi(strings.TrimSpace(value)); err == nil {
		return n
	}
	return def
}
