package server

import "math"

// maxConnections returns how many connections this process can have at once. Windows has no limit of open files that a
// process could reach.
func maxConnections() (n int, openFiles uint64) { return math.MaxInt, math.MaxUint64 }
