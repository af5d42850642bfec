/* VMware's library, opened at run time, and what govix lacks of its use. */
#ifndef OSX_BUILDER_LOADER_H
#define OSX_BUILDER_LOADER_H

#include <stddef.h>

#include "vix.h"

/*
 * Opens VMware's library at path and takes every function that govix calls
 * from it. Returns 0, or -1 with the reason in why. Once it has succeeded it
 * must not be called again: the library stays open for as long as the process
 * lives. No VIX function may be called before.
 */
int osxb_load(const char *path, char *why, size_t size);

/* Remembers the handlers of the signals that Go needs. Called before osxb_load. */
void osxb_keep_signals(void);

/* Puts them back, and makes those of other signals fit for Go's threads. */
void osxb_mend_signals(void);

/* Opens the machine whose .vmx file is at path. The caller releases *vm. */
VixError osxb_open_vm(VixHandle host, const char *path, VixHandle *vm);

/*
 * Makes a linked clone at destination of the snapshot of that name of the
 * machine vm, taking that snapshot first if there is none.
 */
VixError osxb_clone(VixHandle vm, const char *snapshot, const char *destination);

/* Deletes the machine and its disks. The caller still releases vm. */
VixError osxb_delete(VixHandle vm);

/*
 * Captures the screen of the machine as a PNG of *size bytes at *png, which
 * the caller gives to Vix_FreeBuffer.
 */
VixError osxb_screenshot(VixHandle vm, int *size, unsigned char **png);

#endif
