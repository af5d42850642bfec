package vm

import "context"

// Preloader is the optional interface of drivers that can prepare a machine that
// is to start from memory.
type Preloader interface {
	// Preload does everything for a cloned machine that Start does until its
	// guest continues. The machine then waits, and Start only lets it run. Preload
	// is a no-op if that is done and what the machine was prepared from is still
	// in use, and if the machine runs. Otherwise it prepares the machine again.
	// The error says why the machine would boot. It may be repeated after an
	// interruption at any point, and be called beside Start, which it may delay.
	Preload(ctx context.Context, m Machine) error
}
