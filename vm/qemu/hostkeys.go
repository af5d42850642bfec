package qemu

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/pem"
	"fmt"
	"strings"

	"golang.org/x/crypto/ssh"
)

// hostKeyBits is the length of RSA keys, as ssh-keygen makes them.
const hostKeyBits = 3072

// hostKeyKinds lists the types of SSH host keys, as the names of their files have them.
func hostKeyKinds() []string { return []string{"rsa", "ecdsa", "ed25519"} }

// newHostKey makes a host key of a type of [hostKeyKinds]. private is the content of its file, public that of the
// public key's file, both without the last line end.
func newHostKey(kind string) (private, public string, err error) {
	var key crypto.Signer
	switch kind {
	case "rsa":
		key, err = rsa.GenerateKey(rand.Reader, hostKeyBits)
	case "ecdsa":
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "ed25519":
		_, key, err = ed25519.GenerateKey(rand.Reader)
	default:
		err = fmt.Errorf("%q is not one of %s", kind, strings.Join(hostKeyKinds(), ", "))
	}
	if err != nil {
		return "", "", err
	}
	block, err := ssh.MarshalPrivateKey(key, "")
	if err != nil {
		return "", "", err
	}
	other, err := ssh.NewPublicKey(key.Public())
	if err != nil {
		return "", "", err
	}
	trim := func(b []byte) string { return strings.TrimSpace(string(b)) }
	return trim(pem.EncodeToMemory(block)), trim(ssh.MarshalAuthorizedKey(other)), nil
}
