/* What the double needs of POSIX, and mingw-w64 lacks. build.sh includes it first. */
#ifndef WINDOWS_COMPAT_H
#define WINDOWS_COMPAT_H

#include <direct.h>
#include <fcntl.h>
#include <io.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define O_CLOEXEC _O_BINARY
#define mkdir(path, mode) _mkdir(path)
#define realpath(path, real) _fullpath(real, path, 4096)
#define kill(pid, signal) process_kill(pid)
#define fopen(path, mode) (fopen)(path, (mode)[0] == 'r' ? "rb" : "wb")
#define rename(from, to) file_replace(from, to)
#define unlink(path) file_unlink(path)
#define rmdir(path) folder_remove(path)
#define remove(path) path_remove(path)

/* Returns 0 if the process runs. Otherwise it returns -1 and sets errno to ESRCH. */
int process_kill(int pid);
int file_replace(const char *from, const char *to);
int file_unlink(const char *path);
int folder_remove(const char *path);
int path_remove(const char *path);
char *strcasestr(const char *text, const char *part);
int rand_r(unsigned int *seed);
int pwrite(int fd, const void *data, size_t size, long offset);

#endif
