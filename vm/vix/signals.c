//go:build vix && cgo && !windows

/*
 * VMware's library installs handlers of signals. Go's runtime needs some of its
 * own, without which a fault ends the daemon and SIGTERM does not stop it, and
 * needs all others to run on the signal stack: a goroutine's is too small.
 */
#include "loader.h"

#include <signal.h>

static const int needed[] = {
	SIGSEGV, SIGBUS, SIGFPE, SIGURG, SIGPROF, SIGPIPE, SIGHUP, SIGINT, SIGQUIT, SIGTERM,
};

enum { NEEDED = sizeof needed / sizeof *needed };

static struct sigaction ours[NEEDED];

void osxb_keep_signals(void)
{
	for (int i = 0; i < NEEDED; i++)
		sigaction(needed[i], NULL, &ours[i]);
}

static int is_needed(int number)
{
	for (int i = 0; i < NEEDED; i++)
		if (needed[i] == number)
			return 1;
	return 0;
}

void osxb_mend_signals(void)
{
	struct sigaction now;

	for (int i = 0; i < NEEDED; i++)
		sigaction(needed[i], &ours[i], NULL);
	for (int number = 1; number < NSIG; number++) {
		if (is_needed(number) || sigaction(number, NULL, &now) != 0)
			continue;
		if (now.sa_handler == SIG_DFL || now.sa_handler == SIG_IGN || (now.sa_flags & SA_ONSTACK))
			continue;
		now.sa_flags |= SA_ONSTACK;
		sigaction(number, &now, NULL);
	}
}
