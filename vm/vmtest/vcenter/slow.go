package vcenter

import (
	"time"

	"github.com/vmware/govmomi/simulator"
)

// SlowTask is how long a slow task takes.
const SlowTask = 200 * time.Millisecond

// SlowTasks makes the tasks of these names, such as CloneVm, slow on all servers until the function that it returns is
// called. No other test may use a server meanwhile.
func SlowTasks(names ...string) (release func()) {
	slow := map[string]int{"LockHandoff": 0}
	for _, name := range names {
		slow[name] = int(SlowTask / time.Millisecond)
	}
	handOver.Do(func() {})
	before := simulator.TaskDelay.MethodDelay
	if before == nil {
		before = map[string]int{"LockHandoff": 0}
	}
	simulator.TaskDelay.MethodDelay = slow
	return func() { simulator.TaskDelay.MethodDelay = before }
}
