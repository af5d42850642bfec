/* Handles, references and counters. The number of a handle contains its type, and is never reused. */
#include "double.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

pthread_mutex_t big_lock = PTHREAD_MUTEX_INITIALIZER;

static struct object *objects;
static VixHandle last_handle = 100;

enum { TYPE_SHIFT = 24 };

static struct counter { const char *name; int n; } counters[] = {
	{"host", 0}, {"vm", 0}, {"job", 0}, {"snapshot", 0}, {"proplist", 0},
	{"dead_release", 0}, {"dead_call", 0}, {"jobs", 0}, {"calls", 0}, {"endless", 0}, {"bad_delete", 0}, {"orphan", 0}, {"busy", 0},
};

VixError make_error(int code)
{
	return code == VIX_OK ? VIX_OK : (0xDEADBEEFull << 32) | (VixError)code;
}

void count(const char *name, int by)
{
	for (size_t i = 0; i < sizeof counters / sizeof *counters; i++)
		if (strcmp(counters[i].name, name) == 0)
			counters[i].n += by;
	stats_write();
}

void stats_write(void)
{
	static int fd = -1;
	static char opened[PATH_SIZE];
	char path[PATH_SIZE], text[512] = "";
	size_t n = 0;

	if (control_dir() == NULL)
		return;
	path_join(path, control_dir(), "stats");
	if (strcmp(path, opened) != 0) {
		if (fd >= 0)
			close(fd);
		fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0644);
		snprintf(opened, sizeof opened, "%s", path);
	}
	for (size_t i = 0; i < sizeof counters / sizeof *counters; i++)
		n += (size_t)snprintf(text + n, sizeof text - n, "%s %d\n", counters[i].name, counters[i].n);
	memset(text + n, '\n', sizeof text - n);
	if (fd < 0 || pwrite(fd, text, sizeof text, 0) < 0)
		return;
}

static const char *const kinds[KINDS] = {"host", "vm", "job", "snapshot", "proplist"};

struct object *object_new(enum kind kind)
{
	struct object *o = calloc(1, sizeof *o);

	o->handle = (VixHandle)(kind + 1) << TYPE_SHIFT | ++last_handle;
	o->kind = kind;
	o->refs = 1;
	o->next = objects;
	objects = o;
	count(kinds[kind], 1);
	return o;
}

static struct object *find(VixHandle handle)
{
	for (struct object *o = objects; o != NULL; o = o->next)
		if (o->handle == handle)
			return o;
	return NULL;
}

struct object *object_find(VixHandle handle, enum kind kind, VixError *err)
{
	struct object *o = find(handle);

	if (o == NULL) {
		if (handle != 0)
			count("dead_call", 1);
		*err = make_error(E_INVALID_HANDLE);
		return NULL;
	}
	control_lost();
	if (kind != KINDS && o->kind != kind) {
		*err = make_error(E_WRONG_HANDLE);
		return NULL;
	}
	struct object *host = o->kind == HOST ? o : o->host;
	if (host != NULL && host->lost != 0) {
		*err = make_error(host->lost);
		return NULL;
	}
	*err = VIX_OK;
	return o;
}

/* The connections of all hosts are lost. */
void hosts_lose(int code)
{
	for (struct object *o = objects; o != NULL; o = o->next)
		if (o->kind == HOST)
			o->lost = code;
}

/* Returns an open machine with another reference, or a new one. */
struct object *object_vm(const char *path, struct object *host)
{
	struct object *o;

	for (o = objects; o != NULL; o = o->next) {
		if (o->kind == VM && !o->deleted && o->host == host && strcmp(o->path, path) == 0) {
			object_ref(o);
			return o;
		}
	}
	o = object_new(VM);
	o->host = host;
	snprintf(o->path, sizeof o->path, "%s", path);
	return o;
}

void object_ref(struct object *o) { o->refs++; }

void object_unref(struct object *o)
{
	struct object **p = &objects;

	if (--o->refs > 0)
		return;
	while (*p != o)
		p = &(*p)->next;
	*p = o->next;
	count(kinds[o->kind], -1);
	for (struct object *of = objects; o->kind == HOST && of != NULL; of = of->next) {
		if (of->host == o) {
			of->host = NULL;
			count("orphan", 1);
		}
	}
	if (o->kind == JOB && o->result != 0) {
		struct object *r = find(o->result);
		if (r != NULL)
			object_unref(r);
	}
	free(o->text);
	free(o);
}

struct object *object_next(struct object *o) { return o == NULL ? objects : o->next; }

EXPORT void Vix_ReleaseHandle(VixHandle handle)
{
	if (handle == 0)
		return;
	pthread_mutex_lock(&big_lock);
	struct object *o = find(handle);
	if (o == NULL)
		count("dead_release", 1);
	else
		object_unref(o);
	pthread_mutex_unlock(&big_lock);
}

EXPORT void Vix_FreeBuffer(void *p) { free(p); }

/* Everything that came from a host becomes invalid when it is disconnected. */
EXPORT void VixHost_Disconnect(VixHandle handle)
{
	VixError err;

	control_delay("VixHost_Disconnect", NULL);
	pthread_mutex_lock(&big_lock);
	struct object *host = object_find(handle, HOST, &err);
	if (host == NULL)
		host = find(handle); /* a lost connection can be ended too */
	if (host != NULL && host->kind == HOST)
		object_unref(host);
	pthread_mutex_unlock(&big_lock);
}
