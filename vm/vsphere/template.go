package vsphere

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/types"

	"osx-builder/vm"
)

// snapshotName is the name of a template's snapshot, which clones are linked to.
const snapshotName = "osx-builder"

// importTries is how often an import begins before its error is the client's: a session that the server ended, or a
// daemon that died, can take one with it.
const importTries = 3

// imports imports images as templates.
type imports struct {
	d *Driver

	mu    sync.Mutex
	locks map[string]chan struct{} // by template; has a value while one import runs; guarded by mu
}

func newImports(d *Driver) *imports { return &imports{d: d, locks: make(map[string]chan struct{})} }

// lock waits until no other import of the template runs in this process.
func (i *imports) lock(ctx context.Context, name string) (unlock func(), err error) {
	i.mu.Lock()
	l := i.locks[name]
	if l == nil {
		l = make(chan struct{}, 1)
		i.locks[name] = l
	}
	i.mu.Unlock()
	select {
	case l <- struct{}{}:
		return func() { <-l }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// imageName returns the name of the unpacked image that a .vmx file belongs to, such as "sha256-0123".
func (d *Driver) imageName(gold string) (string, error) {
	path, err := filepath.Rel(d.opts.Gold, gold)
	name, _, inFolder := strings.Cut(filepath.ToSlash(path), "/")
	if err != nil || !inFolder || name == ".." {
		return "", fmt.Errorf("%s is not below the folder of the unpacked images, %s", gold, d.opts.Gold)
	}
	return name, nil
}

// templateName returns the name of an image's template. vSphere allows 80 characters, fewer than a checksum may have.
// Each datastore has templates of its own, because a clone must be where its template's disks are.
func templateName(image, datastore string) string {
	sum := sha256.Sum256([]byte(image + "\x00" + datastore))
	_, hex, _ := strings.Cut(image, "-")
	return fmt.Sprintf("osxb-image-%.12s-%x", hex, sum[:10])
}

// templateProperties are those that Clone needs of a template.
var templateProperties = []string{"config.template", "config.hardware", "config.guestId", "config.firmware", "config.bootOptions", "snapshot", "recentTask", "parent"}

// ensure returns the template of an image. If there is none, or if its import died, ensure imports it. It waits for the
// import of another daemon.
func (i *imports) ensure(ctx context.Context, s *site, m vm.Machine, gold string) (*found, error) {
	image, err := i.d.imageName(gold)
	if err != nil {
		return nil, err
	}
	name := templateName(image, s.datastoreName)
	unlock, err := i.lock(ctx, name)
	if err != nil {
		return nil, err
	}
	defer unlock()
	for tries, others := 1, 0; ; {
		t, err := s.findByName(ctx, name, templateProperties...)
		switch {
		case err != nil:
			return nil, err
		case t == nil:
			err := i.create(ctx, s, m, name, image, gold)
			if err == nil {
				continue // it is there now
			}
			if (isFault[*types.DuplicateName](err) || isFault[*types.FileAlreadyExists](err)) && others < importTries*10 {
				others++ // another daemon's is there, or about to be
				sleep(ctx, i.d.opts.Heartbeat/4)
				continue
			}
			if tries++; tries > importTries || ctx.Err() != nil || !isNotFound(err) {
				return nil, err
			}
			i.d.opts.Log.Warn("the import was lost; importing again", "image", image, "err", err)
		case len(t.marks) == 0 && others < importTries*10:
			others++ // it may be under way, and has its marks then
			sleep(ctx, i.d.opts.Heartbeat/4)
		case t.marks[markImage] != image:
			return nil, &vm.Error{Code: vm.CodeHypervisor, Message: fmt.Sprintf("the machine %q on vSphere is not a template of this program; rename or remove it", name)}
		case t.whole():
			return t, i.markAsTemplate(ctx, s, t.at, t.Config.Template)
		default:
			if err := i.replaceDead(ctx, s, t); err != nil {
				return nil, err
			}
		}
	}
}

// replaceDead waits until an unfinished template is whole, gone or dead, and removes it if it is dead.
func (i *imports) replaceDead(ctx context.Context, s *site, t *found) error {
	at, beat, since := t.at, t.marks[markHeartbeat], time.Now()
	for {
		running, err := s.running(ctx, t.RecentTask)
		if err != nil {
			return err
		}
		if t.marks[markOwner] == i.d.owner {
			break // this process does not import it, and no other has this data folder
		}
		if now := t.marks[markHeartbeat]; now != beat || len(running) > 0 {
			beat, since = now, time.Now()
		}
		if time.Since(since) > 4*i.d.opts.Heartbeat {
			break
		}
		if !sleep(ctx, i.d.opts.Heartbeat/4) {
			return context.Cause(ctx)
		}
		if t, err = s.read(ctx, at, templateProperties); err != nil || t == nil || t.whole() {
			return err
		}
	}
	i.d.opts.Log.Info("removing a template whose import died", "name", t.Name, "owner", t.marks[markOwner])
	for _, task := range t.RecentTask {
		cancelTask(ctx, s.client, task)
	}
	return s.remove(ctx, at)
}

// markAsTemplate makes a machine a template, which cannot be powered on. A stand-alone ESXi has none.
func (i *imports) markAsTemplate(ctx context.Context, s *site, at ref, is bool) error {
	if is || !s.isVC {
		return nil
	}
	_, err := methods.MarkAsTemplate(ctx, s.client, &types.MarkAsTemplate{This: at})
	if isFault[*types.InvalidState](err) || isFault[*types.NotSupported](err) {
		return nil // another daemon has just done it
	}
	return err
}

// create imports an image as a template. If that fails, nothing is left.
func (i *imports) create(ctx context.Context, s *site, m vm.Machine, name, image, gold string) error {
	hardware, disks, err := readImage(gold)
	if err != nil {
		return err
	}
	streams, err := i.convert(ctx, disks)
	defer removeStreams(streams)
	if err != nil {
		return err
	}
	spec := configSpec(s, name, hardware, disks, s.networks[m.Network])
	mark := marks{markImage: image, markOwner: i.d.owner, markGuestOS: hardware.GuestOS, markHeartbeat: "0", markWhole: "0"}
	spec.ExtraConfig = mark.options()
	spec.Annotation = "osx-builder template of the image " + image
	at, err := i.upload(ctx, s, spec, streams, m.Progress)
	if err == nil {
		err = i.finish(ctx, s, at)
	}
	if err == nil || at == nil {
		return err
	}
	after, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	if removeErr := s.remove(after, *at); removeErr != nil {
		i.d.opts.Log.Warn("a failed import was left; the next one removes it", "name", name, "err", removeErr)
	}
	return err
}

// finish makes a machine whose disks are uploaded a template that can be cloned.
func (i *imports) finish(ctx context.Context, s *site, at *ref) error {
	if s.isVC {
		res, err := methods.CreateSnapshot_Task(ctx, s.client, &types.CreateSnapshot_Task{
			This: *at, Name: snapshotName, Description: "the disks that machines are linked to",
		})
		if err == nil {
			_, err = wait(ctx, s.client, res.Returnval)
		}
		if err != nil {
			return err
		}
	}
	if err := s.reconfigure(ctx, *at, types.VirtualMachineConfigSpec{ExtraConfig: marks{markWhole: "1"}.options()}); err != nil {
		return err
	}
	return i.markAsTemplate(ctx, s, *at, false)
}

// reconfigure changes a machine's configuration.
func (s *site) reconfigure(ctx context.Context, at ref, spec types.VirtualMachineConfigSpec) error {
	res, err := methods.ReconfigVM_Task(ctx, s.client, &types.ReconfigVM_Task{This: at, Spec: spec})
	if err == nil {
		_, err = wait(ctx, s.client, res.Returnval)
	}
	return err
}

// running returns those of the tasks that are not over.
func (s *site) running(ctx context.Context, tasks []ref) ([]ref, error) {
	var list []ref
	for _, task := range tasks {
		t, err := taskInfo(ctx, s.client, task)
		if isNotFound(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if t.State == types.TaskInfoStateQueued || t.State == types.TaskInfoStateRunning {
			list = append(list, task)
		}
	}
	return list, nil
}

// remove powers a machine off and removes it with its files. It is a no-op if there is none.
func (s *site) remove(ctx context.Context, at ref) error {
	res, err := methods.PowerOffVM_Task(ctx, s.client, &types.PowerOffVM_Task{This: at})
	if err == nil {
		_, err = wait(ctx, s.client, res.Returnval)
	}
	switch {
	case isNotFound(err):
		return nil
	case err != nil && ctx.Err() != nil:
		return errors.Join(err, context.Cause(ctx))
	case err != nil && !isFault[*types.InvalidPowerState](err) && !isFault[*types.InvalidState](err) && !isFault[*types.NotSupported](err):
		return err
	}
	gone, err := methods.Destroy_Task(ctx, s.client, &types.Destroy_Task{This: at})
	if err == nil {
		_, err = wait(ctx, s.client, gone.Returnval)
	}
	if isNotFound(err) {
		return nil
	}
	return err
}
