package ovf

import (
	"regexp"
	"strings"
)

// configKeys are the elements vmw:Config that matter, with the key of the .vmx.
var configKeys = map[string]string{
	"firmware": "firmware", "bootOptions.efiSecureBootEnabled": "uefi.secureBoot.enabled", "cpuHotAddEnabled": "vcpu.hotadd",
	"memoryHotAddEnabled": "mem.hotadd", "nestedHVEnabled": "vhv.enable",
}

// extraKeys are the keys of vmw:ExtraConfig that are taken over: what the guest sees. What VMware does on the host is not
// for a package to say.
var extraKeys = regexp.MustCompile(`(?i)^(guestinfo\.[a-z0-9_.-]+|(ethernet|scsi|sata|nvme|vmci|usb|ehci|usb_xhci|sound|svga)[0-9]*\.pcislotnumber` +
	`|disk\.enableuuid|hpet0\.present|vmci0\.present|smc\.present|svga\.(present|vramsize|autodetect)|usb(_xhci)?\.present|ehci\.present` +
	`|cpuid\.corespersocket|vhv\.enable|rtc\.difffromutc|keyboard\.[a-z]+|bios\.(hddorder|bootorder)|time\.synchronize\.[a-z.]+)$`)

// settings takes over VMware's extensions.
func (g *generator) settings() {
	for _, c := range g.hardware.Config {
		if key, ok := configKeys[c.Key]; ok {
			value := c.Value
			if key != "firmware" {
				value = strings.ToUpper(value)
			}
			g.set(key, value)
		} else if c.Required != nil && *c.Required {
			g.remark("the setting %q = %q, which the package requires, is left out", c.Key, c.Value)
		}
	}
	for _, c := range g.hardware.ExtraConfig {
		if _, known := g.file.Get(c.Key); extraKeys.MatchString(c.Key) && !known {
			g.set(c.Key, c.Value)
		}
	}
}

// properties lists what the package asks its user for. Nobody answers here.
func (g *generator) properties() {
	for _, product := range g.system.Product {
		for _, property := range product.Property {
			if property.UserConfigurable == nil || !*property.UserConfigurable {
				continue
			}
			text := "OVF property " + product.Key(property)
			if label := text1(property.Label); label != "" {
				text += " (" + label + ")"
			}
			if value := text1(property.Default); value != "" && (property.Password == nil || !*property.Password) {
				text += " has the default " + value
			} else {
				text += " has no value"
			}
			g.remark("%s; the guest must work without it, or be configured after it has started", text)
		}
	}
}
