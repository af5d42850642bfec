package vsphere

import (
	"context"
	"crypto/sha1" // #nosec G505 -- the server reports SHA-1
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/vmware/govmomi/nfc"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"

	"osx-builder/vm"
)

const (
	// streamFormat is the only format of disks that can be uploaded.
	streamFormat = "streamOptimized"

	// convertedFolder is the folder in the data folder with disks that are converted for an upload.
	convertedFolder = "vsphere"

	// uploadStall is how long an upload may send nothing.
	uploadStall = 2 * time.Minute

	// convertScript runs qemu-img with bounds, because it reads a file of an untrusted image.
	convertScript = `ulimit -v 2097152 2>/dev/null; ulimit -c 0; exec qemu-img convert -q -f vmdk -O vmdk -o subformat=streamOptimized,adapter_type=lsilogic "$1" "$2"`
)

// stream is a disk as it is uploaded.
type stream struct {
	path string
	made bool // by the conversion
	size int64
}

func removeStreams(streams []stream) {
	for _, f := range streams {
		if f.made {
			_ = os.Remove(f.path)
			_ = os.Remove(filepath.Dir(f.path)) // if it is empty
		}
	}
}

// removeConverted removes what an earlier daemon left.
func (i *imports) removeConverted() error {
	return os.RemoveAll(filepath.Join(i.d.opts.Dir, convertedFolder))
}

// convert returns the disks in the format for uploads. The caller removes them with removeStreams, after an error too.
func (i *imports) convert(ctx context.Context, disks []imageDisk) (streams []stream, err error) {
	for _, d := range disks {
		f := stream{path: d.path}
		if d.format != streamFormat {
			if f, err = i.convertDisk(ctx, d.path); f.made {
				streams = append(streams, f)
			}
			if err != nil {
				return streams, err
			}
			f = streams[len(streams)-1]
			streams = streams[:len(streams)-1]
		}
		info, err := os.Stat(f.path)
		if err != nil {
			return streams, fmt.Errorf("reading the disk: %w", err)
		}
		f.size = info.Size()
		streams = append(streams, f)
	}
	return streams, nil
}

// convertDisk converts a disk into a new file in the data folder.
func (i *imports) convertDisk(ctx context.Context, path string) (stream, error) {
	dir := filepath.Join(i.d.opts.Dir, convertedFolder)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return stream{}, err
	}
	file, err := os.CreateTemp(dir, "disk-*.vmdk")
	if err != nil {
		return stream{}, err
	}
	f := stream{path: file.Name(), made: true}
	if err := file.Close(); err != nil {
		return f, err
	}
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", convertScript, "sh", path, f.path)
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	switch {
	case err == nil:
		return f, nil
	case ctx.Err() != nil:
		return f, context.Cause(ctx)
	case strings.Contains(string(out), "No space left on device"):
		return f, &vm.Error{Code: vm.CodeDiskFull, Message: "the data folder's disk is full, so the image's disk cannot be converted for the upload; free space on it", Err: err}
	case strings.Contains(string(out), "qemu-img: not found"), strings.Contains(string(out), "qemu-img: No such file"):
		return f, unavailable(err, "qemu-img is missing, which converts an image's disks for the upload; install qemu-utils")
	}
	return f, &vm.Error{Code: vm.CodeImageInvalid, Message: fmt.Sprintf("the disk %s cannot be converted: %s", filepath.Base(path), strings.TrimSpace(string(out))), Err: err}
}

// upload makes a machine and uploads its disks. After an error at is the machine that is to be removed, or nil.
func (i *imports) upload(ctx context.Context, s *site, spec types.VirtualMachineConfigSpec, streams []stream, progress func(done, total int64)) (at *ref, err error) {
	res, err := methods.ImportVApp(ctx, s.client, &types.ImportVApp{
		This: s.pool, Folder: &s.folder, Spec: &types.VirtualMachineImportSpec{ConfigSpec: spec},
	})
	if err != nil {
		return nil, err
	}
	lease := nfc.NewLease(s.client, res.Returnval)
	info, err := leaseInfo(ctx, s, lease)
	if err == nil {
		at = &info.Entity
		u := &uploading{i: i, site: s, lease: lease, at: info.Entity, progress: progress}
		err = u.run(ctx, info, streams)
	}
	if err == nil {
		err = lease.Complete(ctx)
	}
	if err != nil {
		after, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		_ = lease.Abort(after, nil) // it may have ended
	}
	return at, err
}

// leaseInfo waits until the machine is made, and returns where its disks are uploaded to.
func leaseInfo(ctx context.Context, s *site, lease *nfc.Lease) (*types.HttpNfcLeaseInfo, error) {
	for delay := 10 * time.Millisecond; ; delay = min(2*delay, time.Second) {
		var l mo.HttpNfcLease
		if err := properties(ctx, s.client, lease.Reference(), &l, "state", "info", "error"); err != nil {
			return nil, err
		}
		switch {
		case l.Error != nil:
			return nil, &taskError{name: "ImportVApp", fault: *l.Error}
		case l.State == types.HttpNfcLeaseStateReady && l.Info != nil:
			return l.Info, nil
		case l.State != types.HttpNfcLeaseStateInitializing:
			return nil, fmt.Errorf("the import is %s before it began", l.State)
		}
		if !sleep(ctx, delay) {
			return nil, context.Cause(ctx)
		}
	}
}

// uploading is an upload of a template's disks.
type uploading struct {
	i        *imports
	site     *site
	lease    *nfc.Lease
	at       ref
	progress func(done, total int64) // may be nil

	done  atomic.Int64 // bytes sent
	total int64
}

// run uploads the disks, in the order in which the server lists them.
func (u *uploading) run(ctx context.Context, info *types.HttpNfcLeaseInfo, streams []stream) error {
	var targets []types.HttpNfcLeaseDeviceUrl
	for _, d := range info.DeviceUrl {
		if d.Disk != nil && *d.Disk {
			targets = append(targets, d)
		}
	}
	if len(targets) != len(streams) {
		return fmt.Errorf("the server made %d disks for the image's %d", len(targets), len(streams))
	}
	for _, f := range streams {
		u.total += f.size
	}
	ctx, cancel := context.WithCancelCause(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		u.keepAlive(ctx, cancel)
	}()
	sums := make(map[string]string)
	err := u.send(ctx, targets, streams, sums)
	if err != nil && ctx.Err() != nil {
		err = errors.Join(context.Cause(ctx), err)
	}
	cancel(nil)
	<-ended
	if err != nil {
		return err
	}
	return u.checkSums(context.WithoutCancel(ctx), sums)
}

// send uploads the disks one after the other and puts their SHA-1 sums into sums, by the device's key.
func (u *uploading) send(ctx context.Context, targets []types.HttpNfcLeaseDeviceUrl, streams []stream, sums map[string]string) error {
	for n, target := range targets {
		to, err := u.site.client.ParseURL(target.Url)
		if err != nil {
			return err
		}
		if target.SslThumbprint != "" {
			u.site.client.SetThumbprint(to.Host, target.SslThumbprint) // of the host, which vCenter vouches for
		}
		file, err := os.Open(streams[n].path)
		if err != nil {
			return fmt.Errorf("reading the disk: %w", err)
		}
		r := &countingReader{from: file, sum: sha1.New(), done: &u.done} // #nosec G401
		err = u.site.client.Upload(ctx, r, to, &soap.Upload{
			Type: "application/x-vnd.vmware-streamVmdk", Method: "POST", ContentLength: streams[n].size,
			Headers: map[string]string{"Overwrite": "t"},
		})
		_ = file.Close()
		if err != nil {
			return fmt.Errorf("uploading disk %d of %d: %w", n+1, len(targets), err)
		}
		sums[target.Key] = hex.EncodeToString(r.sum.Sum(nil))
	}
	return nil
}

// keepAlive reports the progress to the client and the server, changes the template's heartbeat, and ends the upload if
// it sends nothing for too long. The template was made with the first heartbeat.
func (u *uploading) keepAlive(ctx context.Context, stop context.CancelCauseFunc) {
	last, moved := int64(0), time.Now()
	for beat := 0; ; beat++ {
		done := u.done.Load()
		if done != last {
			last, moved = done, time.Now()
		}
		if time.Since(moved) > uploadStall {
			stop(&vm.Error{Code: vm.CodeHypervisor, Message: fmt.Sprintf("the upload to vSphere has not moved for %v", uploadStall)})
			return
		}
		if u.progress != nil {
			u.progress(done, u.total)
		}
		_ = u.lease.Progress(ctx, int32(100*done/max(1, u.total))) // #nosec G115 -- 0 to 100
		if beat > 0 {
			// During the upload the server may refuse changes to the machine. Then its import task is the sign of life.
			_ = u.site.reconfigure(ctx, u.at, types.VirtualMachineConfigSpec{ExtraConfig: marks{markHeartbeat: strconv.Itoa(beat)}.options()})
		}
		if !sleep(ctx, u.i.d.opts.Heartbeat) {
			return
		}
	}
}

// checkSums compares what the server received with what was sent.
func (u *uploading) checkSums(ctx context.Context, sums map[string]string) error {
	manifest, err := u.lease.GetManifest(ctx)
	if err != nil {
		return fmt.Errorf("reading the checksums of the upload: %w", err)
	}
	for _, entry := range manifest {
		if sum, sent := sums[entry.Key]; sent && entry.Sha1 != "" && !strings.EqualFold(sum, entry.Sha1) {
			return &vm.Error{Code: vm.CodeHypervisor, Message: fmt.Sprintf("vSphere received a disk with the SHA-1 %s, but %s was sent; try again", entry.Sha1, sum)}
		}
		delete(sums, entry.Key)
	}
	if len(sums) > 0 {
		u.i.d.opts.Log.Warn("vSphere has no checksums of uploaded disks", "disks", len(sums))
	}
	return nil
}

// countingReader reads a file, counts its bytes and sums them up.
type countingReader struct {
	from io.Reader
	sum  hash.Hash
	done *atomic.Int64
}

func (r *countingReader) Read(b []byte) (int, error) {
	n, err := r.from.Read(b)
	r.done.Add(int64(n))
	_, _ = r.sum.Write(b[:n]) // it never fails
	return n, err
}
