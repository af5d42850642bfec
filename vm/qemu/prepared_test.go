package qemu_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"osx-builder/vm"
	"osx-builder/vm/qemu"
	"osx-builder/vm/vmtest"
	"osx-builder/vm/vmtest/harness"
)

// newGoldTestDriver returns a test driver whose images are gold, so that their
// disks are prepared.
func newGoldTestDriver(t *testing.T) *testDriver {
	t.Helper()
	r := newTestDriver(t)
	r.reopen(nil)
	return r
}

// reopen is a new daemon's driver on the same folder.
func (r *testDriver) reopen(change func(*qemu.Options)) {
	r.t.Helper()
	o := options(r.data)
	o.Gold = filepath.Join(r.data, "images", "gold")
	if change != nil {
		change(&o)
	}
	d, err := openDriver(o)
	if err != nil {
		r.t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		r.t.Errorf("closing the driver: %v", err)
	}
	r.Driver = d
}

// gold moves an image to where gold images are, and returns its .vmx.
func (r *testDriver) gold(name string, lines ...string) string {
	r.t.Helper()
	vmx := r.image(idleGuest, append(append([]string{}, plain...), lines...)...)
	folder := filepath.Join(r.data, "images", "gold", name)
	if err := os.MkdirAll(filepath.Dir(folder), 0o755); err != nil {
		r.t.Fatal(err)
	}
	if err := os.Rename(filepath.Dir(filepath.Dir(vmx)), folder); err != nil {
		r.t.Fatal(err)
	}
	return filepath.Join(folder, "my, image", "machine.vmx")
}

// prepared lists the files that were made of images.
func (r *testDriver) prepared() []string {
	r.t.Helper()
	files, err := filepath.Glob(filepath.Join(r.data, "images", "prepared", "*", "*"))
	if err != nil {
		r.t.Fatal(err)
	}
	return files
}

// backing is the file below a machine's first disk, as its overlay names it.
func backing(t *testing.T, m vm.Machine) string {
	t.Helper()
	out, err := exec.Command("qemu-img", "info", "-U", "-f", "qcow2", filepath.Join(m.Dir, "disk0.qcow2")).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for line := range strings.Lines(string(out)) {
		if file, ok := strings.CutPrefix(line, "backing file: "); ok {
			return strings.TrimSpace(file)
		}
	}
	t.Fatalf("no backing file in\n%s", out)
	return ""
}

// However many machines are made of an image at once, its disk is prepared
// once, holds the same bytes, is read by all of them, and boots.
func TestPreparedOnce(t *testing.T) {
	r := newGoldTestDriver(t)
	vmx := r.gold("sha256-aa")
	machines := []vm.Machine{r.machine(), r.machine(), r.machine()}
	var wg sync.WaitGroup
	for _, m := range machines {
		wg.Go(func() {
			if err := r.Clone(t.Context(), m, vmx); err != nil {
				t.Errorf("Clone: %v", err)
			}
		})
	}
	wg.Wait()
	files := r.prepared()
	if len(files) != 1 {
		t.Fatalf("got %v, want one file", files)
	}
	info, err := os.Stat(files[0])
	if err != nil || info.Mode().Perm() != 0o444 {
		t.Errorf("got mode %v, %v, want read-only", info.Mode(), err)
	}
	r.run("qemu-img", "compare", "-f", "vmdk", "-F", "qcow2", filepath.Join(filepath.Dir(vmx), "disk.vmdk"), files[0])
	for _, m := range machines {
		if got := backing(t, m); got != files[0] {
			t.Errorf("a machine reads %s, want %s", got, files[0])
		}
	}
	r.start(machines[0])
	until(t, harness.Timeout, "a booted guest", func() bool { return strings.Contains(serial(machines[0]), "OK") })
	later := r.machine()
	r.reopen(nil)
	r.clone(later, vmx)
	if again, err := os.Stat(files[0]); err != nil || !again.ModTime().Equal(info.ModTime()) {
		t.Errorf("after a restart the disk was prepared again: %v", err)
	}
	r.start(later)
	until(t, harness.Timeout, "a booted guest", func() bool { return strings.Contains(serial(later), "OK") })
}

// A disk without data is not converted, however large it claims to be.
func TestEmptyDiskNotPrepared(t *testing.T) {
	r := newGoldTestDriver(t)
	vmx := r.gold("sha256-aa")
	disk := filepath.Join(filepath.Dir(vmx), "disk.vmdk")
	r.run("qemu-img", "create", "-q", "-f", "vmdk", disk, "100G")
	for range 2 {
		m := r.machine()
		r.clone(m, vmx)
		if got := backing(t, m); got != disk {
			t.Errorf("the machine reads %s, want %s", got, disk)
		}
	}
	if files := r.prepared(); len(files) > 0 {
		t.Errorf("got %v, want no prepared disk", files)
	}
}

// What was made from an image goes with it, and with nothing else.
func TestPreparedGoesWithItsImage(t *testing.T) {
	r := newGoldTestDriver(t)
	for _, name := range []string{"sha256-bb", "sha256-cc"} {
		r.clone(r.machine(), r.gold(name))
	}
	if n := len(r.prepared()); n != 2 {
		t.Fatalf("got %d files, want 2", n)
	}
	remove := func(name string) {
		t.Helper()
		if err := os.RemoveAll(filepath.Join(r.data, "images", "gold", name)); err != nil {
			t.Fatal(err)
		}
	}
	remove("sha256-bb")
	r.clone(r.machine(), r.gold("sha256-dd"))
	if files := r.prepared(); len(files) != 2 || strings.Contains(fmt.Sprint(files), "sha256-bb") {
		t.Errorf("after the next preparation: got %v, want those of cc and dd", files)
	}
	remove("sha256-cc")
	r.reopen(nil)
	if files := r.prepared(); len(files) != 1 || !strings.Contains(files[0], "sha256-dd") {
		t.Errorf("after a restart: got %v, want that of dd", files)
	}
}

// An interrupted preparation leaves nothing that counts, and is repeated.
func TestInterruptedPreparation(t *testing.T) {
	r := newGoldTestDriver(t)
	vmx := r.gold("sha256-aa")
	tool, release := r.slowTool()
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("stop")
	m := r.machine()
	ended := make(chan error, 1)
	go func() { ended <- r.Clone(ctx, m, vmx) }()
	until(t, harness.Timeout, "a conversion", func() bool { return harness.HasProcess(tool, "convert") })
	second, give := context.WithTimeoutCause(t.Context(), time.Millisecond, stop)
	defer give()
	if err := r.Clone(second, r.machine(), vmx); !errors.Is(err, stop) && !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("one who waits for it and gives up: got %v, want the context's error or its cause", err)
	}
	cancel(stop)
	if err := <-ended; !errors.Is(err, stop) {
		t.Errorf("got %v, want the context's cause", err)
	}
	if files := r.prepared(); len(files) != 0 {
		t.Errorf("got %v, want nothing", files)
	}
	litter := filepath.Join(r.data, "images", "prepared", "sha256-aa", ".new-1")
	if err := os.WriteFile(litter, nil, 0o600); err != nil { // as a killed daemon leaves it
		t.Fatal(err)
	}
	release()
	r.reopen(nil)
	if _, err := os.Stat(litter); err == nil {
		t.Error("the unfinished file is still there")
	}
	r.clone(m, vmx)
	if files := r.prepared(); len(files) != 1 || backing(t, m) != files[0] {
		t.Errorf("got %v, want one file, which the machine reads", files)
	}
}

// slowTool makes qemu-img's conversions last until release is called. It returns
// the path of the program that stands for qemu-img.
func (r *testDriver) slowTool() (tool string, release func()) {
	r.t.Helper()
	dir := harness.ProgramDir(r.t)
	slow := filepath.Join(dir, "slow")
	if err := os.WriteFile(slow, nil, 0o600); err != nil {
		r.t.Fatal(err)
	}
	// Without exec, so that the command line of the script stays.
	tool = r.wrapToolIn(dir, "case $1 in convert) [ -e "+slow+" ] && { sleep 60; exit; };; esac")
	return tool, func() {
		r.t.Helper()
		if err := os.Remove(slow); err != nil {
			r.t.Fatal(err)
		}
	}
}

// If a disk cannot be prepared, the machine reads the image's own file: the
// disk is short, qemu-img is stopped by its limits or crashes, the disk is flat
// or the image is none of the cache's.
func TestUnprepared(t *testing.T) {
	r := newGoldTestDriver(t)
	check := func(what, vmx string) {
		t.Helper()
		m := r.machine()
		r.clone(m, vmx)
		slow := what == "no room" || strings.Contains(what, "crash")
		if got := r.inspect(m).Warnings; slow != slices.ContainsFunc(got, func(w vm.Warning) bool { return w.Code == vm.WarningSlowDisk && strings.Contains(w.Message, "scsi0:0") }) {
			t.Errorf("%s: got warnings %+v, want one about a slow disk: %t", what, got, slow)
		}
		if got, want := backing(t, m), filepath.Join(filepath.Dir(vmx), "disk.vmdk"); got != want {
			t.Errorf("%s: the machine reads %s, want %s", what, got, want)
		}
		if files := r.prepared(); len(files) > 0 {
			t.Errorf("%s: got %v, want nothing prepared", what, files)
		}
	}
	check("not gold", r.image(idleGuest, plain...))

	flat := r.gold("sha256-ff")
	disk := filepath.Join(filepath.Dir(flat), "disk.vmdk")
	r.run("qemu-img", "convert", "-f", "vmdk", "-O", "vmdk", "-o", "subformat=monolithicFlat", disk, disk+"2")
	r.run("sh", "-c", `cd "$1" && mv disk.vmdk2 disk.vmdk`, "sh", filepath.Dir(flat))
	check("flat", flat)

	r.reopen(func(o *qemu.Options) { o.DiskReserve = 1 << 62 })
	check("no room", r.gold("sha256-aa"))

	r.reopen(nil)
	var log bytes.Buffer
	r.reopen(func(o *qemu.Options) { o.Log = slog.New(slog.NewTextHandler(&log, nil)) })
	crashing := r.gold("sha256-bb")
	r.wrapTool("case $1 in convert) echo call $$ $(ulimit -t) $(ulimit -f) >&2; kill -SEGV $$;; esac")
	check("qemu-img crashes", crashing)
	check("it crashed before", crashing)
	calls := regexp.MustCompile(`call \d+ (\w+) (\w+)`).FindAllStringSubmatch(log.String(), -1)
	// Both warnings are about the same call. 60 s, and 35 s for the first GiB of data.
	if len(calls) != 2 || calls[0][0] != calls[1][0] || calls[0][1] != "95" || calls[0][2] == "unlimited" {
		t.Errorf("got calls %q, want one conversion, under limits", calls)
	}
}

// The limits on qemu-img leave room for all the threads that it may start: on
// a slow disk it starts more of them.
func TestPreparedByManyThreads(t *testing.T) {
	r := newGoldTestDriver(t)
	vmx := r.gold("sha256-aa")
	r.wrapTool(`case $1 in convert) %[1]s bench -f raw -d 64 -c 20000 -s 65536 /proc/self/fd/3 >&2 || exit;; esac`)
	m := r.machine()
	r.clone(m, vmx)
	if files := r.prepared(); len(files) != 1 || backing(t, m) != files[0] {
		t.Errorf("got %v, want one file, which the machine reads", files)
	}
}

// An image whose disk could not be prepared is tried again after it was
// fetched again.
func TestPreparedAfterFetchedAgain(t *testing.T) {
	r := newGoldTestDriver(t)
	vmx := r.gold("sha256-aa")
	broken := filepath.Join(harness.ProgramDir(t), "broken")
	r.wrapTool(`case $1 in convert) [ -e ` + broken + ` ] && kill -SEGV $$;; esac`)
	if err := os.WriteFile(broken, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	r.clone(r.machine(), vmx)
	if files := r.prepared(); len(files) != 0 {
		t.Fatalf("got %v, want nothing prepared", files)
	}
	if err := os.Remove(broken); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"gold", "prepared"} { // as the image cache removes an image
		if err := os.RemoveAll(filepath.Join(r.data, "images", dir, "sha256-aa")); err != nil {
			t.Fatal(err)
		}
	}
	m := r.machine()
	r.clone(m, r.gold("sha256-aa"))
	if files := r.prepared(); len(files) != 1 || backing(t, m) != files[0] {
		t.Errorf("got %v, want one file, which the machine reads", files)
	}
}

// wrapTool makes qemu-img a shell script that does something before it becomes
// the real one, whose path is %[1]s in it.
func (r *testDriver) wrapTool(before string) {
	r.t.Helper()
	r.wrapToolIn(harness.ProgramDir(r.t), before)
}

func (r *testDriver) wrapToolIn(dir, before string) (path string) {
	r.t.Helper()
	real, err := exec.LookPath("qemu-img")
	if err != nil {
		r.t.Fatal(err)
	}
	path = filepath.Join(dir, "qemu-img")
	script := "#!/bin/sh\n" + strings.ReplaceAll(before, "%[1]s", real) + "\nexec " + real + " \"$@\"\n"
	vmtest.WriteProgram(r.t, path, script)
	r.t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	return path
}

// A chain of VMDK files becomes one qcow2 file.
func TestPreparedChain(t *testing.T) {
	r := newGoldTestDriver(t)
	vmx := r.gold("sha256-aa")
	dir := filepath.Dir(vmx)
	r.run("sh", "-c", `cd "$1" && qemu-img convert -f vmdk -O vmdk disk.vmdk base.vmdk && rm disk.vmdk && qemu-img create -q -f vmdk -F vmdk -b base.vmdk disk.vmdk`, "sh", dir)
	m := r.machine()
	r.clone(m, vmx)
	files := r.prepared()
	if len(files) != 1 || backing(t, m) != files[0] {
		t.Fatalf("got %v, want one file, which the machine reads", files)
	}
	r.run("qemu-img", "compare", "-f", "vmdk", "-F", "qcow2", filepath.Join(dir, "disk.vmdk"), files[0])
	r.start(m)
	until(t, harness.Timeout, "a booted guest", func() bool { return strings.Contains(serial(m), "OK") })
}
