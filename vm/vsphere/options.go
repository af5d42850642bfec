package vsphere

import (
	"cmp"
	"log/slog"
	"time"
)

// Settings say which vCenter or ESXi to use and where on it. The settings of the daemon have the same fields.
type Settings struct {
	URL          string                 // such as https://vcenter.example.com/sdk, without user information
	Username     string                 // of the service account
	ReadPassword func() (string, error) // is called for each login, so that a replaced password is used
	Datacenter   string                 // name or inventory path; "" means the only one
	Cluster      string                 // name or inventory path; at most one of Cluster and Pool is set
	Pool         string                 // name or inventory path of a resource pool
	Folder       string                 // name or inventory path; "" means the datacenter's folder of machines
	Datastore    string                 // name or inventory path; "" means the only one
	Networks     map[string]string      // port groups by network type
	CAFile       string                 // PEM file with the certificates to trust, or "" for the system's
	Thumbprint   string                 // SHA-256 or SHA-1 of the certificate to trust, in upper-case pairs with colons, or ""
	Insecure     bool                   // trust any certificate
}

// Options are the settings of a [Driver].
type Options struct {
	Settings

	Dir      string       // the data folder; it keeps the owner's id, and disks while they are converted
	Machines string       // the folder of the machines' folders
	Gold     string       // the folder of the unpacked images, each in a folder named after its checksum
	Log      *slog.Logger // nil means none

	// Heartbeat is how often an import shows that it goes on; 0 means 10 s. An import of another daemon counts as
	// dead after four times that.
	Heartbeat time.Duration

	// CallTimeout bounds a call; 0 means 1 minute. Tasks and uploads are not bounded by it.
	CallTimeout time.Duration
}

func (o Options) withDefaults() Options {
	o.Heartbeat = cmp.Or(o.Heartbeat, 10*time.Second)
	o.CallTimeout = cmp.Or(o.CallTimeout, time.Minute)
	o.Log = cmp.Or(o.Log, slog.New(slog.DiscardHandler))
	return o
}
