//go:build vix && cgo && !windows

/* Opens a library with dlopen. */
#include "loader.h"

#include <dlfcn.h>
#include <stdio.h>

void *osxb_open(const char *path, char *reason, size_t size)
{
	void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);

	if (library == NULL)
		snprintf(reason, size, "%s", dlerror());
	return library;
}

/* With dlsym, a void* can hold the address of a function. */
int osxb_resolve(void *library, const char *name, void **address, char *reason, size_t size)
{
	*address = dlsym(library, name);
	if (*address != NULL)
		return 0;
	snprintf(reason, size, "the library has no function %s", name);
	return -1;
}

void osxb_close(void *library)
{
	dlclose(library);
}
