package cloudinit

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"strings"

	"osx-builder/vm"
)

// metadata returns what identifies the machine, as JSON, which is also YAML. keysField and keys are the SSH keys.
func metadata(m vm.Machine, keysField string, keys any) []byte {
	fields := map[string]any{"instance-id": m.ID}
	if name := m.Hostname(); name != "" {
		fields["local-hostname"] = name
	}
	if len(m.Guest.SSHAuthorizedKeys) > 0 {
		fields[keysField] = keys
	}
	text, err := json.Marshal(fields)
	if err != nil {
		panic(err) // it has only strings
	}
	return append(text, '\n')
}

// GuestInfoKeys are all settings that [GuestInfo] may return, and others that cloud-init reads beside them: those of an
// image belong to another machine.
var GuestInfoKeys = []string{
	"guestinfo.metadata", "guestinfo.metadata.encoding", "guestinfo.userdata", "guestinfo.userdata.encoding",
	"guestinfo.vendordata", "guestinfo.vendordata.encoding",
}

// Setting is a setting of a VMware machine.
type Setting struct{ Key, Value string }

// maxPlain is the length of a setting from which it is compressed: a message from VMware to its guest has at most 64 KiB.
const maxPlain = 60_000

// GuestInfo returns the settings of a VMware machine with the configuration of its guest. There are none without
// [vm.Machine.Guest].
func GuestInfo(m vm.Machine) (settings []Setting) {
	if m.Guest == nil {
		return nil
	}
	add := func(key string, value []byte) {
		text, encoding := base64.StdEncoding.EncodeToString(value), "base64"
		if len(text) > maxPlain {
			text, encoding = base64.StdEncoding.EncodeToString(compressed(value)), "gzip+base64"
		}
		settings = append(settings, Setting{key, text}, Setting{key + ".encoding", encoding})
	}
	add("guestinfo.metadata", metadata(m, "public-keys-data", strings.Join(m.Guest.SSHAuthorizedKeys, "\n")+"\n"))
	if m.Guest.UserData != "" {
		add("guestinfo.userdata", []byte(m.Guest.UserData))
	}
	return settings
}

func compressed(text []byte) []byte {
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err != nil {
		panic(err) // the level exists
	}
	_, _ = z.Write(text) // to memory
	_ = z.Close()
	return b.Bytes()
}

// Credential is a credential of systemd as a string of the SMBIOS table of type 11.
type Credential struct {
	Text   string
	Secret bool // nobody but the guest may see it
}

// Credentials returns the credentials of a machine for systemd 252 and later: the keys of root, and from systemd 254 on
// the host name. There are none without [vm.Machine.Guest].
//
// The text with the keys ends in the beginning of a comment: a QEMU before 10.0 that reads it from a file lets arbitrary
// bytes follow it.
func Credentials(m vm.Machine) (all []Credential) {
	if m.Guest == nil {
		return nil
	}
	if name := m.Hostname(); name != "" {
		all = append(all, Credential{Text: "io.systemd.credential:system.hostname=" + name})
	}
	if keys := m.Guest.SSHAuthorizedKeys; len(keys) > 0 {
		all = append(all, Credential{Text: "io.systemd.credential:ssh.authorized_keys.root=" + strings.Join(keys, "\n") + "\n#", Secret: true})
	}
	return all
}
