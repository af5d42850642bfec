/* Reads and writes small files. */
#include "double.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

long now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

int file_exists(const char *path)
{
	struct stat st;
	return stat(path, &st) == 0;
}

/* Reads at most 1 MiB. Returns 0 and data, which the caller frees. */
int file_read(const char *path, char **data)
{
	enum { MOST = 1 << 20 };
	FILE *f = fopen(path, "re");
	size_t n;

	if (f == NULL)
		return -1;
	*data = malloc(MOST + 1);
	n = fread(*data, 1, MOST, f);
	(*data)[n] = 0;
	fclose(f);
	if (memchr(*data, 0, n) == NULL)
		return 0;
	free(*data);
	return -1;
}

int file_write(const char *path, const char *data)
{
	char temporary[PATH_SIZE + 8];
	FILE *f;
	int failed;

	snprintf(temporary, sizeof temporary, "%s.tmp", path);
	f = fopen(temporary, "we");
	if (f == NULL)
		return -1;
	failed = fputs(data, f) < 0;
	failed = fclose(f) != 0 || failed;
	return failed || rename(temporary, path) != 0 ? -1 : 0;
}

void path_dir(const char *path, char *dir)
{
	char *slash;

	snprintf(dir, PATH_SIZE, "%s", path);
	slash = strrchr(dir, '/');
#ifdef _WIN32
	if (strrchr(dir, '\\') > slash)
		slash = strrchr(dir, '\\');
#endif
	if (slash != NULL)
		*slash = 0;
}

int path_is_absolute(const char *path)
{
#ifdef _WIN32
	if (path[0] == '\\' || (path[0] != 0 && path[1] == ':'))
		return 1;
#endif
	return path[0] == '/';
}

void path_join(char *out, const char *dir, const char *name)
{
	if (path_is_absolute(name))
		snprintf(out, PATH_SIZE, "%s", name);
	else
		snprintf(out, PATH_SIZE, "%.3000s/%.1000s", dir, name);
}
