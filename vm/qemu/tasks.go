package qemu

import (
	"context"
	"sync"
)

// startTasks runs each task in the background. The returned function cancels
// their context and waits until they have returned.
func startTasks(tasks ...func(context.Context)) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	for _, task := range tasks {
		running.Go(func() { task(ctx) })
	}
	return func() {
		cancel()
		running.Wait()
	}
}
