/* Reads the control folder. */
#include "double.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char folder[PATH_SIZE];

void control_open(void)
{
	const char *dir = getenv("OSXB_VIX_DOUBLE");

	pthread_mutex_lock(&lock);
	snprintf(folder, sizeof folder, "%s", dir == NULL ? "" : dir);
	pthread_mutex_unlock(&lock);
}

const char *control_dir(void) { return folder[0] == 0 ? NULL : folder; }

int control_text(const char *name, char *text, size_t size)
{
	char path[PATH_SIZE], *data;

	if (control_dir() == NULL)
		return 0;
	path_join(path, control_dir(), name);
	if (file_read(path, &data) != 0)
		return 0;
	data[strcspn(data, "\n")] = 0;
	snprintf(text, size, "%s", data);
	free(data);
	return 1;
}

int control_has(const char *name)
{
	char text[8];
	return control_text(name, text, sizeof text);
}

long control_number(const char *name, long default_value)
{
	char text[64];
	return control_text(name, text, sizeof text) ? strtol(text, NULL, 0) : default_value;
}

/* Reports whether this call is one of the given percentage of calls, which are chosen at random. */
static int chosen(const char *name)
{
	static unsigned int seed = 1;
	long percent = control_number(name, 0);
	int n;

	if (percent <= 0)
		return 0;
	pthread_mutex_lock(&lock);
	n = rand_r(&seed) % 100;
	pthread_mutex_unlock(&lock);
	return n < percent;
}

/* Returns the code with which a call of the function fails now, or 0. */
int control_error(const char *function, const char *path)
{
	char name[128], text[512], part[PATH_SIZE] = "", file[PATH_SIZE];
	int code = 0, times = -1;

	if (chosen("busy.percent")) {
		pthread_mutex_lock(&big_lock);
		count("busy", 1);
		pthread_mutex_unlock(&big_lock);
		return E_BUSY;
	}
	snprintf(name, sizeof name, "error.%s", function);
	pthread_mutex_lock(&lock);
	if (control_text(name, text, sizeof text)) {
		if (sscanf(text, "%d %d %400s", &code, &times, part) < 1 || times == 0 ||
		    strstr(path == NULL ? "" : path, part) == NULL)
			code = 0;
		if (code != 0 && times > 0) {
			path_join(file, control_dir(), name);
			snprintf(text, sizeof text, "%d %d %.400s", code, times - 1, part);
			file_write(file, text);
		}
	}
	pthread_mutex_unlock(&lock);
	return code;
}

static int hangs(const char *function, const char *path)
{
	char name[128], part[PATH_SIZE];

	snprintf(name, sizeof name, "hang.%s", function);
	return control_text(name, part, sizeof part) && strstr(path == NULL ? "" : path, part) != NULL;
}

/*
 * Reports whether this function installs signal handlers: the first call of the one that the file "signals" names, as a
 * library does when it loads one of its parts. A driver that calls the function in the background would otherwise have
 * the library's handlers again at any moment.
 */
int control_signals(const char *function)
{
	static atomic_int installed;
	char text[128];

	if (!control_text("signals", text, sizeof text))
		return 0;
	return strcmp(text[0] == 0 ? "VixHost_Connect" : text, function) == 0 && atomic_exchange(&installed, 1) == 0;
}

/* Loses all connections when the file "lost" appears, with the code that it contains. It is called with big_lock held. */
void control_lost(void)
{
	static int there;
	long code = control_number("lost", 0);

	if (code != 0 && !there)
		hosts_lose((int)code);
	there = code != 0;
}

static void random_delay(void)
{
	static unsigned int seed = 2;
	long ms = control_number("random.ms", 0);
	struct timespec t = {0, 0};

	if (ms <= 0)
		return;
	pthread_mutex_lock(&lock);
	t.tv_nsec = rand_r(&seed) % ms * 1000000;
	pthread_mutex_unlock(&lock);
	nanosleep(&t, NULL);
}

/* Waits as long as the control folder says, possibly for ever. */
void control_delay(const char *function, const char *path)
{
	char name[128];
	struct timespec tick = {0, 20 * 1000 * 1000};
	long ms;

	random_delay();
	snprintf(name, sizeof name, "delay.%s", function);
	ms = control_number(name, 0);
	if (ms > 0) {
		struct timespec t = {ms / 1000, ms % 1000 * 1000000};
		nanosleep(&t, NULL);
	}
	if (!hangs(function, path))
		return;
	pthread_mutex_lock(&big_lock);
	count("calls", 1);
	pthread_mutex_unlock(&big_lock);
	while (hangs(function, path))
		nanosleep(&tick, NULL);
	pthread_mutex_lock(&big_lock);
	count("calls", -1);
	pthread_mutex_unlock(&big_lock);
}
