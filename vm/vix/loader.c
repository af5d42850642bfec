//go:build vix && cgo

/*
 * Defines the functions that govix calls, and forwards each call to VMware's library, which is opened at run time. So
 * the daemon links and starts without that library.
 *
 * The definitions are hidden. If they were exported, calls of the library to itself would end here.
 */
#pragma GCC visibility push(hidden)
#include "vix.h"
#pragma GCC visibility pop

#include "loader.h"

#include <stdarg.h>

enum {
	/* Codes that the loader itself returns. */
	E_INVALID_ARG = 3,
	E_NOT_SUPPORTED = 6,

	E_SNAPSHOT_NOTFOUND = 13003,

	/* No call of govix asks for more than six properties. */
	MAX_PROPERTIES = 8,
};

/* VMware's functions. osxb_load sets them once, before any is called. */
static struct {
#define VIX_FUNCTION(result, name, parameters, arguments) __typeof__(name) *name;
#include "loader_functions.h"
#undef VIX_FUNCTION
	__typeof__(Vix_GetProperties) *Vix_GetProperties;
	__typeof__(VixPropertyList_AllocPropertyList) *VixPropertyList_AllocPropertyList;
	__typeof__(VixJob_Wait) *VixJob_Wait;
	__typeof__(VixJob_GetNthProperties) *VixJob_GetNthProperties;
} vix;

static int resolve_all(void *library, char *reason, size_t size)
{
#define RESOLVE(name) \
	if (osxb_resolve(library, #name, (void **)&vix.name, reason, size) != 0) \
		return -1;
#define VIX_FUNCTION(result, name, parameters, arguments) RESOLVE(name)
#include "loader_functions.h"
#undef VIX_FUNCTION
	RESOLVE(Vix_GetProperties)
	RESOLVE(VixPropertyList_AllocPropertyList)
	RESOLVE(VixJob_Wait)
	RESOLVE(VixJob_GetNthProperties)
#undef RESOLVE
	return 0;
}

int osxb_load(const char *path, char *reason, size_t size)
{
	void *library = osxb_open(path, reason, size);

	if (library == NULL)
		return -1;
	if (resolve_all(library, reason, size) != 0) {
		osxb_close(library);
		return -1;
	}
	return 0;
}

#define VIX_FUNCTION(result, name, parameters, arguments) \
	result name parameters { return vix.name arguments; }
#include "loader_functions.h"
#undef VIX_FUNCTION

/*
 * The four functions below take pairs of a property's number and an address, and the number 0 ends the list. C cannot
 * forward such a list, so they are called with a list of fixed length that is filled with zeroes. The calls use the
 * functions' own types, so they are correct on Apple's arm64 too, where variable arguments are passed in another way.
 */
struct pairs {
	VixPropertyID id[MAX_PROPERTIES];
	void *at[MAX_PROPERTIES];
};

/* Returns 0, or the error that the caller returns. */
static VixError collect(struct pairs *p, VixPropertyID id, va_list rest)
{
	*p = (struct pairs){{0}, {NULL}};
	for (int i = 0; id != VIX_PROPERTY_NONE; i++) {
		if (i == MAX_PROPERTIES)
			return E_INVALID_ARG;
		/* A screenshot needs two addresses, and govix passes wrong ones. */
		if (id == VIX_PROPERTY_JOB_RESULT_SCREEN_IMAGE_DATA)
			return E_NOT_SUPPORTED;
		p->id[i] = id;
		p->at[i] = va_arg(rest, void *);
		id = va_arg(rest, VixPropertyID);
	}
	return VIX_OK;
}

#define PAIRS(p) \
	p.id[0], p.at[0], p.id[1], p.at[1], p.id[2], p.at[2], p.id[3], p.at[3], \
	p.id[4], p.at[4], p.id[5], p.at[5], p.id[6], p.at[6], p.id[7], p.at[7], \
	VIX_PROPERTY_NONE

#define COLLECT(p, first) \
	struct pairs p; \
	va_list rest; \
	va_start(rest, first); \
	VixError error = collect(&p, first, rest); \
	va_end(rest); \
	if (error != VIX_OK) \
		return error

VixError Vix_GetProperties(VixHandle handle, VixPropertyID first, ...)
{
	COLLECT(p, first);
	return vix.Vix_GetProperties(handle, PAIRS(p));
}

VixError VixPropertyList_AllocPropertyList(VixHandle host, VixHandle *result, int first, ...)
{
	COLLECT(p, first);
	return vix.VixPropertyList_AllocPropertyList(host, result, PAIRS(p));
}

VixError VixJob_Wait(VixHandle job, VixPropertyID first, ...)
{
	COLLECT(p, first);
	return vix.VixJob_Wait(job, PAIRS(p));
}

VixError VixJob_GetNthProperties(VixHandle job, int index, int first, ...)
{
	COLLECT(p, first);
	return vix.VixJob_GetNthProperties(job, index, PAIRS(p));
}

/* Waits for a job whose result is a handle, and releases the job. */
static VixError wait_for_handle(VixHandle job, VixHandle *result)
{
	VixError err = VixJob_Wait(job, VIX_PROPERTY_JOB_RESULT_HANDLE, result, VIX_PROPERTY_NONE);

	Vix_ReleaseHandle(job);
	return err;
}

VixError osxb_open_vm(VixHandle host, const char *path, VixHandle *vm)
{
	return wait_for_handle(VixHost_OpenVM(host, path, VIX_VMOPEN_NORMAL, VIX_INVALID_HANDLE, NULL, NULL), vm);
}

static VixError named_snapshot(VixHandle vm, const char *name, VixHandle *snapshot)
{
	VixError err = VixVM_GetNamedSnapshot(vm, name, snapshot);

	if ((err & 0xFFFF) != E_SNAPSHOT_NOTFOUND)
		return err;
	return wait_for_handle(VixVM_CreateSnapshot(vm, name, "", 0, VIX_INVALID_HANDLE, NULL, NULL), snapshot);
}

VixError osxb_clone(VixHandle vm, const char *name, const char *destination)
{
	VixHandle snapshot = VIX_INVALID_HANDLE, clone = VIX_INVALID_HANDLE;
	VixError err = named_snapshot(vm, name, &snapshot);

	if (err != VIX_OK)
		return err;
	err = wait_for_handle(VixVM_Clone(vm, snapshot, VIX_CLONETYPE_LINKED, destination, 0,
			VIX_INVALID_HANDLE, NULL, NULL), &clone);
	Vix_ReleaseHandle(snapshot);
	if (err == VIX_OK)
		Vix_ReleaseHandle(clone);
	return err;
}

VixError osxb_delete(VixHandle vm)
{
	VixHandle job = VixVM_Delete(vm, VIX_VMDELETE_DISK_FILES, NULL, NULL);
	VixError err = VixJob_Wait(job, VIX_PROPERTY_NONE);

	Vix_ReleaseHandle(job);
	return err;
}

VixError osxb_screenshot(VixHandle vm, int *size, unsigned char **png)
{
	VixHandle job = VixVM_CaptureScreenImage(vm, VIX_CAPTURESCREENFORMAT_PNG, VIX_INVALID_HANDLE, NULL, NULL);
	VixError err;

	*size = 0, *png = NULL;
	/* The library's function, because the one of this file refuses the property with two addresses. */
	err = vix.VixJob_Wait(job, VIX_PROPERTY_JOB_RESULT_SCREEN_IMAGE_DATA, size, png, VIX_PROPERTY_NONE);
	Vix_ReleaseHandle(job);
	return err;
}
