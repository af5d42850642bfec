package qemu

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"osx-builder/vm"
	"osx-builder/vm/qemu/disk"
	"osx-builder/vm/qemu/process"
)

const (
	// firstUser and userCount are the users and groups of machines. Systems give
	// these numbers to no person, service or container
	// (https://systemd.io/UIDS-GIDS).
	firstUser = 0x7000_0000
	userCount = 1 << 24

	// userFile has the number of the machine's user, in decimal.
	userFile = "user"
)

// users gives each machine a user of its own if the daemon is root, so that a
// guest that breaks out of one QEMU cannot reach another. A machine keeps its
// user until it is destroyed. The zero users give none.
type users struct {
	dir string // folder that holds each Machine.Dir; "": the daemon is not root

	mu    sync.Mutex
	taken map[int]string // id of the machine, by user; guarded by mu
}

// openUsers reads the users of the machines in dir.
func openUsers(dir string) (*users, error) {
	if os.Geteuid() != 0 {
		return &users{}, nil
	}
	u := &users{dir: dir, taken: map[int]string{}}
	machines, err := os.ReadDir(dir)
	if err != nil && !missing(err) {
		return nil, fmt.Errorf("reading the users of machines: %w", err)
	}
	for _, m := range machines {
		if !OwnsMachine(filepath.Join(dir, m.Name())) {
			continue
		}
		user, err := readUser(filepath.Join(dir, m.Name()))
		if missing(err) { // a machine of an earlier version
			user, err = firstUserOf(m.Name()), nil
		}
		if err != nil {
			return nil, err
		}
		u.taken[user] = m.Name()
	}
	return u, nil
}

// firstUserOf returns the user that a machine gets unless another one has it. In
// earlier versions, every machine had it.
func firstUserOf(id string) int {
	sum := sha256.Sum256([]byte(id))
	return firstUser + int(sum[0])<<16 + int(sum[1])<<8 + int(sum[2])
}

// of returns the machine's user, or 0 if it is the daemon's. It writes a new one
// into m.Dir, which must exist.
func (u *users) of(m vm.Machine) (int, error) {
	if u.dir == "" {
		return 0, nil
	}
	user, err := readUser(m.Dir)
	if !missing(err) {
		return user, err
	}
	user = u.allocate(m.ID)
	if err := vm.WriteFile(filepath.Join(m.Dir, userFile), fmt.Appendln(nil, user)); err != nil {
		return 0, disk.FullError(err)
	}
	return user, nil
}

func (u *users) allocate(id string) int {
	u.mu.Lock()
	defer u.mu.Unlock()
	user := firstUserOf(id)
	for u.taken[user] != "" && u.taken[user] != id {
		user = firstUser + (user-firstUser+1)%userCount
	}
	u.taken[user] = id
	return user
}

// find returns the machine's user, or 0 if it has none. It works without m.Dir too.
func (u *users) find(m vm.Machine) int {
	if user, err := readUser(m.Dir); err == nil && u.dir != "" {
		return user
	}
	return u.known(m.ID)
}

func (u *users) known(id string) int {
	u.mu.Lock()
	defer u.mu.Unlock()
	for user, owner := range u.taken {
		if owner == id {
			return user
		}
	}
	return 0
}

// kill kills what is left of the machine's user.
func (u *users) kill(ctx context.Context, m vm.Machine) error {
	if user := u.find(m); user != 0 {
		return process.KillUser(ctx, user)
	}
	return nil
}

// free makes the machine's user available. No process of that user may be left.
func (u *users) free(id string) {
	user := u.known(id)
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.taken, user)
}

// readUser reads the user of the machine in dir. If none is written down, the
// error is [os.ErrNotExist].
func readUser(dir string) (int, error) {
	text, err := os.ReadFile(filepath.Join(dir, userFile))
	if err != nil {
		return 0, err
	}
	user, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err == nil && (user < firstUser || user >= firstUser+userCount) {
		err = errors.New("the number is not a machine's")
	}
	if err != nil {
		return 0, fmt.Errorf("reading %s: %w", filepath.Join(dir, userFile), err)
	}
	return user, nil
}
