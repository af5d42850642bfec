/* Snapshots, clones and deletion. The snapshots of X.vmx are listed in X.vmsd. */
#include "double.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

static void list_file(const char *path, char *file)
{
	snprintf(file, PATH_SIZE, "%.*ssd", (int)strlen(path) - 1, path);
}

int snapshots_count(const char *path)
{
	char file[PATH_SIZE];

	list_file(path, file);
	return vmx_number(file, "snapshot.numSnapshots", 0);
}

/* Returns the number of snapshots with this name. */
int snapshot_named(const char *path, const char *name)
{
	char file[PATH_SIZE], key[64], value[PATH_SIZE];
	int found = 0;

	list_file(path, file);
	for (int i = 0; i < snapshots_count(path); i++) {
		snprintf(key, sizeof key, "snapshot%d.displayName", i);
		if (vmx_get(file, key, value, sizeof value) && strcmp(value, name) == 0)
			found++;
	}
	return found;
}

static int is_disk(const char *key, const char *value)
{
	size_t k = strlen(key), n = strlen(value);
	return k > 9 && strcasecmp(key + k - 9, ".fileName") == 0 && n > 5 && strcasecmp(value + n - 5, ".vmdk") == 0;
}

struct growth {
	const char *dir;    /* folder of the disks */
	const char *to;     /* folder of their children */
	const char *prefix; /* of the children's names */
	int number, disks, failed;
};

/* Replaces a disk with a child of it. */
static int grow(const char *key, char *value, void *data)
{
	struct growth *g = data;
	char parent[PATH_SIZE], child[PATH_SIZE], name[PATH_SIZE], text[PATH_SIZE + 256];

	if (!is_disk(key, value))
		return 1;
	path_join(parent, g->dir, value);
	if (!file_exists(parent)) {
		g->failed = E_FILE_NOT_FOUND;
		return 1;
	}
	if (control_has("readonly")) {
		struct stat st;
		if (stat(parent, &st) != 0 || (st.st_mode & S_IWUSR) == 0)
			g->failed = E_FILE_ACCESS;
	}
	snprintf(name, sizeof name, "%.200s-%d-%06d.vmdk", g->prefix, g->disks++, g->number);
	path_join(child, g->to, name);
	snprintf(text, sizeof text, "# Disk DescriptorFile\nversion=1\nparentFileNameHint=\"%s\"\n", parent);
	if (file_write(child, text) != 0)
		g->failed = E_FILE_ACCESS;
	snprintf(value, PATH_SIZE, "%s", name);
	return 1;
}

static int keep(const char *key, char *value, void *data)
{
	(void)value, (void)data;
	return strcasecmp(key, "snapshot.numSnapshots") != 0;
}

int snapshot_add(const char *path, const char *name)
{
	char dir[PATH_SIZE], file[PATH_SIZE], more[1024];
	struct growth g = {dir, dir, "snapshot", snapshots_count(path) + 1, 0, 0};

	path_dir(path, dir);
	if (vmx_rewrite(path, path, grow, &g, "") != 0)
		return E_FILE_ACCESS;
	if (g.failed != 0)
		return g.failed;
	list_file(path, file);
	snprintf(more, sizeof more, "snapshot%d.uid = \"%d\"\nsnapshot%d.displayName = \"%.200s\"\nsnapshot.numSnapshots = \"%d\"\n",
		g.number - 1, g.number, g.number - 1, name, g.number);
	if (!file_exists(file))
		return file_write(file, more) == 0 ? 0 : E_FILE_ACCESS;
	return vmx_rewrite(file, file, keep, NULL, more) == 0 ? 0 : E_FILE_ACCESS;
}

static struct object *snapshot_object(const char *path, const char *name, struct object *host)
{
	struct object *o = object_new(SNAPSHOT);

	o->host = host;
	snprintf(o->path, sizeof o->path, "%s", path);
	snprintf(o->name, sizeof o->name, "%.200s", name);
	return o;
}

static int create_snapshot(struct work *w)
{
	int code;

	if (lock_held(w->path))
		return E_LOCKED;
	code = snapshot_add(w->path, w->text);
	if (code != 0)
		return code;
	pthread_mutex_lock(&big_lock);
	job_result(w, snapshot_object(w->path, w->text, w->vm->host));
	pthread_mutex_unlock(&big_lock);
	return 0;
}

EXPORT VixHandle VixVM_CreateSnapshot(VixHandle vm, const char *name, const char *description,
		VixCreateSnapshotOptions options, VixHandle list, VixEventProc *callback, void *data)
{
	struct work w = {.run = create_snapshot, .callback = callback, .data = data};

	(void)description, (void)options, (void)list;
	snprintf(w.text, sizeof w.text, "%s", name == NULL ? "" : name);
	return job_start("VixVM_CreateSnapshot", vm, NULL, w);
}

/* Sets path to that of an open machine, or returns the error of an invalid handle. */
static VixError vm_path(VixHandle vm, char *path)
{
	VixError err;

	pthread_mutex_lock(&big_lock);
	struct object *o = object_find(vm, VM, &err);
	if (o != NULL)
		memcpy(path, o->path, PATH_SIZE);
	pthread_mutex_unlock(&big_lock);
	return err;
}

EXPORT VixError VixVM_GetNamedSnapshot(VixHandle vm, const char *name, VixHandle *snapshot)
{
	char path[PATH_SIZE];
	VixError err = vm_path(vm, path);
	int n;

	if (err == VIX_OK)
		err = make_error(sync_call("VixVM_GetNamedSnapshot", path));
	if (err != VIX_OK)
		return err;
	n = snapshot_named(path, name);
	if (n != 1)
		return make_error(n == 0 ? E_SNAPSHOT_NOTFOUND : E_SNAPSHOT_DUPLICATE);
	pthread_mutex_lock(&big_lock);
	struct object *o = object_find(vm, VM, &err);
	if (o != NULL)
		*snapshot = snapshot_object(path, name, o->host)->handle;
	pthread_mutex_unlock(&big_lock);
	return err;
}

EXPORT VixError VixVM_GetNumRootSnapshots(VixHandle vm, int *result)
{
	char path[PATH_SIZE];
	VixError err = vm_path(vm, path);

	if (err == VIX_OK)
		*result = snapshots_count(path) > 0; /* each one is a child of the previous one */
	return err;
}

EXPORT VixError VixVM_GetRootSnapshot(VixHandle vm, int index, VixHandle *snapshot)
{
	(void)vm, (void)index, (void)snapshot;
	return make_error(E_NOT_SUPPORTED);
}

EXPORT VixError VixVM_GetCurrentSnapshot(VixHandle vm, VixHandle *snapshot)
{
	(void)vm, (void)snapshot;
	return make_error(E_NOT_SUPPORTED);
}

static int folder_empty(const char *dir)
{
	struct dirent *e;
	int empty = 1;
	DIR *d = opendir(dir);

	if (d == NULL)
		return 1;
	while ((e = readdir(d)) != NULL)
		empty = empty && e->d_name[0] == '.';
	closedir(d);
	return empty;
}

/* Makes a clone. The caller holds the parent's lock. */
static int clone_locked(struct work *w)
{
	char dir[PATH_SIZE], to[PATH_SIZE];
	struct growth g = {dir, to, "clone", 1, 0, 0};
	long since;
	int code;

	if (state_power(w->path, &since) != OFF)
		return E_RUNNING;
	path_dir(w->path, dir);
	path_dir(w->text, to);
	if (!folder_empty(to))
		return E_SNAPSHOT_EXISTS;
	if (mkdir(to, 0755) != 0 && errno != EEXIST)
		return E_FILE_ACCESS;
	if (w->number == VIX_CLONETYPE_LINKED && w->handle == 0) {
		code = snapshot_add(w->path, "clone");
		if (code != 0)
			return code;
	}
	if (vmx_rewrite(w->path, w->text, grow, &g, "") != 0)
		return E_FILE_ACCESS;
	if (g.failed != 0)
		return g.failed;
	pthread_mutex_lock(&big_lock);
	job_result(w, object_vm(w->text, w->vm->host));
	pthread_mutex_unlock(&big_lock);
	return 0;
}

static int clone_vm(struct work *w)
{
	int code;

	if (lock_held(w->path))
		return E_LOCKED;
	if (lock_acquire(w->path, (int)getpid()) != 0)
		return E_FILE_ACCESS;
	control_delay("VixVM_Clone.inside", w->path);
	code = clone_locked(w);
	lock_release(w->path);
	return code;
}

EXPORT VixHandle VixVM_Clone(VixHandle vm, VixHandle snapshot, VixCloneType type, const char *to,
		int options, VixHandle list, VixEventProc *callback, void *data)
{
	struct work w = {.run = clone_vm, .number = type, .handle = snapshot, .callback = callback, .data = data};
	VixError err;

	(void)options, (void)list;
	snprintf(w.text, sizeof w.text, "%s", to);
	pthread_mutex_lock(&big_lock);
	if (snapshot != 0 && object_find(snapshot, SNAPSHOT, &err) == NULL)
		vm = snapshot; /* the job fails with the same error */
	pthread_mutex_unlock(&big_lock);
	return job_start("VixVM_Clone", vm, NULL, w);
}

static int delete_disk(const char *key, char *value, void *data)
{
	char disk[PATH_SIZE];

	if (is_disk(key, value) && !path_is_absolute(value)) {
		path_join(disk, data, value);
		unlink(disk);
	}
	return 1;
}

static int delete_vm(struct work *w)
{
	char dir[PATH_SIZE], file[PATH_SIZE], discard[PATH_SIZE];
	long since;

	if (state_power(w->path, &since) == ON)
		return E_RUNNING;
	if (lock_held(w->path) && !control_has("window"))
		return E_LOCKED;
	path_dir(w->path, dir);
	path_join(discard, dir, "deleted.tmp");
	vmx_rewrite(w->path, discard, delete_disk, dir, "");
	unlink(discard);
	list_file(w->path, file);
	unlink(file);
	state_set(w->path, OFF);
	unlink(w->path);
	pthread_mutex_lock(&big_lock);
	w->vm->deleted = 1;
	pthread_mutex_unlock(&big_lock);
	return 0;
}

EXPORT VixHandle VixVM_Delete(VixHandle vm, VixVMDeleteOptions options, VixEventProc *callback, void *data)
{
	struct work w = {.run = delete_vm, .callback = callback, .data = data};

	if (options != VIX_VMDELETE_DISK_FILES) {
		pthread_mutex_lock(&big_lock);
		count("bad_delete", 1);
		pthread_mutex_unlock(&big_lock);
	}
	return job_start("VixVM_Delete", vm, NULL, w);
}
