package main

import (
	"errors"
	"os/exec"

	"golang.org/x/sys/unix"
)

// manyProcesses is more than the limit of a machine with two processors.
const manyProcesses = 150

// resources are attempts to use up the host.
func resources() []attempt {
	return []attempt{
		{"take the host's memory", func(t targets) error {
			b, err := unix.Mmap(-1, 0, int(t.Memory), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
			if err == nil {
				_ = unix.Munmap(b)
			}
			return err
		}},
		{"fill the host's disk", func(targets) error {
			_, err := unix.Pwrite(overlay(), []byte("x"), 1<<40)
			return err
		}},
		{"raise its limits", func(targets) error {
			raised := unix.Rlimit{Cur: 1 << 40, Max: 1 << 40}
			return first(unix.Setrlimit(unix.RLIMIT_CORE, &raised), unix.Setrlimit(unix.RLIMIT_AS, &raised), unix.Setrlimit(unix.RLIMIT_FSIZE, &raised))
		}},
		{"start more and more processes", func(targets) (err error) {
			var all []*exec.Cmd
			for range manyProcesses {
				cmd := exec.Command("/bin/sleep", "1000")
				if err = cmd.Start(); err != nil {
					break
				}
				all = append(all, cmd)
			}
			for _, cmd := range all {
				err = errors.Join(err, cmd.Process.Kill())
				_ = cmd.Wait()
			}
			return err
		}},
	}
}
