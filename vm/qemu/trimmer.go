package qemu

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"

	"osx-builder/vm"
	"osx-builder/vm/qemu/confine"
	"osx-builder/vm/qemu/process"
)

const (
	// trimmerSeconds is how often a machine's own trimmer looks at its console. In between the console grows by what the
	// guest writes, which is a few hundred KiB a second at most.
	trimmerSeconds = 20

	// consoleLimit is how long a console may become, holes included, before it is emptied: well before QEMU may write no
	// more, which is at consoleBytes at the earliest.
	consoleLimit = consoleBytes / 2

	trimmerMemory = 256 << 20 // bytes of address space of each process
	trimmerFiles  = 64
)

// trimmer is a script that does for one machine what [logTrimmer] does for all, while no daemon runs too. Its arguments
// are: how often it looks, in seconds; the bytes to keep; the length at which it empties the log; the descriptor of a
// pipe that is closed when QEMU has ended; and that of the log.
const trimmer = `
while timeout "$1" cat <&"$4" >/dev/null; [ $? = 124 ]; do
	size=$(stat -L -c %s "/dev/fd/$5") || exit
	before=$(((size - $2) / 65536 * 65536))
	if [ "$before" -le 0 ]; then continue; fi
	if [ "$size" -gt "$3" ] || ! fallocate -p -o 0 -l "$before" "/dev/fd/$5"; then
		: >"/dev/fd/$5"
	fi
done
`

// openTrimmer adds the machine's trimmer to s.beside. It opens the log by its descriptor's name, so the log is the
// user's.
func (s *setup) openTrimmer(files *process.Files) error {
	if runtime.GOOS != "linux" {
		return nil // whose shells lack the programs
	}
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	files.Add(w)
	own := &process.Files{}
	pipe := own.Add(r)
	log, err := openState(s.Dir, serialLog, os.O_RDONLY)
	if err != nil {
		return errors.Join(err, own.Close())
	}
	console := own.Add(log)
	s.beside[process.Trimmer] = process.Command{
		Dir: s.Dir,
		Argv: []string{
			confine.Shell, "-c", trimmer, "trimmer", strconv.Itoa(trimmerSeconds), strconv.Itoa(vm.ConsoleKept),
			fmt.Sprint(int64(consoleLimit)), strconv.Itoa(pipe), strconv.Itoa(console),
		},
		Files: own,
		Rules: confine.Rules{
			User:   s.user,
			Write:  []string{log.Name()},
			Limits: confine.Limits{Memory: trimmerMemory, FileSize: 1 << 20, Files: trimmerFiles, Processes: s.CPUs + extraThreads},
		},
	}
	if s.user == 0 {
		return nil
	}
	return process.Share(log, s.user)
}
