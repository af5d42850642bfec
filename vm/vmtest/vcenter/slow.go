package vcenter

import (
	"time"

	"github.com/vmware/govmomi/simulator"
)

// SlowTask is how long a slow task takes.
const SlowTask = 200 * time.Millisecond

// SlowTasks makes every task slow on all servers until the function that it returns is called. No other test may use a
// server meanwhile.
func SlowTasks() (release func()) {
	handOver.Do(letRead)
	before := simulator.TaskDelay
	simulator.TaskDelay.Delay = int(SlowTask / time.Millisecond)
	return func() { simulator.TaskDelay = before }
}
