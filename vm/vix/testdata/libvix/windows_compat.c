#ifdef _WIN32
#include "windows_compat.h"

#include <ctype.h>
#include <errno.h>
#include <windows.h>

int process_kill(int pid)
{
	HANDLE process = OpenProcess(PROCESS_QUERY_LIMITED_INFORMATION, FALSE, (DWORD)pid);

	if (process != NULL) {
		CloseHandle(process);
		return 0;
	}
	errno = ESRCH;
	return -1;
}

/*
 * A file or folder cannot be replaced or removed while another thread or process has it open. Waits, or sets errno and
 * returns 1 after two seconds, or if waiting does not help.
 */
static int give_up(int *tries)
{
	DWORD error = GetLastError();
	int gone = error == ERROR_FILE_NOT_FOUND || error == ERROR_PATH_NOT_FOUND;

	if (gone || error == ERROR_DIR_NOT_EMPTY || ++*tries == 200) {
		errno = gone ? ENOENT : EACCES;
		return 1;
	}
	Sleep(10);
	return 0;
}

int file_replace(const char *from, const char *to)
{
	int tries = 0;

	while (!MoveFileExA(from, to, MOVEFILE_REPLACE_EXISTING))
		if (give_up(&tries))
			return -1;
	return 0;
}

int file_unlink(const char *path)
{
	int tries = 0;

	while (!DeleteFileA(path))
		if (give_up(&tries))
			return -1;
	return 0;
}

int folder_remove(const char *path)
{
	int tries = 0;

	while (!RemoveDirectoryA(path))
		if (give_up(&tries))
			return -1;
	return 0;
}

/* Unlike that of Windows, it removes folders too. */
int path_remove(const char *path)
{
	DWORD attributes = GetFileAttributesA(path);
	int folder = attributes != INVALID_FILE_ATTRIBUTES && (attributes & FILE_ATTRIBUTE_DIRECTORY);

	return folder ? folder_remove(path) : file_unlink(path);
}

char *strcasestr(const char *text, const char *part)
{
	size_t n = strlen(part);

	for (; *text != 0; text++)
		if (_strnicmp(text, part, n) == 0)
			return (char *)text;
	return n == 0 ? (char *)text : NULL;
}

int rand_r(unsigned int *seed)
{
	*seed = *seed * 1103515245 + 12345;
	return (int)(*seed >> 16 & 0x7fff);
}

int pwrite(int fd, const void *data, size_t size, long offset)
{
	return _lseek(fd, offset, SEEK_SET) < 0 ? -1 : _write(fd, data, (unsigned int)size);
}
#else
typedef int no_windows; /* a file must declare something */
#endif
