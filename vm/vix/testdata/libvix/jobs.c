/* Jobs. Each has a thread. */
#include "double.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

pthread_cond_t job_done = PTHREAD_COND_INITIALIZER;

static void *run(void *data)
{
	struct work *w = data;
	int code;

	control_delay(w->function, w->path);
	code = control_error(w->function, w->path);
	if (code == 0 && w->run != NULL)
		code = w->run(w);
	if (control_signals(w->function))
		install_signal_handlers();
	if (w->callback != NULL)
		w->callback(w->job->handle, VIX_EVENTTYPE_JOB_COMPLETED, VIX_INVALID_HANDLE, w->data);
	pthread_mutex_lock(&big_lock);
	w->job->error = make_error(code);
	w->job->done = 1;
	pthread_cond_broadcast(&job_done);
	object_unref(w->job);
	if (w->vm != NULL)
		object_unref(w->vm);
	if (w->host != NULL)
		object_unref(w->host);
	pthread_mutex_unlock(&big_lock);
	free(w);
	return NULL;
}

/*
 * Starts a job. function is the name for errors and delays. vm is the machine's handle; if it is 0, path is the .vmx or
 * NULL.
 */
VixHandle job_start(const char *function, VixHandle vm, const char *path, struct work w)
{
	struct work *copy = malloc(sizeof *copy);
	pthread_attr_t detached;
	pthread_t thread;
	VixError err = w.failed;
	VixHandle handle;

	*copy = w;
	copy->function = function;
	snprintf(copy->path, sizeof copy->path, "%s", path == NULL ? "" : path);
	pthread_mutex_lock(&big_lock);
	copy->job = object_new(JOB);
	handle = copy->job->handle;
	count("jobs", 1);
	if (vm != 0) {
		copy->vm = object_find(vm, VM, &err);
		if (copy->vm != NULL && copy->vm->deleted)
			err = make_error(E_VM_NOT_FOUND), copy->vm = NULL;
		if (copy->vm != NULL) {
			object_ref(copy->vm);
			memcpy(copy->path, copy->vm->path, sizeof copy->path);
		}
	}
	if (err != VIX_OK) {
		copy->job->error = err;
		copy->job->done = 1;
		pthread_mutex_unlock(&big_lock);
		free(copy);
		return handle;
	}
	object_ref(copy->job);
	pthread_mutex_unlock(&big_lock);

	pthread_attr_init(&detached);
	pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
	if (pthread_create(&thread, &detached, run, copy) != 0)
		abort();
	pthread_attr_destroy(&detached);
	return handle;
}

/* Sets the job's result. The job takes over the reference. */
void job_result(struct work *w, struct object *o) { w->job->result = o->handle; }

void job_text(struct work *w, const char *text) { w->job->text = strdup(text); }

/* Starts a function without a job. Returns the code with which it fails, or 0. */
int sync_call(const char *function, const char *path)
{
	control_delay(function, path);
	return control_error(function, path);
}

static VixError job_property(struct object *job, VixPropertyID id, void *at)
{
	VixError err;
	struct object *result;

	switch (id) {
	case VIX_PROPERTY_JOB_RESULT_HANDLE:
		result = object_find(job->result, KINDS, &err);
		if (result == NULL)
			return err;
		object_ref(result);
		*(VixHandle *)at = result->handle;
		return VIX_OK;
	case VIX_PROPERTY_JOB_RESULT_VM_VARIABLE_STRING:
	case VIX_PROPERTY_JOB_RESULT_ITEM_NAME:
		*(char **)at = strdup(job->text == NULL ? "" : job->text);
		return VIX_OK;
	case VIX_PROPERTY_JOB_RESULT_GUEST_OBJECT_EXISTS:
		*(Bool *)at = FALSE;
		return VIX_OK;
	case VIX_PROPERTY_JOB_RESULT_SHARED_FOLDER_COUNT:
		*(int *)at = 0;
		return VIX_OK;
	}
	return make_error(E_UNKNOWN_PROPERTY);
}

EXPORT VixError VixJob_Wait(VixHandle handle, VixPropertyID first, ...)
{
	va_list rest;
	VixError err;

	pthread_mutex_lock(&big_lock);
	struct object *job = object_find(handle, JOB, &err);
	if (job == NULL) {
		pthread_mutex_unlock(&big_lock);
		return err;
	}
	object_ref(job);
	while (!job->done)
		pthread_cond_wait(&job_done, &big_lock);
	err = job->error;
	va_start(rest, first);
	for (VixPropertyID id = first; err == VIX_OK && id != VIX_PROPERTY_NONE; id = va_arg(rest, VixPropertyID)) {
		void *at = va_arg(rest, void *);
		if (id == VIX_PROPERTY_JOB_RESULT_SCREEN_IMAGE_DATA)
			*(unsigned char **)va_arg(rest, void *) = screen_image(at);
		else
			err = job_property(job, id, at);
	}
	va_end(rest);
	object_unref(job);
	pthread_mutex_unlock(&big_lock);
	return err;
}

EXPORT int VixJob_GetNumProperties(VixHandle job, int id)
{
	(void)job, (void)id;
	return 0;
}

EXPORT VixError VixJob_GetNthProperties(VixHandle job, int index, int id, ...)
{
	(void)job, (void)index, (void)id;
	return make_error(E_BAD_INDEX);
}
