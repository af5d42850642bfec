//go:build !windows

package vm

import (
	"fmt"
	"log/slog"
	"os"
)

// holderSuffix is added to the name of the lock for the file that says who holds it: it is the lock itself.
const holderSuffix = ""

// makePrivate gives an existing folder the mode 0700. A folder that contains other things than a daemon's, such as /srv,
// keeps its mode: others may need it.
func makePrivate(path string, log *slog.Logger) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	mode := info.Mode().Perm()
	if mode&0o077 == 0 {
		return nil
	}
	other, err := hasOther(path)
	if err != nil {
		return err
	}
	if other != "" {
		log.Warn("the data folder is open to other users; it keeps its mode because it contains other files: choose another folder with -data, or chmod 700",
			"data", path, "mode", fmt.Sprintf("%#o", mode), "file", other)
		return nil
	}
	if err := os.Chmod(path, 0o700); err != nil {
		log.Warn("the data folder stays open to other users", "data", path, "mode", fmt.Sprintf("%#o", mode), "err", err)
		return nil
	}
	log.Info("the data folder was open to other users; its mode is 0700 now", "data", path, "was", fmt.Sprintf("%#o", mode))
	return nil
}
