package qemu

import (
	"context"
	"sync"
	"time"
)

// repairEvery is how long a network stays broken that somebody broke: a
// bridge deleted by hand, a dnsmasq killed, an nftables ruleset flushed. None
// of these tells the daemon.
const repairEvery = 10 * time.Second

// keepNetworks puts the networks right again and again until d.rest is called.
func (d *Driver) keepNetworks() {
	ctx, cancel := context.WithCancel(context.Background())
	var keeper sync.WaitGroup
	keeper.Go(func() { d.repair(ctx) })
	d.rest = func() {
		cancel()
		keeper.Wait()
	}
}

// repair logs a failure once, not each time that it meets it.
func (d *Driver) repair(ctx context.Context) {
	tick := time.NewTicker(repairEvery)
	defer tick.Stop()
	last := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		err := d.networks.Repair(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			last = ""
		case err.Error() != last:
			last = err.Error()
			d.log.Error("networks not put right", "err", err)
		}
	}
}
