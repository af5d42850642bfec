package vcenter

import (
	"fmt"
	"sync"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// guests gives machines that are powered on a guest, whose tools run at once and which has an address.
type guests struct {
	mu     sync.Mutex
	booted map[types.ManagedObjectReference]bool // guarded by mu
	last   int                                   // number of the last address; guarded by mu
}

// update boots the guests of machines that were powered on, and stops those of the others.
func (g *guests) update(ctx *simulator.Context) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, e := range ctx.Map.All("VirtualMachine") {
		v, ok := e.(*simulator.VirtualMachine)
		if !ok {
			continue
		}
		ctx.WithLock(v, func() {
			on := v.Runtime.PowerState == types.VirtualMachinePowerStatePoweredOn
			if on == g.booted[v.Self] {
				return
			}
			tools, ip := types.VirtualMachineToolsRunningStatusGuestToolsNotRunning, ""
			if on {
				g.last++
				tools, ip = types.VirtualMachineToolsRunningStatusGuestToolsRunning, fmt.Sprintf("192.0.%d.%d", 2+g.last/250, 1+g.last%250)
			}
			if len(v.Guest.Net) > 0 {
				v.Guest.Net[0].IpAddress = []string{"fe80::1", ip}
			}
			ctx.Update(v, []types.PropertyChange{
				{Name: "guest.toolsRunningStatus", Val: string(tools)}, {Name: "guest.ipAddress", Val: ip},
			})
			g.booted[v.Self] = on
		})
	}
}

// stop makes the guest of a machine boot again when the machine runs the next time.
func (g *guests) stop(at types.ManagedObjectReference) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.booted, at)
}
