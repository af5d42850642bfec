package vmx_test

import (
	"fmt"
	"strings"
	"testing"
)

// NICs are in the slots of the file, and otherwise where VMware puts them when it first starts the machine.
func TestSlotsOfNICs(t *testing.T) {
	nic := func(n int, model string, more ...string) string {
		text := fmt.Sprintf("ethernet%d.present = TRUE\nethernet%d.virtualDev = %s\n", n, n, model)
		for _, m := range more {
			text += fmt.Sprintf("ethernet%d.%s\n", n, m)
		}
		return text
	}
	ten := ""
	for n := range 10 {
		ten += nic(n, "vmxnet3")
	}
	const modern = "guestOS = debian12-64\nvirtualHW.version = 19\n"
	for name, test := range map[string]struct{ text, want string }{
		"in the file":                      {modern + nic(0, "vmxnet3", "pciSlotNumber = 33") + nic(1, "e1000", "pciSlotNumber = 192"), "[33 192]"},
		"e1000":                            {modern + nic(0, "e1000"), "[32]"},
		"e1000 after USB":                  {modern + "usb.present = TRUE\n" + nic(0, "e1000") + nic(1, "e1000"), "[33 34]"},
		"e1000 beside the sound's slot":    {modern + "usb.pciSlotNumber = 32\nsound.pciSlotNumber = 33\n" + nic(0, "e1000"), "[34]"},
		"vmxnet3 alone":                    {modern + "scsi0.present = TRUE\nscsi0.virtualDev = lsilogic\n" + nic(0, "vmxnet3"), "[160]"},
		"vmxnet3 after pvscsi":             {modern + "scsi0.present = TRUE\nscsi0.virtualDev = pvscsi\n" + nic(0, "vmxnet3") + nic(1, "vmxnet3"), "[192 224]"},
		"pvscsi with its slot":             {modern + "scsi0.present = TRUE\nscsi0.virtualDev = pvscsi\nscsi0.pciSlotNumber = 224\n" + nic(0, "e1000e"), "[160]"},
		"two functions of a root port":     {modern + ten, "[160 192 224 256 161 193 225 257 162 194]"},
		"a function in the file":           {modern + nic(0, "vmxnet3", "pciSlotNumber = 1184"), "[161]"},
		"not assigned":                     {modern + nic(0, "vmxnet3", "pciSlotNumber = -1"), "[160]"},
		"twice the same":                   {modern + nic(0, "e1000", "pciSlotNumber = 32") + nic(1, "e1000", "pciSlotNumber = 32"), "[32 33]"},
		"impossible":                       {modern + nic(0, "e1000", "pciSlotNumber = 99999") + nic(1, "vmxnet3", "pciSlotNumber = x"), "[32 160]"},
		"before PCI Express":               {"virtualHW.version = 4\n" + nic(0, "vmxnet3") + nic(1, "vlance"), "[32 33]"},
		"no NIC, a guest with vmxnet3":     {modern, "[160]"},
		"no NIC, a guest without vmxnet3":  {"guestOS = windows9-64\n", "[32]"},
		"no NIC, and a NIC switched off":   {modern + "ethernet0.present = FALSE\n", "[160]"},
		"no NIC, USB, no PCI Express":      {"guestOS = winXPPro\nusb.present = TRUE\n", "[33]"},
		"the slot of another device":       {modern + "scsi0.pciSlotNumber = 160\n" + nic(0, "vmxnet3"), "[192]"},
		"other functions of the same slot": {modern + nic(0, "vmxnet3", "pciSlotNumber = 1184") + nic(1, "vmxnet3", "pciSlotNumber = 161"), "[161 160]"},
	} {
		t.Run(name, func(t *testing.T) {
			h, err := parse(t, test.text).Hardware()
			if err != nil {
				t.Fatal(err)
			}
			var got []int
			for _, n := range h.NICs {
				got = append(got, n.Slot)
			}
			if fmt.Sprint(got) != test.want {
				t.Errorf("got slots %v, want %s", got, test.want)
			}
		})
	}
}

func TestGuests(t *testing.T) {
	for name, want := range map[string]string{
		"windows11-64": "windows", "windows2022srvNext-64": "windows", "longhorn-64": "windows", "winXPPro": "windows old", "winNetEnterprise-64": "windows old",
		"whistler": "windows old", "arm-windows11-64": "windows arm", "arm-ubuntu-64": "arm", "darwin20-64": "macos", "debian12-64": "", "dos": "old",
		"other": "", "": "", "Darwin": "macos", "ARM-Debian12-64": "arm", "solaris11-64": "",
	} {
		h, err := parse(t, "guestOS = \""+name+"\"\n").Hardware()
		if err != nil {
			t.Fatal(err)
		}
		var is []string
		if h.IsWindows() {
			is = append(is, "windows")
		}
		if h.IsMacOS() {
			is = append(is, "macos")
		}
		if h.IsARM() {
			is = append(is, "arm")
		}
		if !h.HasPCIExpress() {
			is = append(is, "old")
		}
		if got := strings.Join(is, " "); got != want {
			t.Errorf("%q: got %q, want %q", name, got, want)
		}
	}
	for name, want := range map[string]string{
		"ubuntu-64": "vmxnet3", "debian10-64": "vmxnet3", "debian5-64": "e1000", "rhel7-64": "vmxnet3", "rhel5-64": "e1000", "centos7-64": "vmxnet3",
		"other5xlinux-64": "vmxnet3", "other24xlinux": "e1000", "windows9-64": "e1000", "windows2019srv-64": "e1000", "freebsd13-64": "vmxnet3", "freebsd-64": "e1000",
		"arm-debian12-64": "vmxnet3", "arm-windows11-64": "e1000e", "other-64": "e1000", "vmware-photon-64": "vmxnet3", "sles15-64": "vmxnet3", "": "e1000",
	} {
		h, err := parse(t, "guestOS = \""+name+"\"\n").Hardware()
		if err != nil || len(h.NICs) != 1 || h.NICs[0].Model != want || !h.NICs[0].Added {
			t.Errorf("%q: got NICs %+v, %v, want one of model %s that was added", name, h.NICs, err, want)
		}
	}
}
