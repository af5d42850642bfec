/* A machine's power state and locks, in files beside its .vmx. */
#include "double.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* The size of a claim, and how long VMware waits for a process that takes a lock. */
enum { CLAIM_SIZE = 512, ENTERING_SECONDS = 8 };

static void state_file(const char *path, char *file) { snprintf(file, PATH_SIZE, "%.4000s.power", path); }

enum power state_power(const char *path, long *since)
{
	char file[PATH_SIZE], *data, word[16] = "";
	enum power power = OFF;

	*since = 0;
	state_file(path, file);
	if (file_read(file, &data) != 0)
		return OFF;
	if (sscanf(data, "%15s %ld", word, since) == 2)
		power = strcmp(word, "on") == 0 ? ON : SUSPENDED;
	free(data);
	return power;
}

int state_set(const char *path, enum power power)
{
	char file[PATH_SIZE], text[64];

	state_file(path, file);
	if (power == OFF)
		return unlink(file) == 0 || errno == ENOENT ? 0 : -1;
	snprintf(text, sizeof text, "%s %ld\n", power == ON ? "on" : "suspended", now_ms());
	return file_write(file, text);
}

static int passed(const char *path, const char *name, long default_value)
{
	long since, after = control_number(name, default_value);
	return state_power(path, &since) == ON && after >= 0 && now_ms() >= since + after;
}

int tools_running(const char *path) { return passed(path, "tools.ms", 50); }

int guest_ip(const char *path, char *ip, size_t size)
{
	unsigned char n = 0;

	ip[0] = 0;
	if (!passed(path, "ip.ms", 100) || control_text("ip", ip, size))
		return 0;
	for (const char *p = path; *p != 0; p++)
		n = (unsigned char)(n * 31 + (unsigned char)*p);
	snprintf(ip, size, "192.168.99.%d", 2 + n % 250);
	return 0;
}

/* Returns the start time of a process, as VMware's locks contain it, or 0. */
static unsigned long long process_start(int pid)
{
	char path[64], *data, *rest;
	unsigned long long start = 0;

	snprintf(path, sizeof path, "/proc/%d/stat", pid);
	if (file_read(path, &data) != 0)
		return 0;
	rest = strrchr(data, ')');
	if (rest != NULL)
		sscanf(rest + 1, " %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %llu", &start);
	free(data);
	return start;
}

/*
 * Writes a file of a lock in place, as VMware does: a process that is killed here leaves it empty or short. A claim has
 * 512 bytes.
 */
static int lock_write(const char *file, const char *text, size_t size)
{
	char data[CLAIM_SIZE] = "";
	FILE *f = fopen(file, "we");
	int failed;

	if (f == NULL)
		return -1;
	memcpy(data, text, strlen(text));
	failed = fwrite(data, 1, size, f) != size;
	return fclose(f) != 0 || failed ? -1 : 0;
}

/*
 * A lock is a folder X.lck with a file that names the host and the process. The double runs no process for a machine,
 * so it uses process 1.
 */
int lock_acquire(const char *path, int pid)
{
	char dir[PATH_SIZE + 8], file[PATH_SIZE + 32], text[CLAIM_SIZE];

	snprintf(dir, sizeof dir, "%s.lck", path);
	if (mkdir(dir, 0755) != 0 && errno != EEXIST)
		return -1;
	/* While a process takes a lock, it has this folder and this file in it. */
	snprintf(file, sizeof file, "%s/D00001.lck", dir);
	if (mkdir(file, 0755) != 0 && errno != EEXIST)
		return -1;
	snprintf(file, sizeof file, "%s/E00001.lck", dir);
	if (lock_write(file, "", 0) != 0)
		return -1;
	snprintf(file, sizeof file, "%s/M00001.lck", dir);
	snprintf(text, sizeof text, "uuid=double %d-%llu(vmware-vmx) 1 X [ lc=1", pid, process_start(pid));
	if (lock_write(file, text, CLAIM_SIZE) != 0)
		return -1;
	snprintf(file, sizeof file, "%s/E00001.lck", dir);
	unlink(file);
	snprintf(file, sizeof file, "%s/D00001.lck", dir);
	return rmdir(file);
}

void lock_release(const char *path)
{
	char file[PATH_SIZE + 32];

	snprintf(file, sizeof file, "%s.lck/M00001.lck", path);
	unlink(file);
	snprintf(file, sizeof file, "%s.lck", path);
	rmdir(file);
}

/* Reports whether nothing was written to a file of a lock for as long as VMware waits for a process to take it. */
static int is_old(const char *file)
{
	struct stat st;
	return stat(file, &st) == 0 && time(NULL) - st.st_mtime > ENTERING_SECONDS;
}

/* Reports whether the file is no whole claim, or one of a process of this host that has exited. */
static int is_stale(const char *file)
{
	unsigned long long start;
	struct stat st;
	char data[CLAIM_SIZE + 1] = "";
	FILE *f;
	int pid;

	if (stat(file, &st) != 0 || (f = fopen(file, "re")) == NULL)
		return 0;
	if (st.st_size != CLAIM_SIZE || fread(data, 1, CLAIM_SIZE, f) != CLAIM_SIZE || data[0] == 0) {
		fclose(f);
		return 1;
	}
	fclose(f);
	return sscanf(data, "uuid=double %d-%llu", &pid, &start) == 2 &&
		((kill(pid, 0) != 0 && errno == ESRCH) || (start != 0 && process_start(pid) != start));
}

/*
 * As in VMware, an empty folder is no lock. Files with other names, claims that are not whole, and claims of processes
 * of this host that have exited are removed, and so is what is left of a process that died while it took the lock.
 * While a process takes the lock, claims are not looked at, since one may be half written.
 */
int lock_held(const char *path)
{
	char dir[PATH_SIZE + 8], file[PATH_SIZE + 300];
	struct dirent *e;
	int claims, held = 0;

	snprintf(dir, sizeof dir, "%s.lck", path);
	DIR *d = opendir(dir);
	if (d == NULL)
		return 0;
	for (claims = 0; claims <= 1 && !held; claims++) {
		for (rewinddir(d); (e = readdir(d)) != NULL;) {
			if (e->d_name[0] == '.' || (e->d_name[0] == 'M') != claims)
				continue;
			snprintf(file, sizeof file, "%s/%s", dir, e->d_name);
			if (claims ? is_stale(file) : strchr("DE", e->d_name[0]) == NULL || is_old(file))
				remove(file);
			else
				held = 1;
		}
	}
	closedir(d);
	return held;
}
