package e2e_test

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"osx-builder/vm/vmtest/harness"
)

// service is what answers in a guest.
type service struct{ port, question, answer string }

// await waits until the service at the address accepts a connection and, if only one machine starts, until it answers:
// of those that start at once, no answer shall delay the start of another. It returns how long that has taken. The
// connections are made from the device with this name, or from any if it is "".
func (s service) await(b *testing.B, began time.Time, device, ip string, n int) (tcp, page time.Duration) {
	b.Helper()
	dialer := net.Dialer{Timeout: 100 * time.Millisecond, Control: func(_, _ string, c syscall.RawConn) (err error) {
		controlling := c.Control(func(fd uintptr) { err = unix.BindToDevice(int(fd), device) })
		return cmp.Or(controlling, err)
	}}
	for end := time.Now().Add(harness.Timeout); time.Now().Before(end); time.Sleep(time.Millisecond) {
		conn, err := dialer.Dial("tcp4", net.JoinHostPort(ip, s.port))
		if err != nil {
			continue
		}
		if tcp == 0 {
			tcp = time.Since(began)
		}
		if n > 1 {
			conn.Close()
			return tcp, 0
		}
		if s.answers(conn) {
			return tcp, time.Since(began)
		}
	}
	b.Fatalf("port %s of %s does not answer", s.port, ip)
	return 0, 0
}

func (s service) answers(conn net.Conn) bool {
	defer conn.Close()
	if conn.SetDeadline(time.Now().Add(harness.Timeout)) != nil {
		return false
	}
	if _, err := io.WriteString(conn, s.question); err != nil {
		return false
	}
	for lines := bufio.NewScanner(conn); lines.Scan(); {
		if strings.HasPrefix(lines.Text(), s.answer) {
			return true
		}
	}
	return false
}

// startTimes are how long a start took until each of its steps.
type startTimes struct{ on, tcp, page time.Duration }

// starter starts machines. prepare does what is not measured, for n machines that are started then. start starts one
// of them, with the index i; end removes it.
type starter struct {
	prepare func(n int)
	start   func(i, n int) (t startTimes, end func())
}

// comparison is a starter and its baseline.
type comparison struct{ ours, baseline starter }

// report measures count starts one after the other, and then so many at once.
func (c comparison) report(b *testing.B, count int, atOnce ...int) {
	b.Helper()
	var ours, baseline []startTimes
	for range count {
		ours, baseline = append(ours, c.ours.run(b, 1)...), append(baseline, c.baseline.run(b, 1)...)
	}
	reportTimes(b, "on", ours, baseline, func(t startTimes) time.Duration { return t.on })
	reportTimes(b, "tcp", ours, baseline, func(t startTimes) time.Duration { return t.tcp })
	reportTimes(b, "page", ours, baseline, func(t startTimes) time.Duration { return t.page })
	for _, n := range atOnce {
		name := fmt.Sprintf("%d-at-once-tcp", n)
		reportTimes(b, name, c.ours.run(b, n), c.baseline.run(b, n), func(t startTimes) time.Duration { return t.tcp })
	}
	b.ReportMetric(0, "ns/op")
}

// run starts n machines at once.
func (s starter) run(b *testing.B, n int) []startTimes {
	b.Helper()
	s.prepare(n)
	all, ends := make([]startTimes, n), make([]func(), n)
	var group sync.WaitGroup
	for i := range n {
		group.Go(func() { all[i], ends[i] = s.start(i, n) })
	}
	group.Wait()
	for _, end := range ends {
		if end != nil {
			end()
		}
	}
	if b.Failed() {
		b.FailNow() // a start that failed has ended its goroutine
	}
	return all
}

// reportTimes reports the median and the 95th percentile, and what they are of the baseline's.
func reportTimes(b *testing.B, name string, ours, baseline []startTimes, get func(startTimes) time.Duration) {
	b.Helper()
	sorted := func(all []startTimes) (times []time.Duration) {
		for _, t := range all {
			times = append(times, get(t))
		}
		slices.Sort(times)
		return times
	}
	us, them := sorted(ours), sorted(baseline)
	for quantile, percent := range map[string]int{"p50": 50, "p95": 95} {
		at := (len(us)*percent+99)/100 - 1
		b.ReportMetric(float64(us[at].Microseconds())/1000, name+"-"+quantile+"-ms")
		b.ReportMetric(float64(us[at])/float64(them[at]), name+"-"+quantile+"/baseline")
	}
}
