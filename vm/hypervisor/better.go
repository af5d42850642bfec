package hypervisor

import (
	"context"
	"errors"
	"os"
	"strings"
	"time"
)

// ErrBetter says that the daemon should choose again, because a hypervisor that it prefers is there now.
var ErrBetter = errors.New("a preferred hypervisor answers now")

// lookAgain is the time between two looks for a preferred hypervisor.
const lookAgain = 10 * time.Second

// AwaitBetter returns a context that ends with [ErrBetter] when [Auto] would choose a candidate before the chosen one,
// such as VMware that starts after the daemon. While the data folder has machines, nothing is looked for. The caller
// calls stop, which waits for a look that has begun.
func (o Options) AwaitBetter(ctx context.Context, chosen string) (better context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	preferred := o.preferredTo(chosen)
	if len(preferred) == 0 {
		return ctx, func() { cancel(nil) }
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		ticker := time.NewTicker(lookAgain)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
			}
			if hasRecords(o.Data.Machines()) {
				continue
			}
			if name := firstAnswering(ctx, preferred); name != "" {
				o.Log.Info("a preferred hypervisor answers now; starting again with it", "driver", name, "before", chosen)
				cancel(ErrBetter)
				return
			}
		}
	}()
	return ctx, func() { cancel(nil); <-done }
}

// preferredTo returns the candidates that Auto prefers to the chosen one.
func (o Options) preferredTo(chosen string) (preferred []Candidate) {
	if o.Driver != Auto {
		return nil
	}
	for _, c := range o.Candidates {
		if c.Name == chosen {
			return preferred
		}
		if !c.OnlyByName {
			preferred = append(preferred, c)
		}
	}
	return preferred
}

// firstAnswering returns the name of the first candidate that can be opened and is ready, or "".
func firstAnswering(ctx context.Context, candidates []Candidate) string {
	for _, c := range candidates {
		d, err := c.Open()
		if err != nil {
			continue // it is still missing
		}
		err = d.Ready(ctx)
		if errors.Join(err, d.Close()) == nil {
			return c.Name
		}
	}
	return ""
}

// hasRecords reports whether a folder has records of machines. If it cannot be read, it may have some.
func hasRecords(dir string) bool {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return false
	}
	for _, e := range entries {
		name, isJSON := strings.CutSuffix(e.Name(), ".json")
		if e.IsDir() || isJSON && !strings.HasSuffix(name, ".tombstone") {
			return true
		}
	}
	return err != nil
}

// Repeat calls serve until it returns another error than [ErrBetter], and returns that.
func Repeat(serve func() error) error {
	for {
		if err := serve(); !errors.Is(err, ErrBetter) {
			return err
		}
	}
}

// Better returns [ErrBetter] if that is why the context of [Options.AwaitBetter] has ended, and otherwise nil.
func Better(ctx context.Context) error {
	if errors.Is(context.Cause(ctx), ErrBetter) {
		return ErrBetter
	}
	return nil
}
