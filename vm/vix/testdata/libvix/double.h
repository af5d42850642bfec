/* Declarations that the files of the double share. README.md describes the double. */
#ifndef DOUBLE_H
#define DOUBLE_H

#include <pthread.h>
#include <stddef.h>

#include "vix.h"

#define PATH_SIZE 4096
#define EXPORT __attribute__((visibility("default")))

enum kind { HOST, VM, JOB, SNAPSHOT, PROPLIST, KINDS };

enum {
	E_FAIL = 1, E_INVALID_ARG = 3, E_FILE_NOT_FOUND = 4, E_BUSY = 5, E_NOT_SUPPORTED = 6, E_DISK_FULL = 8,
	E_FILE_ACCESS = 13, E_LOCKED = 15, E_LICENSE = 32,
	E_INVALID_HANDLE = 1000, E_WRONG_HANDLE = 1001, E_TOOLS_TIMEOUT = 3000, E_NOT_RUNNING = 3006,
	E_RUNNING = 3007, E_TOOLS_NOT_RUNNING = 3016, E_DIALOG = 3028, E_CANNOT_POWER_ON = 3041,
	E_VM_NOT_FOUND = 4000, E_CANNOT_READ = 4002, E_UNKNOWN_PROPERTY = 6000, E_BAD_INDEX = 8000,
	E_SNAPSHOT_NOTFOUND = 13003, E_SNAPSHOT_EXISTS = 13004, E_SNAPSHOT_LOCKED = 13010,
	E_SNAPSHOT_DUPLICATE = 13017, E_DISK_OPENPARENT = 16012, E_NEED_PASSWORD = 17004,
};

/* The object of a handle. Its fields are guarded by big_lock. */
struct object {
	VixHandle handle;
	enum kind kind;
	int refs;
	struct object *next;
	struct object *host;   /* VM and SNAPSHOT: where it came from, or NULL once that is disconnected */
	int lost;              /* HOST: the code with which everything that came from it fails, or 0 */

	char path[PATH_SIZE];  /* VM and SNAPSHOT: the machine's .vmx */
	int deleted;           /* VM: its files are gone */
	int tools_known;       /* VM: a wait for tools succeeded since power-on */
	char name[256];        /* SNAPSHOT */

	/* JOB */
	int done;
	VixError error;
	VixHandle result;      /* the handle that the job created, with a reference */
	char *text;            /* the string that it created */
};

extern pthread_mutex_t big_lock;
extern pthread_cond_t job_done;

/* handles.c; all functions except make_error are called with big_lock held */
struct object *object_new(enum kind kind);
struct object *object_find(VixHandle handle, enum kind kind, VixError *err);
struct object *object_vm(const char *path, struct object *host);
void hosts_lose(int code);
void object_ref(struct object *o);
void object_unref(struct object *o);
struct object *object_next(struct object *o);
VixError make_error(int code);
void count(const char *name, int by);
void stats_write(void);

/* hosts.c */
void install_signal_handlers(void);

/* control.c */
void control_open(void);
const char *control_dir(void);
int control_has(const char *name);
long control_number(const char *name, long default_value);
int control_text(const char *name, char *text, size_t size);
int control_error(const char *function, const char *path);
void control_delay(const char *function, const char *path);
void control_lost(void);
int control_signals(const char *function);

/* jobs.c: work runs in a thread without big_lock and returns a VIX code. */
struct work {
	const char *function;
	struct object *job;
	struct object *vm; /* referenced while the job runs, or NULL */
	char path[PATH_SIZE];
	char text[PATH_SIZE], text2[PATH_SIZE];
	int number;
	VixHandle handle;
	struct object *host; /* of VixHost_OpenVM, referenced while the job runs */
	VixEventProc *callback;
	void *data;
	VixError failed; /* the error with which the job ends at once, or 0 */
	int (*run)(struct work *w);
};
VixHandle job_start(const char *function, VixHandle vm, const char *path, struct work w);
void job_result(struct work *w, struct object *o);
void job_text(struct work *w, const char *text);
int sync_call(const char *function, const char *path);

/* files.c */
long now_ms(void);
int file_exists(const char *path);
int file_read(const char *path, char **data);
int file_write(const char *path, const char *data);
void path_dir(const char *path, char *dir);
int path_is_absolute(const char *path);
void path_join(char *out, const char *dir, const char *name);

/* config.c: .vmx files */
int vmx_check(const char *path);
int vmx_get(const char *path, const char *key, char *value, size_t size);
int vmx_number(const char *path, const char *key, int default_value);
int vmx_rewrite(const char *path, const char *to, int (*edit)(const char *key, char *value, void *data), void *data, const char *more);

/* state.c */
enum power { OFF, ON, SUSPENDED };
enum power state_power(const char *path, long *since);
int state_set(const char *path, enum power power);
int tools_running(const char *path);
int guest_ip(const char *path, char *ip, size_t size);
int lock_acquire(const char *path, int pid);
void lock_release(const char *path);
int lock_held(const char *path);

/* power.c */
unsigned char *screen_image(int *size);

/* snapshots.c */
int snapshots_count(const char *path);
int snapshot_named(const char *path, const char *name);
int snapshot_add(const char *path, const char *name);

#endif
