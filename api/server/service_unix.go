//go:build !windows

package server

import (
	"context"
	"os"
)

// runService calls serve: the service managers of Unix send signals.
func runService(ctx context.Context, hangup chan os.Signal, serve func(context.Context, <-chan os.Signal) error) error {
	return serve(ctx, hangup)
}
