//go:build vix && cgo && !windows

/*
 * Defines the functions that govix calls and forwards each to VMware's
 * library, which is opened at run time: the daemon links without it and starts
 * where it is missing.
 *
 * The definitions are hidden. Exported, they would take the place of the
 * library's own functions in calls that the library makes to itself.
 */
#pragma GCC visibility push(hidden)
#include "vix.h"
#pragma GCC visibility pop

#include "loader.h"

#include <dlfcn.h>
#include <stdarg.h>
#include <stdio.h>

enum {
	/* Codes that the loader itself answers with. */
	E_INVALID_ARG = 3,
	E_NOT_SUPPORTED = 6,

	E_SNAPSHOT_NOTFOUND = 13003,

	/* The most properties that one call of govix asks for is six. */
	MAX_PROPERTIES = 8,
};

/* VMware's functions. Written once, by osxb_load, before any is called. */
static struct {
#define VIX_FUNCTION(result, name, parameters, arguments) __typeof__(name) *name;
#include "loader_functions.h"
#undef VIX_FUNCTION
	__typeof__(Vix_GetProperties) *Vix_GetProperties;
	__typeof__(VixPropertyList_AllocPropertyList) *VixPropertyList_AllocPropertyList;
	__typeof__(VixJob_Wait) *VixJob_Wait;
	__typeof__(VixJob_GetNthProperties) *VixJob_GetNthProperties;
} vix;

/* A void* holds a function's address wherever there is dlsym. */
static int find(void *library, const char *name, void **address, char *why, size_t size)
{
	*address = dlsym(library, name);
	if (*address != NULL)
		return 0;
	snprintf(why, size, "the library has no function %s", name);
	return -1;
}

static int find_all(void *library, char *why, size_t size)
{
#define FIND(name) \
	if (find(library, #name, (void **)&vix.name, why, size) != 0) \
		return -1;
#define VIX_FUNCTION(result, name, parameters, arguments) FIND(name)
#include "loader_functions.h"
#undef VIX_FUNCTION
	FIND(Vix_GetProperties)
	FIND(VixPropertyList_AllocPropertyList)
	FIND(VixJob_Wait)
	FIND(VixJob_GetNthProperties)
#undef FIND
	return 0;
}

int osxb_load(const char *path, char *why, size_t size)
{
	void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);

	if (library == NULL) {
		snprintf(why, size, "%s", dlerror());
		return -1;
	}
	if (find_all(library, why, size) != 0) {
		dlclose(library);
		return -1;
	}
	return 0;
}

#define VIX_FUNCTION(result, name, parameters, arguments) \
	result name parameters { return vix.name arguments; }
#include "loader_functions.h"
#undef VIX_FUNCTION

/*
 * The four functions below take pairs of a property's number and an address,
 * up to the number 0. C has no way to pass such a list on as it came, so they
 * are called with a full list, which is 0 from where the caller's ends. Going
 * through their own types, the call is right also where variable arguments
 * travel by other ways than fixed ones, as on Apple's arm64.
 */
struct pairs {
	VixPropertyID id[MAX_PROPERTIES];
	void *at[MAX_PROPERTIES];
};

/* Returns 0, or what the caller answers with. */
static VixError collect(struct pairs *p, VixPropertyID id, va_list rest)
{
	*p = (struct pairs){{0}, {NULL}};
	for (int i = 0; id != VIX_PROPERTY_NONE; i++) {
		if (i == MAX_PROPERTIES)
			return E_INVALID_ARG;
		/* A screenshot has two addresses, for which govix passes wrong ones. */
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
	VixError refused = collect(&p, first, rest); \
	va_end(rest); \
	if (refused != VIX_OK) \
		return refused

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

/* Waits for a job whose result is a handle, and gives the job back. */
static VixError result_of(VixHandle job, VixHandle *result)
{
	VixError err = VixJob_Wait(job, VIX_PROPERTY_JOB_RESULT_HANDLE, result, VIX_PROPERTY_NONE);

	Vix_ReleaseHandle(job);
	return err;
}

VixError osxb_open_vm(VixHandle host, const char *path, VixHandle *vm)
{
	return result_of(VixHost_OpenVM(host, path, VIX_VMOPEN_NORMAL, VIX_INVALID_HANDLE, NULL, NULL), vm);
}

static VixError named_snapshot(VixHandle vm, const char *name, VixHandle *snapshot)
{
	VixError err = VixVM_GetNamedSnapshot(vm, name, snapshot);

	if ((err & 0xFFFF) != E_SNAPSHOT_NOTFOUND)
		return err;
	return result_of(VixVM_CreateSnapshot(vm, name, "", 0, VIX_INVALID_HANDLE, NULL, NULL), snapshot);
}

VixError osxb_clone(VixHandle vm, const char *name, const char *destination)
{
	VixHandle snapshot = VIX_INVALID_HANDLE, clone = VIX_INVALID_HANDLE;
	VixError err = named_snapshot(vm, name, &snapshot);

	if (err != VIX_OK)
		return err;
	err = result_of(VixVM_Clone(vm, snapshot, VIX_CLONETYPE_LINKED, destination, 0,
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
	/* The library's own: this file's refuses the property with two addresses. */
	err = vix.VixJob_Wait(job, VIX_PROPERTY_JOB_RESULT_SCREEN_IMAGE_DATA, size, png, VIX_PROPERTY_NONE);
	Vix_ReleaseHandle(job);
	return err;
}
