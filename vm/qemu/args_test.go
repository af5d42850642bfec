package qemu

import (
	"slices"
	"strings"
	"testing"

	"osx-builder/vm"
	"osx-builder/vm/qemu/disk"
)

// What depends on the host and not on the image.
func TestArgumentsOfHost(t *testing.T) {
	for name, test := range map[string]struct {
		change  func(*setup)
		want    []string
		without []string
	}{
		"emulated":     {func(*setup) {}, []string{"-machine q35 -accel tcg -cpu max,la57=off", "-display none"}, []string{"-sandbox", "-runas", "usb-tablet", "ICH9-LPC"}},
		"accelerated":  {func(s *setup) { s.accel = "kvm" }, []string{"-machine q35 -accel kvm -", "-cpu max -"}, nil},
		"sandbox":      {func(s *setup) { s.sandbox = true }, []string{"-sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"}, nil},
		"root":         {func(s *setup) { s.sandbox, s.user = true, 7 }, []string{"elevateprivileges=deny,spawn=deny"}, []string{"-run"}},
		"root, window": {func(s *setup) { s.display, s.sandbox, s.user = "gtk", true, 7 }, []string{"-runas 7:7", "elevateprivileges=allow -"}, []string{"-run-with"}},
		"root, new":    {func(s *setup) { s.display, s.user, s.runWith = "gtk", 7, true }, []string{"-run-with user=7:7"}, []string{"-runas"}},
		"window":       {func(s *setup) { s.display = "gtk" }, []string{"-display gtk", "usb-tablet"}, nil},
		"window, safe": {func(s *setup) { s.display, s.sandbox = "gtk", true }, []string{"-sandbox on,obsolete=deny,elevateprivileges=deny -"}, []string{"spawn", "resourcecontrol"}},
		"efi": {
			func(s *setup) { s.firmware = firmware{code: "/dev/fdset/7", vars: "/dev/fdset/8"} },
			[]string{"pflash0=efi-code,pflash1=efi-vars", `"filename":"/dev/fdset/7"},"node-name":"efi-code","read-only":true`, `"filename":"/dev/fdset/8"},"node-name":"efi-vars","read-only":false`},
			nil,
		},
		"network": {func(s *setup) { s.netdevs[0] = "tap,fd=9" }, []string{"-netdev tap,id=net0,fd=9 -device vmxnet3,netdev=net0"}, nil},
		"files":   {func(s *setup) { s.sets, s.monitor, s.agent = []string{"-add-fd", "fd=6,set=0"}, 11, 12 }, []string{"-add-fd fd=6,set=0 -name", "id=qmp,fd=11,", "id=qga,fd=12,"}, nil},
		"two networks": {
			func(s *setup) {
				s.NICs = append(s.NICs, nic{Device: "e1000", Slot: 33})
				s.netdevs = append(s.netdevs, "user,net=10.0.3.0/24,restrict=on")
			},
			[]string{
				"-device pcie-root-port,id=port1,slot=33,chassis=2 -netdev user,id=net1,net=10.0.3.0/24,restrict=on -device e1000,netdev=net1,mac=52:",
				",bus=port1,romfile= ",
			},
			nil,
		},
		"slots that ACPI's hot-plug hides": {func(s *setup) { s.slots = true }, []string{"-global ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off"}, nil},
		"old board":                        {func(s *setup) { s.Board, s.slots = boardPC, true }, []string{"-machine pc -accel tcg"}, []string{"ICH9-LPC"}},
		"Secure Boot": {
			func(s *setup) { s.SecureBoot = true },
			[]string{"-machine q35,smm=on -accel", "-global driver=cfi.pflash01,property=secure,value=on", "-global ICH9-LPC.disable_s3=1"},
			nil,
		},
		"ARM, accelerated": {func(s *setup) { s.Board, s.accel = boardVirt, "hvf" }, []string{"-cpu host -"}, nil},
		"ARM, new":         {func(s *setup) { s.Board, s.lpa2 = boardVirt, true }, []string{"-cpu max,pauth-impdef=on,lpa2=off -"}, nil},
		"ARM": {
			func(s *setup) { s.Board = boardVirt },
			[]string{"-machine virt,gic-version=max -accel tcg", "-cpu max,pauth-impdef=on", "-serial chardev:serial0", "virtio-gpu-pci", "usb-kbd"},
			[]string{"isa-serial", "vmware-svga", "la57"},
		},
		"turns":                 {func(s *setup) { s.stale, s.CPUs = true, 2 }, []string{"-accel tcg,thread=single -"}, nil},
		"one processor":         {func(s *setup) { s.stale, s.CPUs = true, 1 }, []string{"-accel tcg -"}, nil},
		"accelerated, no turns": {func(s *setup) { s.stale, s.CPUs, s.accel = true, 2, "kvm" }, []string{"-accel kvm -"}, nil},
		"many processors":       {func(s *setup) { s.CPUs = 255 }, []string{"-smp cpus=255,sockets=1,cores=255,threads=1"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			s := setup{
				Machine: vm.Machine{ID: "4d8e9e0b-4ac8-4b34-8f6a-54a1a0f5a5ee", CPUs: 2, Memory: 512},
				cloneConfig: cloneConfig{hardware: hardware{
					Board: boardQ35, NICs: []nic{{Device: "vmxnet3", Slot: 160}}, Disks: []disk.Disk{{Bus: "ide"}},
				}},
				accel: "tcg", display: "none",
				handed: handed{blockdevs: []string{"{}"}, netdevs: []string{"user,net=10.0.2.0/24"}},
			}
			test.change(&s)
			got := strings.Join(arguments(s), " ") + " -"
			for _, part := range slices.Concat(test.want, []string{"-name guest=osxb-" + s.ID, "-uuid " + s.ID, "-nodefaults", "-m 512 "}) {
				if !strings.Contains(got, part) {
					t.Errorf("got %s, want %q in it", got, part)
				}
			}
			for _, part := range test.without {
				if strings.Contains(got, part) {
					t.Errorf("got %s, want no %q in it", got, part)
				}
			}
		})
	}
}

// QEMU's option for a NIC on the user network has each forwarded port.
func TestUserNetworkOption(t *testing.T) {
	for want, a := range map[string]attachment{
		"user,net=10.0.5.0/24,hostfwd=tcp:127.0.0.1:5-:22,hostfwd=tcp:127.0.0.1:6-:80": {Forwards: []vm.PortForward{{Host: 5, Guest: 22}, {Host: 6, Guest: 80}}},
		"user,net=10.0.5.0/24,restrict=on":                                             {Restrict: true},
	} {
		if got, err := a.open(3, nil); err != nil || got != want {
			t.Errorf("got %q, %v, want %q", got, err, want)
		}
	}
}
