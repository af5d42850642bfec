package vm

import (
	"fmt"
	"math"
)

// maxForward is how many ports of a guest a request may list. Each takes a port of
// the host if guests cannot be reached in another way.
const maxForward = 64

// parseForward checks the TCP ports of the guest that the host must reach.
func parseForward(ports []int) ([]int, error) {
	if len(ports) == 0 {
		return nil, nil
	}
	if len(ports) > maxForward {
		return nil, forwardError(fmt.Sprintf("a list of %d ports", len(ports)))
	}
	seen := make(map[int]bool, len(ports))
	for _, p := range ports {
		switch {
		case p < 1 || p > math.MaxUint16:
			return nil, forwardError(fmt.Sprintf("a list with port %d", p))
		case seen[p]:
			return nil, forwardError(fmt.Sprintf("a list with port %d twice", p))
		}
		seen[p] = true
	}
	return ports, nil
}

func forwardError(value string) error {
	return fieldError("forward", value, fmt.Sprintf("a list of at most %d TCP ports of the guest, each from 1 to 65535 and without repeats", maxForward))
}
