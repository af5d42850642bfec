package server

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// stopTimeout is the longest time a daemon may take to stop. What still runs then is cut off as by a crash, from which
// the next start recovers.
const stopTimeout = 9 * time.Second

// Run calls serve and returns its error. The context ends when the process should stop: by Ctrl-C, SIGTERM or a service
// manager. What does not stop in time, or at a second signal, ends with the process. hangup gets a value when files
// should be read again: at SIGHUP, or at the control code paramchange of a Windows service.
func Run(serve func(ctx context.Context, hangup <-chan os.Signal) error) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer context.AfterFunc(ctx, func() { stop(); exitLater() })() // a second signal ends the process at once
	return runService(ctx, hangup, serve)
}

// exitLater ends the process after stopTimeout.
func exitLater() {
	time.Sleep(stopTimeout)
	fmt.Fprintf(os.Stderr, "osx-builder: not stopped within %v; the next start continues the unfinished work\n", stopTimeout)
	os.Exit(1)
}
