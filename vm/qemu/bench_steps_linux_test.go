package qemu_test

import (
	"context"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"osx-builder/vm"
	"osx-builder/vm/qemu/confine"
	"osx-builder/vm/qemu/disk"
	"osx-builder/vm/qemu/network"
	"osx-builder/vm/qemu/process"
	"osx-builder/vm/vmtest/e2e"
	"osx-builder/vm/vmtest/harness"
)

// stepCount is the number of measured runs of each step.
const stepCount = 20

// BenchmarkSteps measures the steps of a creation that are not QEMU's own, each against what a shell script would do: an
// empty overlay against qemu-img create, the start of a program by the shell that waits for it against that of the program
// alone, a file that survives a loss of power against one that may not, and a tap on a managed network, with DHCP and
// rules, against a tap on a bridge.
func BenchmarkSteps(b *testing.B) {
	if !e2e.IsolateTest(b) {
		return
	}
	dir := b.TempDir()
	for name, step := range map[string]steps{
		"overlay": overlaySteps(b, dir), "shell": shellSteps(b, dir), "record": recordSteps(b, dir), "tap": tapSteps(b, dir),
	} {
		b.Run(name, func(b *testing.B) {
			var ours, baseline []time.Duration
			for b.Loop() {
				for range stepCount {
					ours, baseline = append(ours, harness.Measure(step.ours)), append(baseline, harness.Measure(step.baseline))
				}
			}
			a, z := harness.Median(ours).Seconds(), harness.Median(baseline).Seconds()
			b.ReportMetric(a/z, "step/baseline")
			b.ReportMetric(a*1000, "step-ms")
			b.ReportMetric(z*1000, "baseline-ms")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// steps are the step of the daemon and its baseline.
type steps struct{ ours, baseline func() }

func overlaySteps(b *testing.B, dir string) steps {
	d := disk.Disk{Bus: "scsi", Overlay: "disk0.qcow2", Backing: []string{"/image/disk.vmdk"}, Size: 10 << 30}
	return steps{
		func() { harness.Must(b, d.CreateOverlay(dir)) },
		func() {
			img(b, dir, "create", "-q", "-u", "-f", "qcow2", "-F", "vmdk", "-b", d.Backing[0], "baseline.qcow2", strconv.FormatInt(d.Size, 10))
			harness.Must(b, vm.SyncPath(filepath.Join(dir, "baseline.qcow2")))
		},
	}
}

func shellSteps(b *testing.B, dir string) steps {
	const program = "/bin/true"
	return steps{
		func() {
			r, w, err := os.Pipe()
			harness.Must(b, err)
			defer r.Close()
			process.AwaitSupervisor(b.Context(), dir)
			harness.Must(b, process.Spawn(process.Command{
				Dir: dir, Argv: []string{program}, Files: &process.Files{},
				Rules: confine.Rules{Execute: []string{"/bin", "/usr", "/lib", "/lib64"}},
			}, w))
		},
		func() { harness.Must(b, exec.Command(program).Run()) },
	}
}

func recordSteps(b *testing.B, dir string) steps {
	text := []byte(strings.Repeat("a", 1<<10))
	return steps{
		func() { harness.Must(b, vm.WriteFile(filepath.Join(dir, "record.json"), text)) },
		func() { harness.Must(b, os.WriteFile(filepath.Join(dir, "baseline.json"), text, 0o600)) },
	}
}

func tapSteps(b *testing.B, dir string) steps {
	m, err := network.Open(network.Config{Dir: filepath.Join(dir, "net"), Name: dir, Log: slog.New(slog.DiscardHandler)})
	harness.Must(b, err)
	b.Cleanup(func() { harness.Must(b, m.Clean(context.Background())) })
	attach := func() {
		id := uuid.New()
		_, err := m.Attach(b.Context(), network.NAT, id.String(), append(net.HardwareAddr{0x52}, id[:5]...), "")
		harness.Must(b, err)
	}
	attach() // the first one makes the network
	n := 0
	shell(b, "ip link add bench type bridge && ip link set bench up")
	return steps{attach, func() {
		n++
		tap := "bench" + strconv.Itoa(n)
		shell(b, "ip tuntap add dev "+tap+" mode tap && ip link set "+tap+" master bench up")
	}}
}

func shell(b *testing.B, script string) {
	b.Helper()
	if out, err := exec.Command("sh", "-c", script).CombinedOutput(); err != nil {
		b.Fatalf("%s: %v: %s", script, err, out)
	}
}
