//go:build vix && cgo

/* Opens a library with LoadLibrary. Windows has no signals that a library could take from Go. */
#include "loader.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <windows.h>

/* The libraries that this one needs are in its folder. */
void *osxb_open(const char *path, char *reason, size_t size)
{
	wchar_t wide[4096];
	DWORD code;
	char text[256] = "";
	HMODULE library = NULL;

	if (MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, path, -1, wide, sizeof wide / sizeof *wide) > 0)
		library = LoadLibraryExW(wide, NULL, LOAD_WITH_ALTERED_SEARCH_PATH);
	if (library != NULL)
		return library;
	code = GetLastError();
	FormatMessageA(FORMAT_MESSAGE_FROM_SYSTEM | FORMAT_MESSAGE_IGNORE_INSERTS, NULL, code, 0, text, sizeof text, NULL);
	text[strcspn(text, "\r\n")] = '\0';
	snprintf(reason, size, "%s (Windows error %lu)", text, code);
	return NULL;
}

int osxb_resolve(void *library, const char *name, void **address, char *reason, size_t size)
{
	*address = (void *)(uintptr_t)GetProcAddress(library, name);
	if (*address != NULL)
		return 0;
	snprintf(reason, size, "the library has no function %s", name);
	return -1;
}

void osxb_close(void *library)
{
	FreeLibrary(library);
}

void osxb_save_signals(void)
{
}

void osxb_repair_signals(void)
{
}
