//go:build vix && cgo && !windows

/*
 * VMware's library installs signal handlers. Go's runtime needs its own handlers of some signals: without them a nil
 * dereference ends the daemon, and SIGTERM does not stop it. All other handlers must run on the signal stack, because a
 * goroutine's stack is too small.
 */
#include "loader.h"

#include <signal.h>

static const int go_signals[] = {
	SIGSEGV, SIGBUS, SIGFPE, SIGURG, SIGPROF, SIGPIPE, SIGHUP, SIGINT, SIGQUIT, SIGTERM,
};

enum { GO_SIGNALS = sizeof go_signals / sizeof *go_signals };

static struct sigaction saved[GO_SIGNALS];

void osxb_save_signals(void)
{
	for (int i = 0; i < GO_SIGNALS; i++)
		sigaction(go_signals[i], NULL, &saved[i]);
}

static int is_go_signal(int number)
{
	for (int i = 0; i < GO_SIGNALS; i++)
		if (go_signals[i] == number)
			return 1;
	return 0;
}

void osxb_repair_signals(void)
{
	struct sigaction now;

	for (int i = 0; i < GO_SIGNALS; i++)
		sigaction(go_signals[i], &saved[i], NULL);
	for (int number = 1; number < NSIG; number++) {
		if (is_go_signal(number) || sigaction(number, NULL, &now) != 0)
			continue;
		if (now.sa_handler == SIG_DFL || now.sa_handler == SIG_IGN || (now.sa_flags & SA_ONSTACK))
			continue;
		now.sa_flags |= SA_ONSTACK;
		sigaction(number, &now, NULL);
	}
}
