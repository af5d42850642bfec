/* VMware's library, opened at run time, and functions that govix lacks. */
#ifndef OSX_BUILDER_LOADER_H
#define OSX_BUILDER_LOADER_H

#include <stddef.h>

#include "vix.h"

/*
 * Opens VMware's library at path and resolves every function that govix calls. Returns 0, or -1 and the reason. It must
 * not be called again after a success: the library stays open until the process exits. No VIX function may be called
 * before.
 */
int osxb_load(const char *path, char *reason, size_t size);

/* Opens the library at path. Returns NULL and the reason if that fails. */
void *osxb_open(const char *path, char *reason, size_t size);

/* Finds a function of an open library. Returns 0, or -1 and the reason. */
int osxb_resolve(void *library, const char *name, void **address, char *reason, size_t size);

/* Closes a library that osxb_open has opened and of which no function was called. */
void osxb_close(void *library);

/* Saves the handlers of the signals that Go needs. It is called before osxb_load. */
void osxb_save_signals(void);

/* Restores the saved handlers, and makes the other handlers run on the signal stack. */
void osxb_repair_signals(void);

/* Opens the machine whose .vmx is at path. The caller releases *vm. */
VixError osxb_open_vm(VixHandle host, const char *path, VixHandle *vm);

/*
 * Makes a linked clone at destination from the snapshot of vm with that name. If there is no such snapshot, it takes the
 * snapshot first.
 */
VixError osxb_clone(VixHandle vm, const char *snapshot, const char *destination);

/* Deletes the machine and its disks. The caller must still release vm. */
VixError osxb_delete(VixHandle vm);

/* Captures the machine's screen as a PNG of *size bytes at *png. The caller frees it with Vix_FreeBuffer. */
VixError osxb_screenshot(VixHandle vm, int *size, unsigned char **png);

#endif
