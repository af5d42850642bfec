package e2e_test

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"osx-builder/vm/vmtest/harness"
)

// BenchmarkAddress measures the time from POST until GET shows an ip_address, on a
// managed bridge. The baseline is the time until dnsmasq logs the lease. The metric
// address-lag is the difference.
func BenchmarkAddress(b *testing.B) {
	if os.Geteuid() != 0 {
		harness.Without(b, "a managed bridge needs root")
	}
	r := newBenchmark(b, "-network", "bridge")
	log := filepath.Join(r.Data, "net", "nat", "dnsmasq.log")
	var address samples
	var lag []time.Duration
	for range bootCount {
		lease := nextLease(b, log)
		start := time.Now()
		v := r.create()
		r.waitAddress(v.ID)
		shown := time.Now()
		leased := <-lease
		address.ours = append(address.ours, shown.Sub(start))
		address.baseline = append(address.baseline, leased.Sub(start))
		lag = append(lag, shown.Sub(leased))
		r.destroy(v.ID)
	}
	address.report(b, "address")
	b.ReportMetric(float64(harness.Median(lag).Microseconds())/1000, "address-lag-ms")
}

// nextLease returns a channel that receives the time at which dnsmasq logs its next
// lease.
func nextLease(b *testing.B, log string) <-chan time.Time {
	b.Helper()
	f, err := os.Open(log)
	harness.Must(b, err)
	_, err = f.Seek(0, io.SeekEnd)
	harness.Must(b, err)
	leased := make(chan time.Time, 1)
	go func() {
		defer f.Close()
		var seen []byte
		for deadline := time.Now().Add(harness.Timeout); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
			more, _ := io.ReadAll(f) // the next read gets what this one does not
			if seen = append(seen, more...); bytes.Contains(seen, []byte("DHCPACK")) {
				leased <- time.Now()
				return
			}
		}
		b.Error("dnsmasq gave no lease")
		leased <- time.Now()
	}()
	return leased
}
