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

int file_replace(const char *from, const char *to)
{
	return MoveFileExA(from, to, MOVEFILE_REPLACE_EXISTING) ? 0 : -1;
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
