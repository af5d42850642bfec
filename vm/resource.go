package vm

import (
	"cmp"
	"net/url"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
)

// Phase is how far the creation of a machine is.
type Phase string

// The phases, in the order of a machine's life.
const (
	Accepted    Phase = "accepted"
	Downloading Phase = "downloading"
	Unpacking   Phase = "unpacking"
	Cloning     Phase = "cloning"
	Starting    Phase = "starting"
	Waiting     Phase = "waiting"
	Ready       Phase = "ready"
	Failed      Phase = "failed"
	Destroying  Phase = "destroying"
)

// Phases lists every Phase in the order of a machine's life.
func Phases() []Phase {
	return []Phase{Accepted, Downloading, Unpacking, Cloning, Starting, Waiting, Ready, Failed, Destroying}
}

// Powers lists every Power except the empty one.
func Powers() []Power {
	return []Power{PoweredOn, PoweredOff, PoweringOn, PoweringOff, Suspended, Suspending, Resetting, Paused, Blocked}
}

// VM is a machine as the API shows it, in responses and in the callback. The
// fields down to GuestOS are the service's first ones and keep their order.
type VM struct {
	ID               string `json:"id"`
	Image            Image  `json:"image"`
	CPUs             int    `json:"cpus"`
	Memory           string `json:"memory"`
	ToolsInitTimeout int    `json:"tools_init_timeout"` // seconds, 0 if none was given
	LaunchGUI        bool   `json:"launch_gui"`
	IPAddress        string `json:"ip_address"`
	Status           Power  `json:"status"`
	GuestOS          string `json:"guest_os"`

	NetworkType  NetworkType   `json:"network_type"`
	Phase        Phase         `json:"phase"`
	Progress     *Progress     `json:"progress,omitempty"`
	Error        *Error        `json:"error,omitempty"`
	ToolsStatus  Tools         `json:"tools_status"`
	MACAddress   string        `json:"mac_address"`
	Hypervisor   string        `json:"hypervisor"`
	PortForwards []PortForward `json:"port_forwards,omitempty"`
	Addresses    []string      `json:"addresses,omitempty"`
	Callback     *Callback     `json:"callback,omitempty"`
	ExpiresAt    *time.Time    `json:"expires_at,omitempty"` // when the daemon destroys it by itself
	CreatedAt    time.Time     `json:"created_at,omitzero"`
	UpdatedAt    time.Time     `json:"updated_at,omitzero"`

	StoppedBecause string `json:"stopped_because,omitempty"` // why a machine that ran is off
	Name           string `json:"name,omitempty"`            // unique among the machines

	Disk     string   `json:"disk,omitempty"`     // the size of the first disk as asked, if it was
	Hostname string   `json:"hostname,omitempty"` // as asked
	Warnings Warnings `json:"warnings,omitempty"`
	NICs     []NIC    `json:"nics,omitempty"`

	Labels       Labels     `json:"labels,omitempty"`
	Start        StartMode  `json:"start,omitempty"` // how it was started, or is to be started, if it was to start from memory
	ReadyWhen    *ReadyWhen `json:"ready_when,omitempty"`
	ReadyTimeout int        `json:"ready_timeout,omitempty"` // seconds, 0 if none was given
	Owner        string     `json:"owner,omitempty"`         // the name of the token that created it
	Identity     Identity   `json:"identity,omitempty"`
}

// Progress is how many bytes of the current download or unpacking are done.
type Progress struct {
	Bytes int64  `json:"bytes"`
	Total *int64 `json:"total"` // nil if the server did not say
}

// Callback is the state of the machine's callback: of the latest one, if the end
// of its lifetime was sent after the end of its creation.
type Callback struct {
	URL         string        `json:"url"`
	State       CallbackState `json:"state"`
	Attempts    int           `json:"attempts"`
	LastError   string        `json:"last_error"`
	DeliveredAt *time.Time    `json:"delivered_at"`
}

// CallbackState is the state of a callback.
type CallbackState string

// The callback's states.
const (
	CallbackWaiting   CallbackState = "waiting"   // not due before the machine is ready or failed
	CallbackPending   CallbackState = "pending"   // due, and tried until it is delivered
	CallbackDelivered CallbackState = "delivered" // the receiver answered 2xx
	CallbackGivenUp   CallbackState = "given-up"  // the receiver answered 410, or 24 hours passed
)

// resource joins the record with the live state.
func (r *record) resource(hypervisor string, st Status) VM {
	v := VM{
		ID: r.ID, Image: r.Spec.Image, CPUs: r.Spec.CPUs, Memory: r.Spec.MemoryText,
		ToolsInitTimeout: r.Spec.ToolsSeconds, LaunchGUI: r.Spec.LaunchGUI,
		IPAddress: st.IP, Status: st.Power, GuestOS: st.GuestOS,
		NetworkType: r.Spec.Network, Phase: r.Phase, Error: r.Error,
		ToolsStatus: st.Tools, MACAddress: st.MAC, Hypervisor: hypervisor, PortForwards: st.Forwards, Addresses: st.Addresses,
		CreatedAt: r.CreatedAt, UpdatedAt: r.UpdatedAt, StoppedBecause: st.StoppedBecause, Name: r.Spec.Name, Disk: r.Spec.DiskText,
		Warnings: r.Warnings.join(st), NICs: st.NICs, Labels: r.Spec.Labels, ReadyWhen: r.Spec.ReadyWhen, ReadyTimeout: r.Spec.ReadySeconds, Owner: r.Owner,
		Identity: r.Spec.Identity,
	}
	if r.Spec.Guest != nil {
		v.Hostname = r.Spec.Guest.Hostname
	}
	switch {
	case r.Spec.Start == "": // it was not asked for memory
	case r.settled():
		v.Start = cmp.Or(st.Start, StartBoot)
	default:
		v.Start = cmp.Or(st.Start, r.Spec.Start)
	}
	if st.CPUs > 0 {
		v.CPUs = st.CPUs
	}
	if st.Memory > 0 {
		v.Memory = memoryText(st.Memory)
	}
	if v.ToolsStatus == "" {
		v.ToolsStatus = ToolsUnknown
	}
	if !r.Expiry.At.IsZero() {
		at := r.Expiry.At // a copy: the job changes the record
		v.ExpiresAt = &at
	}
	if n := len(r.Messages); n > 0 {
		msg := r.Messages[n-1]
		v.Callback = &Callback{URL: redacted(msg.URL), State: msg.State, Attempts: msg.Attempts, LastError: msg.LastError}
		if msg.State == CallbackDelivered {
			at := msg.DeliveredAt
			v.Callback.DeliveredAt = &at
		}
	}
	return v
}

// memoryText is humanize's IEC form in lower case and without a space: "1.0gib".
func memoryText(mib int) string {
	return strings.ToLower(strings.ReplaceAll(humanize.IBytes(uint64(mib)<<20), " ", ""))
}

// redacted hides the password in a URL.
func redacted(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return ""
	}
	return u.Redacted()
}
