/* Hosts: connects, opens machines and finds them. */
#include "double.h"

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifdef _WIN32
void install_signal_handlers(void)
{
}
#else
static void on_signal(int number)
{
	(void)number;
	_exit(86);
}

/* Like a library that was not written for a Go process. */
void install_signal_handlers(void)
{
	struct sigaction action = {.sa_handler = on_signal};
	/* Not SIGURG: Go sends it at any time, so also before the driver can repair the handlers. */
	static const int numbers[] = {SIGSEGV, SIGBUS, SIGTERM, SIGUSR2};

	for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
		sigaction(numbers[i], &action, NULL);
}
#endif

static int connect_host(struct work *w)
{
	long needed = control_number("connect.options", 0);

	if ((w->number & needed) != needed)
		return E_LICENSE;
	pthread_mutex_lock(&big_lock);
	job_result(w, object_new(HOST));
	pthread_mutex_unlock(&big_lock);
	return 0;
}

EXPORT VixHandle VixHost_Connect(int version, VixServiceProvider type, const char *host, int port,
		const char *user, const char *password, VixHostOptions options, VixHandle list,
		VixEventProc *callback, void *data)
{
	struct work w = {.run = connect_host, .number = options, .callback = callback, .data = data};

	(void)version, (void)type, (void)host, (void)port, (void)user, (void)password, (void)list;
	control_open();
	return job_start("VixHost_Connect", 0, NULL, w);
}

static int open_vm(struct work *w)
{
	char real[PATH_SIZE];
	int code = vmx_check(w->path);

	if (code != 0)
		return code;
	/* A machine has the same handle under all of its paths. */
	if (realpath(w->path, real) == NULL)
		return E_VM_NOT_FOUND;
	pthread_mutex_lock(&big_lock);
	job_result(w, object_vm(real, w->host));
	pthread_mutex_unlock(&big_lock);
	return 0;
}

EXPORT VixHandle VixHost_OpenVM(VixHandle host, const char *path, VixVMOpenOptions options,
		VixHandle list, VixEventProc *callback, void *data)
{
	struct work w = {.run = open_vm, .callback = callback, .data = data};
	VixError err;

	(void)options, (void)list;
	pthread_mutex_lock(&big_lock);
	w.host = object_find(host, HOST, &err);
	if (w.host != NULL)
		object_ref(w.host);
	else
		w.failed = err;
	pthread_mutex_unlock(&big_lock);
	return job_start("VixHost_OpenVM", 0, path, w);
}

/* Reports the open machines that run, from the thread of this job. */
static int find_items(struct work *w)
{
	char paths[64][PATH_SIZE];
	int n = 0;
	long since;

	if (w->number != VIX_FIND_RUNNING_VMS)
		return E_NOT_SUPPORTED;
	pthread_mutex_lock(&big_lock);
	for (struct object *o = object_next(NULL); o != NULL && n < 64; o = o->next)
		if (o->kind == VM && state_power(o->path, &since) == ON)
			memcpy(paths[n++], o->path, PATH_SIZE);
	pthread_mutex_unlock(&big_lock);
	for (int i = 0; i < n && w->callback != NULL; i++) {
		pthread_mutex_lock(&big_lock);
		struct object *list = object_new(PROPLIST);
		memcpy(list->path, paths[i], PATH_SIZE);
		pthread_mutex_unlock(&big_lock);
		w->callback(w->job->handle, VIX_EVENTTYPE_FIND_ITEM, list->handle, w->data);
		Vix_ReleaseHandle(list->handle);
	}
	return 0;
}

EXPORT VixHandle VixHost_FindItems(VixHandle host, VixFindItemType type, VixHandle criteria,
		int32 timeout, VixEventProc *callback, void *data)
{
	struct work w = {.run = find_items, .number = type, .callback = callback, .data = data};

	(void)host, (void)criteria, (void)timeout;
	return job_start("VixHost_FindItems", 0, NULL, w);
}

EXPORT VixHandle VixHost_RegisterVM(VixHandle host, const char *path, VixEventProc *callback, void *data)
{
	struct work w = {.callback = callback, .data = data};

	(void)host;
	return job_start("VixHost_RegisterVM", 0, path, w);
}

EXPORT VixHandle VixHost_UnregisterVM(VixHandle host, const char *path, VixEventProc *callback, void *data)
{
	struct work w = {.callback = callback, .data = data};

	(void)host;
	return job_start("VixHost_UnregisterVM", 0, path, w);
}

EXPORT VixError VixPropertyList_AllocPropertyList(VixHandle host, VixHandle *list, int first, ...)
{
	(void)host, (void)first;
	pthread_mutex_lock(&big_lock);
	*list = object_new(PROPLIST)->handle;
	pthread_mutex_unlock(&big_lock);
	return VIX_OK;
}
