package e2e_test

import (
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"osx-builder/vm"
	"osx-builder/vm/vmtest/e2e"
	"osx-builder/vm/vmtest/harness"
)

// lateServices are rules that refuse connections to port 22, except at the addresses in the set.
const lateServices = `nft -f - <<end
table inet late {
	set answering { type ipv4_addr; }
	chain output {
		type filter hook output priority 0;
		ip daddr != @answering tcp dport 22 reject with tcp reset
	}
}
end`

// The service of ready_when answers right after the machine is ready, however long after the guest's address it comes.
//
// LATE_ROUNDS sets the number of rounds, LATE_MACHINES that of machines in each, and LATE_SECONDS how long after its
// address a guest's service comes.
func TestLateService(t *testing.T) {
	t.Parallel()
	if !e2e.IsolateTest(t) {
		return
	}
	s := harness.New(t, "-network", "bridge")
	shell(s, lateServices)
	delay := time.Duration(harness.EnvInt(t, "LATE_SECONDS", 1)) * time.Second
	machines := harness.EnvInt(t, "LATE_MACHINES", 1)
	body := s.Image(harness.TinyVM).Body(harness.SmallVM(map[string]any{"ready_when": map[string]any{"port": 22}, "ready_timeout": "10m"}))
	ready := 0
	for range harness.EnvInt(t, "LATE_ROUNDS", 1) {
		var round sync.WaitGroup
		for range machines {
			v := s.Create(body)
			round.Go(func() { lateMachine(s, v, delay) })
		}
		round.Wait()
		if t.Failed() {
			break
		}
		ready += machines
	}
	t.Logf("the service of %d machines answered right after they were ready, %v after they had an address", ready, delay)
}

// lateMachine lets the service of a machine answer some time after its address is known, and checks that the machine
// becomes ready not earlier, and that the service answers then. It destroys the machine.
func lateMachine(s *harness.Harness, v vm.VM, delay time.Duration) {
	s.WaitUntil(v.ID, "with an address", func(v vm.VM) bool { return v.IPAddress != "" })
	time.Sleep(delay) // the time that the guest needs for its service
	if v = s.Get(v.ID); v.Phase != vm.Waiting || v.IPAddress == "" {
		s.T.Errorf("before its service answers: machine %s is %s and has address %q, want waiting with an address", v.ID, v.Phase, v.IPAddress)
		return
	}
	element := " element inet late answering { " + v.IPAddress + " }"
	shell(s, "nft add"+element)
	v = s.WaitReady(v.ID)
	banner := make([]byte, 6)
	c, err := net.Dial("tcp", net.JoinHostPort(v.IPAddress, "22"))
	if err == nil {
		_, err = io.ReadFull(c, banner)
		_ = c.Close() // its end does not matter
	}
	if err != nil || !strings.HasPrefix(string(banner), "tinyvm") {
		s.T.Errorf("right after machine %s is ready: got %q, %v, want the guest's banner", v.ID, banner, err)
	}
	shell(s, "nft delete"+element) // another machine may get the address
	s.Destroy(v.ID)
}
