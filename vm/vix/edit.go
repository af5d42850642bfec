//go:build vix && cgo && !windows

package vix

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"osx-builder/vm"
	"osx-builder/vm/vmx"
)

// globQuote makes a path match itself in filepath.Glob.
func globQuote(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}

func readVMX(path string) (*vmx.File, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return vmx.Parse(data)
}

// prepareBase makes the .vmx of a base: the image's without what leads to the
// host, without lines that VMware cannot read, and powered off.
func (d *Driver) prepareBase(b base) error {
	f, err := readVMX(b.gold)
	if err != nil {
		return missingImage(err)
	}
	for _, line := range f.Plain() {
		d.Log.Warn("left out of the image's .vmx", "image", b.gold, "setting", line)
	}
	for _, line := range f.Disarm() {
		d.Log.Info("switched off in the clones", "image", b.gold, "device", line)
	}
	// A suspended machine cannot be cloned.
	f.DeleteFunc(func(key string) bool { return strings.HasPrefix(key, "checkpoint.vmstate") })
	if err := set(f, answers); err != nil {
		return err
	}
	return vm.WriteFile(b.vmx(), f.Bytes())
}

// setting is a key of a .vmx file and its value.
type setting struct{ key, value string }

// answers are what VMware would ask in a dialog, which nobody may see: yes to
// what has a default, and that the machine was copied.
var answers = []setting{{"msg.autoAnswer", "TRUE"}, {"uuid.action", "create"}}

func set(f *vmx.File, settings []setting) error {
	for _, s := range settings {
		if err := f.Set(s.key, s.value); err != nil {
			return err
		}
	}
	return nil
}

// customize makes of a clone's .vmx that of the machine that was asked for.
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
	}, answers...)
	// VMware refuses a machine whose processors do not fill its sockets.
	f.Delete("cpuid.coresPerSocket")
	network, err := networkSettings(f, m.Network)
	if err != nil {
		return err
	}
	if err := set(f, append(settings, network...)); err != nil {
		return err
	}
	return vm.WriteFile(path, f.Bytes())
}

// networkSettings attaches every card to the network that was asked for, since
// that of the image's maker is not this host's, and drops the cards' addresses,
// so that VMware makes new ones. A machine without a card gets one.
func networkSettings(f *vmx.File, t vm.NetworkType) ([]setting, error) {
	hardware, err := f.Hardware()
	if err != nil {
		return nil, err
	}
	if len(hardware.NICs) == 0 {
		hardware.NICs = []vmx.NIC{{Model: "e1000"}}
	}
	var settings []setting
	for _, nic := range hardware.NICs {
		card := "ethernet" + strconv.Itoa(nic.Index)
		for _, key := range []string{"address", "generatedAddress", "generatedAddressOffset", "vnet", "networkName", "checkMACAddress"} {
			f.Delete(card + "." + key)
		}
		settings = append(
			settings,
			setting{card + ".present", "TRUE"},
			setting{card + ".startConnected", "TRUE"},
			setting{card + ".virtualDev", nic.Model},
			setting{card + ".connectionType", string(t)},
			setting{card + ".addressType", "generated"},
		)
	}
	return settings, nil
}
