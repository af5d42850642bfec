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

// BenchmarkAddress measures POST to an ip_address in GET, on a managed bridge,
// against POST to the lease: the line that dnsmasq writes to its log. What lies
// between the two is address-lag.
func BenchmarkAddress(b *testing.B) {
	if os.Geteuid() != 0 {
		b.Skip("a managed bridge needs root")
	}
	r := newComparison(b, "-network", "bridge")
	log := filepath.Join(r.Data, "net", "nat", "dnsmasq.log")
	var address pair
	var lag []time.Duration
	for range bootRounds {
		leased := awaitLease(b, log)
		start := time.Now()
		v := r.create()
		r.addressed(v.ID)
		told := time.Now()
		at := <-leased
		address.ours = append(address.ours, told.Sub(start))
		address.base = append(address.base, at.Sub(start))
		lag = append(lag, told.Sub(at))
		r.destroy(v.ID)
	}
	address.report(b, "address")
	b.ReportMetric(float64(median(lag).Microseconds())/1000, "address-lag-ms")
}

// awaitLease tells when dnsmasq next writes that it gave a lease.
func awaitLease(b *testing.B, log string) <-chan time.Time {
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
			more, _ := io.ReadAll(f) // what a read did not get the next one does
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
