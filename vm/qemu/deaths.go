package qemu

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"osx-builder/vm/qemu/keyedmutex"
	"osx-builder/vm/qemu/process"
)

// deathsEvery bounds how long the log may lack a death.
const deathsEvery = 10 * time.Second

// deathLog logs each QEMU that died, even while no daemon ran, and ends the programs beside one that has ended if they do
// not end by themselves: swtpm can hang if it was writing.
type deathLog struct {
	dir      string // folder that holds each Machine.Dir
	starting *taskCounts
	changing *keyedmutex.Mutex // by Machine.Dir
	log      *slog.Logger
	logged   map[string]time.Time // when QEMU died, by machine
}

// run logs deaths until ctx ends.
func (l *deathLog) run(ctx context.Context) {
	tick := time.NewTicker(deathsEvery)
	defer tick.Stop()
	for {
		l.logNew(ctx)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (l *deathLog) logNew(ctx context.Context) {
	machines, err := os.ReadDir(l.dir)
	if err != nil && !missing(err) {
		l.log.Warn("cannot look for machines whose QEMU died", "err", err)
		return
	}
	seen := map[string]bool{}
	for _, entry := range machines {
		id, dir := entry.Name(), filepath.Join(l.dir, entry.Name())
		info, err := os.Stat(filepath.Join(dir, process.ExitFile))
		if err != nil {
			continue
		}
		seen[id] = true
		pid, err := process.Holder(dir)
		if err != nil || pid != 0 || l.starting.has(dir) || l.logged[id].Equal(info.ModTime()) {
			continue
		}
		e := lastEnding(dir)
		if e.Reason == "" {
			continue // the status is not written yet
		}
		l.logged[id] = info.ModTime()
		if e.Died {
			l.log.Warn("a machine's QEMU died", "vm", id, "because", e.Reason, "words", e.Stderr, "at", info.ModTime().UTC())
		}
		l.endBeside(ctx, id, dir)
	}
	for id := range l.logged {
		if !seen[id] {
			delete(l.logged, id)
		}
	}
}

// endBeside ends the programs beside a QEMU that has ended, unless the machine has been started again.
func (l *deathLog) endBeside(ctx context.Context, id, dir string) {
	unlock, err := l.changing.Lock(ctx, dir)
	if err != nil {
		return // ctx has ended
	}
	defer unlock()
	if pid, err := process.Holder(dir); err != nil || pid != 0 {
		return
	}
	if err := process.EndBeside(ctx, dir); err != nil && ctx.Err() == nil {
		l.log.Warn("cannot end the programs beside a QEMU that has ended", "vm", id, "err", err)
	}
}
