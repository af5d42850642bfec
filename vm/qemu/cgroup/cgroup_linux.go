package cgroup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const (
	// subgroup is the name of the daemon's own group.
	subgroup = "daemon"

	// prefix begins the names of machines' groups.
	prefix = "vm-"

	// removeTimeout bounds how long the processes of a group may take to end after SIGKILL.
	removeTimeout = 10 * time.Second

	pollInterval = 5 * time.Millisecond
)

// controllers are those that are used, if the host delegates them.
var controllers = []string{"memory", "pids", "cpu", "io"}

// Groups are the control groups of machines. Without a delegated group its methods do nothing. They may be called
// concurrently for different machines.
type Groups struct {
	dir         string   // absolute path of the delegated group; "": there is none
	why         string   // why there is none
	controllers []string // that limit the groups
}

// Limits bound all processes of a group together. A limit whose controller the host does not delegate has no effect.
type Limits struct {
	Memory    int64 // bytes, with the kernel's and cached files
	Processes int   // processes and threads
	Weight    int   // share of the processor time and of the disk's, from 1 to 10,000, when both are scarce; other groups have 100
}

// Open finds the delegated group. It removes the groups that earlier daemons have left empty.
func Open() *Groups {
	own, err := ownGroup()
	if err == nil && filepath.Base(own) != subgroup {
		err = errors.New("the service manager has not delegated any (Delegate=yes and DelegateSubgroup=daemon, systemd 254 or later)")
	}
	if err != nil {
		return &Groups{why: err.Error()}
	}
	g := &Groups{dir: filepath.Dir(own)}
	if err := g.probe(); err != nil {
		return &Groups{why: fmt.Sprintf("the group %s cannot be used: %v", g.dir, err)}
	}
	available, _ := os.ReadFile(filepath.Join(g.dir, "cgroup.controllers")) // none, if it cannot be read
	for _, c := range controllers {
		if slices.Contains(strings.Fields(string(available)), c) && write(g.dir, "cgroup.subtree_control", "+"+c) == nil {
			g.controllers = append(g.controllers, c)
		}
	}
	left, _ := filepath.Glob(filepath.Join(escape(g.dir), prefix+"*")) // the pattern is well formed
	for _, dir := range left {
		_ = os.Remove(dir) // fails while a machine runs
	}
	return g
}

// escape returns a path as a pattern that matches only it.
func escape(path string) string {
	return strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`).Replace(path)
}

// probe moves a program into a group.
func (g *Groups) probe() error {
	members, err := g.create("probe")
	if err != nil {
		return err
	}
	defer members.Close()
	cmd := exec.Command("/bin/sh", "-s") // ends when its standard input does
	end, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err == nil {
		_, err = fmt.Fprint(members, cmd.Process.Pid)
		err = errors.Join(err, end.Close(), cmd.Wait())
	}
	return errors.Join(err, os.Remove(filepath.Dir(members.Name())))
}

// Describe returns a name for what the groups do, and why there are none, or "".
func (g *Groups) Describe() (name, why string) {
	name = "control group of its own"
	if len(g.controllers) > 0 {
		name += " (" + strings.Join(g.controllers, ", ") + ")"
	}
	return name, g.why
}

// Create creates the machine's group, or sets the limits of the one that is there. A process moves into it when its
// number is written to members, which the caller closes. It is nil if there are no groups.
func (g *Groups) Create(id string, l Limits) (members *os.File, err error) {
	if g.dir == "" {
		return nil, nil
	}
	members, err = g.create(prefix + id)
	if err != nil {
		return nil, fmt.Errorf("creating the machine's control group: %w", err)
	}
	if err := g.limit(filepath.Dir(members.Name()), l); err != nil {
		members.Close()
		return nil, fmt.Errorf("limiting the machine's control group: %w", err)
	}
	return members, nil
}

func (g *Groups) create(name string) (members *os.File, err error) {
	dir := filepath.Join(g.dir, name)
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	return os.OpenFile(filepath.Join(dir, "cgroup.procs"), os.O_WRONLY, 0)
}

func (g *Groups) limit(dir string, l Limits) error {
	for file, value := range map[string]string{
		"memory.max": fmt.Sprint(l.Memory), "pids.max": fmt.Sprint(l.Processes),
		"cpu.weight": fmt.Sprint(l.Weight), "io.weight": fmt.Sprintf("default %d", l.Weight),
	} {
		controller, _, _ := strings.Cut(file, ".")
		if !slices.Contains(g.controllers, controller) {
			continue
		}
		// io.weight is there only if the disks' scheduler knows weights.
		if err := write(dir, file, value); err != nil && !(controller == "io" && errors.Is(err, fs.ErrNotExist)) {
			return err
		}
	}
	return nil
}

// Remove kills all processes in the machine's group, and removes the group. It is a no-op if there is none.
func (g *Groups) Remove(ctx context.Context, id string) error {
	if g.dir == "" {
		return nil
	}
	dir := filepath.Join(g.dir, prefix+id)
	ctx, cancel := context.WithTimeout(ctx, removeTimeout)
	defer cancel()
	for {
		err := os.Remove(dir)
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		_ = write(dir, "cgroup.kill", "1") // Linux before 5.14 does not have it; what the machine's user runs is killed anyway
		select {
		case <-ctx.Done():
			return fmt.Errorf("removing the machine's control group: %w", err)
		case <-time.After(pollInterval):
		}
	}
}

// write writes to a file of a group.
func write(dir, file, value string) error {
	f, err := os.OpenFile(filepath.Join(dir, file), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}

// ownGroup returns the absolute path of the group that the daemon runs in.
func ownGroup() (string, error) {
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(text)) {
		if path, is := strings.CutPrefix(strings.TrimSpace(line), "0::"); is {
			return onMount(path)
		}
	}
	return "", errors.New("the host has no cgroup v2")
}

// onMount returns where a group, which is named from the root of the hierarchy, is in the file system.
func onMount(group string) (string, error) {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(text)) {
		// ID, parent, device, root, mount point, options, any number of tags, "-", type; see proc(5).
		fields := strings.Fields(line)
		end := slices.Index(fields, "-")
		if end < 6 || len(fields) <= end+1 || fields[end+1] != "cgroup2" || strings.HasPrefix(fields[5], "ro") {
			continue
		}
		if below, err := filepath.Rel(fields[3], group); err == nil && filepath.IsLocal(below) {
			return filepath.Join(fields[4], below), nil
		}
	}
	return "", errors.New("no cgroup v2 is mounted for writing that has the daemon's group")
}
