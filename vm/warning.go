package vm

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
)

// WarningCode names a kind of warning. Codes are part of the HTTP API, like those of errors: they are never renamed or
// used again for something else.
type WarningCode string

// The codes of warnings.
const (
	WarningDeviceLeftOut   WarningCode = "device-left-out"  // a device of the image that the machine does not have
	WarningDeviceReplaced  WarningCode = "device-replaced"  // a device that is of another model than in the image
	WarningNetworkReplaced WarningCode = "network-replaced" // a NIC that is on another network than in the image
	WarningTPMLeftOut      WarningCode = "tpm-left-out"     // the image has a virtual TPM, the machine has none
	WarningTPMReplaced     WarningCode = "tpm-replaced"     // the image has a virtual TPM, the machine has a new one
	WarningSecureBootOff   WarningCode = "secure-boot-off"  // the image wants Secure Boot, the machine starts without it
	WarningSlowDisk        WarningCode = "disk-slow"        // a disk that is slow to read in its format
	WarningOVFLeftOut      WarningCode = "ovf-left-out"     // something of an OVF package that the machine does not have, or a property that nobody set
	WarningGuestSilent     WarningCode = "guest-silent"     // the guest gave no sign of life in time
	WarningCPUs            WarningCode = "cpus-exceed-host" // the machine has more virtual processors than the host has processors
	WarningNoAddress       WarningCode = "no-address"       // the guest is up, but had no address in time
	WarningDiskGrown       WarningCode = "disk-grown"       // the first disk is larger than the image's, and the guest must use that
	WarningBooted          WarningCode = "booted"           // the machine was to start from memory, and booted
)

// WarningCodes lists every WarningCode, for the tests that require an explanation for each.
func WarningCodes() []WarningCode {
	return []WarningCode{
		WarningDeviceLeftOut, WarningDeviceReplaced, WarningNetworkReplaced, WarningTPMLeftOut, WarningTPMReplaced,
		WarningSecureBootOff, WarningSlowDisk, WarningCPUs, WarningOVFLeftOut, WarningGuestSilent, WarningNoAddress, WarningBooted,
		WarningDiskGrown,
	}
}

// Warning says how a machine differs from what its image or its client may expect. It does not prevent the machine from
// running.
type Warning struct {
	Code    WarningCode `json:"code"`
	Message string      `json:"message"` // one line for people, which names the device or setting
}

// The bounds of warnings. An image decides how many there are and what they quote.
const (
	maxWarnings       = 100
	maxWarningMessage = 1000 // bytes
)

// Warnings is a list of warnings without duplicates.
type Warnings []Warning

// Add appends a warning. It ignores one that the list has, and those beyond the 100th.
func (w *Warnings) Add(code WarningCode, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	added := Warning{Code: code, Message: strings.ToValidUTF8(text[:min(len(text), maxWarningMessage)], "")}
	if len(*w) < maxWarnings && !slices.Contains(*w, added) {
		*w = append(*w, added)
	}
}

// join returns w and the warnings of the live state, without those about the guest that are no longer true.
func (w Warnings) join(st Status) Warnings {
	all := slices.Clone(w)
	for _, one := range st.Warnings {
		if !slices.Contains(all, one) {
			all = append(all, one)
		}
	}
	return slices.DeleteFunc(all, func(one Warning) bool {
		return one.Code == WarningGuestSilent && st.Up || one.Code == WarningNoAddress && st.IP != ""
	})
}

// maxImagesLogged bounds the memory of imageWarnings. It is more than the images of most hosts.
const maxImagesLogged = 1000

// imageWarnings logs the warnings about images: once for each image, not for each of its machines.
type imageWarnings struct {
	log *slog.Logger

	mu     sync.Mutex
	logged map[string]Warnings // by the image's checksum; guarded by mu
}

// record logs the warnings about an image that were not logged before. It leaves out those about one machine.
func (i *imageWarnings) record(checksum, machine string, warnings Warnings) {
	warnings = slices.DeleteFunc(slices.Clone(warnings), func(w Warning) bool {
		return slices.Contains([]WarningCode{WarningBooted, WarningCPUs, WarningGuestSilent, WarningNoAddress}, w.Code)
	})
	for _, w := range i.add(checksum, warnings) {
		i.log.Warn("the image's machines differ from the image", "image", checksum, "vm", machine, "code", w.Code, "what", w.Message)
	}
}

// add returns the warnings that are new.
func (i *imageWarnings) add(checksum string, warnings Warnings) (fresh Warnings) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if len(i.logged) >= maxImagesLogged || i.logged == nil {
		i.logged = make(map[string]Warnings)
	}
	known := i.logged[checksum]
	for _, w := range warnings {
		if !slices.Contains(known, w) && len(known) < maxWarnings {
			known, fresh = append(known, w), append(fresh, w)
		}
	}
	i.logged[checksum] = known
	return fresh
}
