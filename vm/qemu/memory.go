package qemu

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dustin/go-humanize"
	"golang.org/x/sys/unix"

	"osx-builder/vm"
	"osx-builder/vm/qemu/network"
	"osx-builder/vm/qemu/template"
)

// templateRetry is how long a template that could not be made is not tried again.
const templateRetry = 10 * time.Minute

// templateStart is how a clone starts from memory.
type templateStart struct {
	Key     string        `json:"key"`
	Image   string        `json:"image"` // folder of the gold image
	Inner   network.Inner `json:"inner"`
	Agent   bool          `json:"agent"`  // the guest has an agent
	Loaded  bool          `json:"loaded"` // the guest has continued
	Machine vm.Machine    `json:"machine"`

	Preloaded bool      `json:"preloaded,omitempty"` // the guest is loaded and waits, or has waited
	SavedAt   time.Time `json:"saved_at,omitzero"`   // when the guest was saved
}

// memoryStarts starts machines from templates, and makes templates.
type memoryStarts struct {
	driver *Driver
	store  *template.Store
	log    *slog.Logger

	ctx   context.Context // ends with the driver
	stop  context.CancelFunc
	tasks sync.WaitGroup
	slot  chan struct{} // has a value while a template is made

	loading  atomic.Int64 // how many machines are being started from memory
	clocks   taskCounts   // tasks whose agent is to set the clock, and answers nobody else meanwhile
	awaiting taskCounts   // starts whose guest runs, and whose sign of life is awaited

	mu     sync.Mutex
	making map[string]int           // MiB of its guest, by key; guarded by mu
	failed map[string]failedMaking  // by key; guarded by mu
	follow map[string]chan struct{} // closed once nobody waits for a restart of the guest, by Machine.Dir; guarded by mu
}

// failedMaking is why a template could not be made, and when.
type failedMaking struct {
	err error
	at  time.Time
}

// bootReason is why a machine boots that was to start from memory.
type bootReason string

func (r bootReason) Error() string { return string(r) }

func because(format string, args ...any) error { return bootReason(fmt.Sprintf(format, args...)) }

func openMemoryStarts(d *Driver, o Options) (*memoryStarts, error) {
	s := &memoryStarts{
		driver: d, log: d.log, slot: make(chan struct{}, 1),
		making: map[string]int{}, failed: map[string]failedMaking{}, follow: map[string]chan struct{}{},
	}
	limit := o.TemplateMemory
	if limit == 0 {
		limit = int64(hostMemory()) << 20 / 8
	}
	var err error
	s.store, err = template.Open(template.Options{
		Dir: filepath.Join(o.Dir, "templates"), Gold: o.Gold, Memory: limit, Age: o.TemplateAge, Log: d.log,
	})
	if err != nil {
		return nil, fmt.Errorf("opening the templates: %w", err)
	}
	s.ctx, s.stop = context.WithCancel(context.Background())
	return s, nil
}

// close stops the tasks, and leaves the templates on the disk.
func (s *memoryStarts) close() error {
	s.stop()
	s.tasks.Wait()
	return s.store.Close()
}

// plan decides whether the clone starts from memory, and sets clone.Template. If
// not, it adds the reason to the clone's warnings, and begins to make a template
// for the next machine if one can be made. Only an ended context is an error.
func (s *memoryStarts) plan(ctx context.Context, m vm.Machine, clone *cloneConfig, gold string) error {
	key, inner, err := s.key(ctx, m, *clone, s.imageOf(gold))
	if err == nil {
		var t template.Template
		if t, err = s.find(key, m, *clone, s.imageOf(gold)); err == nil {
			clone.Template = &templateStart{Key: key, Image: t.Image, Inner: inner, Agent: t.Agent, Machine: m}
			return nil
		}
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	warnBooted(clone, err)
	return nil
}

// warnBooted adds the warning that the machine boots.
func warnBooted(clone *cloneConfig, err error) {
	clone.Warnings.Add(vm.WarningBooted, "the machine boots instead of starting from memory: %v", err)
}

// find returns the template of the key. If there is none, the error says why, and
// one is being made if that is possible.
func (s *memoryStarts) find(key string, m vm.Machine, clone cloneConfig, image string) (template.Template, error) {
	t, memory, err := s.store.Get(key)
	if err == nil {
		return t, memory.Close()
	}
	if !errors.Is(err, template.ErrNotFound) {
		s.log.Warn("a template cannot be used; making it again", "template", key, "err", err)
	}
	if !s.store.Fits(m.Memory) {
		return t, because("templates may take %s of the host's memory together, and this one needs %s; set -template-memory",
			humanize.IBytes(uint64(s.store.Limit())), humanize.IBytes(uint64(m.Memory)<<20))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if f, ok := s.failed[key]; ok && time.Since(f.at) < templateRetry {
		return t, because("no template could be made %v ago: %v", time.Since(f.at).Round(time.Second), f.err)
	}
	if s.making[key] == 0 && s.ctx.Err() == nil {
		s.making[key] = m.Memory
		clone.Disks = slices.Clone(clone.Disks)
		s.tasks.Go(func() { s.make(key, m, clone, image) })
	}
	return t, because("its template is being made; GET /templates lists those that are ready")
}

// taken returns how many MiB of the host's memory templates take, and their guests while they are made.
func (s *memoryStarts) taken() int {
	mib := s.store.Loaded()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, each := range s.making {
		mib += each
	}
	return mib
}

// imageOf returns the name of the image's folder among the gold images. The .vmx
// may be in a folder below it. It returns "" for an image that is elsewhere.
func (s *memoryStarts) imageOf(gold string) string {
	rel, err := filepath.Rel(s.driver.gold, gold)
	if s.driver.gold == "" || err != nil || !filepath.IsLocal(rel) {
		return ""
	}
	image, _, _ := strings.Cut(rel, string(filepath.Separator))
	return image
}

// check returns why the machine cannot start from memory, or nil.
func (s *memoryStarts) check(m vm.Machine, clone cloneConfig) error {
	switch {
	case !template.Supported:
		return because("only Linux can share the memory of machines")
	case m.Guest != nil:
		return because("the guest is to configure itself with ssh_authorized_keys, hostname or user_data, which it does when it boots")
	case m.Disk > 0:
		return because("disk asks for a size, and the saved guest knows its disk with the image's")
	case m.LaunchGUI:
		return because("launch_gui asks for a window, whose devices cannot be saved")
	case clone.Board == boardVirt:
		return because("QEMU's board for ARM is not supported")
	case clone.TPM:
		return because("the machine has a virtual TPM, whose keys must be its own")
	case len(clone.NICs) != 1:
		return because("the machine has %d network cards; only one can have the identity of each machine", len(clone.NICs))
	}
	for _, d := range clone.Disks {
		switch {
		case d.Bus == "nvme":
			return because("disk %s is on an NVMe controller, whose state QEMU cannot save; attach it to another controller in the image", d.Slot())
		case d.Base == "":
			return because("disk %s is not converted to qcow2, and QEMU cannot save a machine that reads VMDK files; the log says why", d.Slot())
		}
	}
	if backend := s.driver.networks.backends[m.Network]; backend == nil || backend.name() != (bridgeBackend{}).name() {
		return because("it needs a managed network of the host; GET /healthz?verbose=1 shows why there is none")
	}
	if m.Network == vm.Bridged {
		return because("on a bridged network the LAN assigns the addresses; use nat or hostonly")
	}
	return nil
}

// key returns the key of the machine's template and the inner identity. It
// depends on everything that must be the same: what QEMU itself checks when it
// loads a state, and what it does not check, such as the processor.
func (s *memoryStarts) key(ctx context.Context, m vm.Machine, clone cloneConfig, image string) (string, network.Inner, error) {
	if err := s.check(m, clone); err != nil {
		return "", network.Inner{}, err
	}
	if image == "" {
		return "", network.Inner{}, because("its image is not one of the image cache")
	}
	inner, err := s.driver.networks.manager.Inner(ctx, network.Kind(m.Network))
	if err != nil {
		return "", inner, because("%v", err)
	}
	qemu, setup, err := baseSetup(ctx, s.driver, m, clone)
	if err != nil {
		return "", inner, err
	}
	firmware := setup.firmware.code
	setup.ID, setup.user, setup.mac, setup.ram = "", 0, inner.MAC, ram{path: "ram"}
	setup.netdevs, setup.blockdevs = []string{"net"}, make([]string, len(clone.Disks))
	network, err := json.Marshal(inner)
	if err != nil {
		return "", inner, err
	}
	parts := keyParts{
		QEMU: qemu.version, Image: image, Network: string(m.Network), Inner: string(network),
		Processor: hostProcessor(), Kernel: kernel(), Arguments: arguments(setup),
	}
	files := []string{qemu.path, filepath.Join(s.driver.gold, image)}
	if firmware != "" {
		files = append(files, firmware)
	}
	for _, d := range clone.Disks {
		files = append(append(files, d.Base), d.Backing...)
	}
	for _, path := range files {
		stamp, err := fileStamp(path)
		if err != nil {
			return "", inner, err
		}
		parts.Files = append(parts.Files, stamp)
	}
	return parts.key(), inner, nil
}

// keyParts is what a template's key depends on.
type keyParts struct {
	QEMU      string // its version
	Image     string
	Network   string // its type
	Inner     string // identity
	Processor string // of the host
	Kernel    string // of the host
	Arguments []string
	Files     []string // programs, firmware and disks, each with what changes if it is replaced
}

func (p keyParts) key() string {
	lengths := fmt.Sprint(len(p.Arguments), len(p.Files)) // no argument can look like a file
	return template.Key(slices.Concat(
		[]string{p.QEMU, p.Image, p.Network, p.Inner, p.Processor, p.Kernel, lengths}, p.Arguments, p.Files)...)
}

// fileStamp changes if the file is replaced or changed.
func fileStamp(path string) (string, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return "", &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return fmt.Sprint(path, " ", st.Ino), nil
	}
	return fmt.Sprint(path, " ", st.Ino, " ", st.Size, " ", st.Mtim.Nano()), nil
}

// hostProcessor describes the host's processor, which guests see in part.
func hostProcessor() string {
	b, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return ""
	}
	var facts []string
	for line := range strings.Lines(string(b)) {
		name, value, _ := strings.Cut(line, ":")
		switch strings.TrimSpace(name) {
		case "vendor_id", "cpu family", "model", "stepping", "microcode", "flags":
			facts = append(facts, strings.TrimSpace(value))
		case "":
			return strings.Join(facts, ";") // the first processor is enough
		}
	}
	return strings.Join(facts, ";")
}

// kernel returns the release of the host's kernel.
func kernel() string {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return ""
	}
	return unix.ByteSliceToString(name.Release[:])
}
