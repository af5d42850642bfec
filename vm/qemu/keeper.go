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

// keep lets each keeper do its work until the returned function is called,
// which waits for their ends.
func keep(keepers ...func(context.Context)) (rest func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var working sync.WaitGroup
	for _, work := range keepers {
		working.Go(func() { work(ctx) })
	}
	return func() {
		cancel()
		working.Wait()
	}
}

// repair puts the networks right again and again until ctx ends. It logs a
// failure once, not each time that it meets it.
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
