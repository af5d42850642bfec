/* Reads .vmx files, and writes them without changing other lines. */
#define _GNU_SOURCE /* strcasestr */
#include "double.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

/* Splits a line into a key and a value without quotes. */
static int split(const char *line, char *key, char *value)
{
	const char *equals = strchr(line, '=');
	const char *v;
	size_t n;

	if (line[0] == '#' || equals == NULL || equals - line > 255)
		return 0;
	if (sscanf(line, " %255[^= \t]", key) != 1)
		return 0;
	v = equals + 1 + strspn(equals + 1, " \t");
	n = strlen(v);
	while (n > 0 && strchr(" \t\r", v[n - 1]) != NULL)
		n--;
	if (n >= 2 && v[0] == '"' && v[n - 1] == '"')
		v++, n -= 2;
	snprintf(value, PATH_SIZE, "%.*s", (int)n, v);
	return 1;
}

/* Like VMware, it refuses a file with a line that is no setting, or with a duplicate key. */
static int well_formed(char *data)
{
	char *line, *next, *keys = calloc(strlen(data) + 2, 1), k[256], v[PATH_SIZE], entry[260];
	int good = 1;

	strcpy(keys, "\n");
	for (line = data; line != NULL && good; line = next) {
		next = strchr(line, '\n');
		if (next != NULL)
			*next++ = 0;
		line += strspn(line, " \t\r");
		if (line[0] == 0 || line[0] == '#')
			continue;
		good = split(line, k, v);
		snprintf(entry, sizeof entry, "\n%s\n", k);
		good = good && strcasestr(keys, entry) == NULL;
		strcat(keys, entry + 1);
	}
	free(keys);
	return good;
}

/* Returns 0, or the VIX code with which VMware refuses to open the file. */
int vmx_check(const char *path)
{
	char *data, value[PATH_SIZE];
	int good;

	if (!file_exists(path))
		return E_VM_NOT_FOUND;
	if (file_read(path, &data) != 0)
		return E_CANNOT_READ;
	good = well_formed(data);
	free(data);
	if (!good)
		return E_CANNOT_READ;
	if (!vmx_get(path, "guestOS", value, sizeof value))
		return E_CANNOT_READ;
	if (vmx_get(path, "encryption.keySafe", value, sizeof value))
		return E_NEED_PASSWORD;
	return 0;
}

int vmx_get(const char *path, const char *key, char *value, size_t size)
{
	char *data, *line, *next, k[256], v[PATH_SIZE];
	int found = 0;

	if (file_read(path, &data) != 0)
		return 0;
	for (line = data; line != NULL; line = next) {
		next = strchr(line, '\n');
		if (next != NULL)
			*next++ = 0;
		if (split(line, k, v) && strcasecmp(k, key) == 0) {
			snprintf(value, size, "%s", v);
			found = 1;
		}
	}
	free(data);
	return found;
}

int vmx_number(const char *path, const char *key, int default_value)
{
	char value[PATH_SIZE];
	return vmx_get(path, key, value, sizeof value) ? atoi(value) : default_value;
}

/*
 * Writes the file again: edit may change each value, or remove the line by returning 0. Like VMware, it writes an escaped
 * equals sign as a plain one.
 */
int vmx_rewrite(const char *path, const char *to, int (*edit)(const char *, char *, void *), void *data, const char *more)
{
	char *old, *line, *next, k[256], v[PATH_SIZE], *escape, *out;
	size_t n = 0, size;
	int result;

	if (file_read(path, &old) != 0)
		return -1;
	size = strlen(old) + strlen(more) + (1 << 16);
	out = malloc(size);
	out[0] = 0;
	for (line = old; line != NULL; line = next) {
		next = strchr(line, '\n');
		if (next != NULL)
			*next++ = 0;
		if (!split(line, k, v)) {
			if (line[0] != 0)
				n += (size_t)snprintf(out + n, size - n, "%s\n", line);
			continue;
		}
		if (!edit(k, v, data))
			continue;
		while ((escape = strstr(v, "|3D")) != NULL) {
			*escape = '=';
			memmove(escape + 1, escape + 3, strlen(escape + 3) + 1);
		}
		n += (size_t)snprintf(out + n, size - n, "%s = \"%s\"\n", k, v);
	}
	snprintf(out + n, size - n, "%s", more);
	result = file_write(to, out);
	free(old);
	free(out);
	return result;
}
