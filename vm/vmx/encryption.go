package vmx

import "strings"

// isPartlyEncrypted reports whether VMware encrypted only what the virtual TPM needs: its state, the firmware's settings
// and saved memory. Hard disks and the keys of the hardware are in clear text.
func (f *File) isPartlyEncrypted() bool { return f.lowerValue("vmx.encryptionType") == "partial" }

// RemoveTPM removes the virtual TPM, and the partial encryption that VMware adds with one, together with the firmware's
// settings, which are encrypted too. Without them VMware starts the machine without a password. It reports whether there
// was a TPM.
func (f *File) RemoveTPM() bool {
	had := f.Bool("vtpm.present")
	partly := f.isPartlyEncrypted()
	f.DeleteFunc(func(key string) bool {
		switch {
		case strings.HasPrefix(key, "vtpm."):
			return true
		case partly:
			return key == "nvram" || key == "vmx.encryptiontype" || strings.HasPrefix(key, "encryption.")
		}
		return false
	})
	return had
}
