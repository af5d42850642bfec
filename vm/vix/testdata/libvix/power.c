/* Power, tools and variables. */
#include "double.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

static int keep(const char *key, char *value, void *data)
{
	(void)key, (void)value, (void)data;
	return 1;
}

/* Checks that every disk exists, and the parents of those that have any. */
static int check_disk(const char *key, char *value, void *data)
{
	char disk[PATH_SIZE], *text, *parent, *end;
	struct work *w = data;
	size_t n = strlen(value);

	if (strlen(key) < 9 || strcasecmp(key + strlen(key) - 9, ".fileName") != 0 || n < 5 || strcasecmp(value + n - 5, ".vmdk") != 0)
		return 1;
	path_dir(w->path, w->text2);
	path_join(disk, w->text2, value);
	if (!file_exists(disk)) {
		w->number = E_FILE_NOT_FOUND;
		return 1;
	}
	if (file_read(disk, &text) != 0)
		return 1;
	parent = strstr(text, "parentFileNameHint=\"");
	if (parent != NULL && (end = strchr(parent += 20, '"')) != NULL) {
		*end = 0;
		if (!file_exists(parent))
			w->number = E_DISK_OPENPARENT;
	}
	free(text);
	return 1;
}

/* Like VMware at power-on, generates an address for each NIC without one. */
static void addresses(const char *path, char *more, size_t size)
{
	char key[64], value[PATH_SIZE];
	unsigned int hash = 5381;
	size_t n = 0;

	more[0] = 0;
	for (const char *p = path; *p != 0; p++)
		hash = hash * 33 + (unsigned char)*p;
	for (unsigned int i = 0; i < 10; i++) {
		snprintf(key, sizeof key, "ethernet%u.present", i);
		if (!vmx_get(path, key, value, sizeof value) || strcasecmp(value, "TRUE") != 0)
			continue;
		snprintf(key, sizeof key, "ethernet%u.generatedAddress", i);
		if (vmx_get(path, key, value, sizeof value))
			continue;
		n += (size_t)snprintf(more + n, size - n,
			"%s = \"00:0c:29:%02x:%02x:%02x\"\nethernet%u.generatedAddressOffset = \"%u\"\n",
			key, hash >> 16 & 0xff, hash >> 8 & 0xff, (hash + i) & 0xff, i, i * 10);
	}
}

static int power_on(struct work *w)
{
	char more[2048], value[PATH_SIZE];
	long since;
	int code = vmx_check(w->path);

	if (code != 0)
		return code;
	if (state_power(w->path, &since) == ON)
		return E_RUNNING;
	if (control_has("dialog") && (!vmx_get(w->path, "msg.autoAnswer", value, sizeof value) || strcasecmp(value, "TRUE") != 0))
		return E_DIALOG;
	if (lock_held(w->path))
		return E_LOCKED;
	w->number = 0;
	addresses(w->path, more, sizeof more);
	/* The lock of this process is stale if it is killed here. That of process 1 never is, so the machine must run. */
	if (lock_acquire(w->path, (int)getpid()) != 0)
		return E_FILE_ACCESS;
	if (vmx_rewrite(w->path, w->path, check_disk, w, more) != 0)
		w->number = E_FILE_ACCESS;
	if (w->number == 0 && (state_set(w->path, ON) != 0 || lock_acquire(w->path, 1) != 0))
		w->number = E_FILE_ACCESS;
	if (w->number != 0) {
		lock_release(w->path);
		return w->number;
	}
	pthread_mutex_lock(&big_lock);
	w->vm->tools_known = 0;
	pthread_mutex_unlock(&big_lock);
	return 0;
}

EXPORT VixHandle VixVM_PowerOn(VixHandle vm, VixVMPowerOpOptions options, VixHandle list,
		VixEventProc *callback, void *data)
{
	struct work w = {.run = power_on, .number = options, .callback = callback, .data = data};

	(void)list;
	return job_start((options & VIX_VMPOWEROP_LAUNCH_GUI) ? "VixVM_PowerOn.gui" : "VixVM_PowerOn", vm, NULL, w);
}

/* Removes the lock some time after the machine is off. */
static void *unlock_later(void *data)
{
	long ms = control_number("unlock.ms", 30);
	struct timespec t = {ms / 1000, ms % 1000 * 1000000};

	nanosleep(&t, NULL);
	lock_release(data);
	free(data);
	return NULL;
}

static int end_power(struct work *w)
{
	pthread_attr_t detached;
	pthread_t thread;
	long since;

	if (state_power(w->path, &since) != ON)
		return E_NOT_RUNNING;
	/* First the lock: if this process is killed in between, the machine runs, and is not off and locked by process 1. */
	if (lock_acquire(w->path, (int)getpid()) != 0 || state_set(w->path, w->number) != 0)
		return E_FILE_ACCESS;
	pthread_mutex_lock(&big_lock);
	w->vm->tools_known = 0;
	pthread_mutex_unlock(&big_lock);
	pthread_attr_init(&detached);
	pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
	if (pthread_create(&thread, &detached, unlock_later, strdup(w->path)) != 0)
		abort();
	pthread_attr_destroy(&detached);
	return 0;
}

/* Shuts the guest down: its tools must run, and leave a file that says so. */
static int guest_off(struct work *w)
{
	char file[PATH_SIZE];
	long since;

	if (state_power(w->path, &since) != ON)
		return E_NOT_RUNNING;
	if (!tools_running(w->path))
		return E_TOOLS_NOT_RUNNING;
	snprintf(file, sizeof file, "%.4000s.clean", w->path);
	if (file_write(file, "the guest shut down\n") != 0)
		return E_FILE_ACCESS;
	return end_power(w);
}

EXPORT VixHandle VixVM_PowerOff(VixHandle vm, VixVMPowerOpOptions options, VixEventProc *callback, void *data)
{
	struct work w = {.run = end_power, .number = OFF, .callback = callback, .data = data};

	if (options & VIX_VMPOWEROP_FROM_GUEST) {
		w.run = guest_off;
		return job_start("VixVM_PowerOff.guest", vm, NULL, w);
	}
	return job_start("VixVM_PowerOff", vm, NULL, w);
}

/* Restarts the guest of a running machine. */
static int reset(struct work *w)
{
	long since;

	if (state_power(w->path, &since) != ON)
		return E_NOT_RUNNING;
	pthread_mutex_lock(&big_lock);
	w->vm->tools_known = 0;
	pthread_mutex_unlock(&big_lock);
	return state_set(w->path, ON) == 0 ? 0 : E_FILE_ACCESS;
}

EXPORT VixHandle VixVM_Reset(VixHandle vm, VixVMPowerOpOptions options, VixEventProc *callback, void *data)
{
	struct work w = {.run = reset, .number = options, .callback = callback, .data = data};
	return job_start("VixVM_Reset", vm, NULL, w);
}

static int capture(struct work *w)
{
	long since;

	if (w->number != VIX_CAPTURESCREENFORMAT_PNG)
		return E_INVALID_ARG;
	return state_power(w->path, &since) == ON ? 0 : E_NOT_RUNNING;
}

EXPORT VixHandle VixVM_CaptureScreenImage(VixHandle vm, int type, VixHandle list, VixEventProc *callback, void *data)
{
	struct work w = {.run = capture, .number = type, .callback = callback, .data = data};

	(void)list;
	return job_start("VixVM_CaptureScreenImage", vm, NULL, w);
}

/* Returns a PNG of one pixel. The caller frees it with Vix_FreeBuffer. */
unsigned char *screen_image(int *size)
{
	static const unsigned char png[] =
		"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\1\0\0\0\1\x08\0\0\0\0\x3a\x7e\x9b\x55"
		"\0\0\0\nIDAT\x78\x9c\x63\xf8\x0f\0\x01\x01\x01\0\xb1\x38\xf6\x14\0\0\0\0IEND\xae\x42\x60\x82";
	unsigned char *copy = malloc(sizeof png - 1);

	*size = (int)sizeof png - 1;
	return memcpy(copy, png, sizeof png - 1);
}

EXPORT VixHandle VixVM_Suspend(VixHandle vm, VixVMPowerOpOptions options, VixEventProc *callback, void *data)
{
	struct work w = {.run = end_power, .number = SUSPENDED, .callback = callback, .data = data};

	(void)options;
	return job_start("VixVM_Suspend", vm, NULL, w);
}

static int wait_tools(struct work *w)
{
	struct timespec tick = {0, 10 * 1000 * 1000};
	long since, end = now_ms() + w->number * 1000L;

	if (w->number <= 0) {
		pthread_mutex_lock(&big_lock);
		count("endless", 1);
		pthread_mutex_unlock(&big_lock);
	}
	while (!tools_running(w->path)) {
		if (state_power(w->path, &since) != ON)
			return E_NOT_RUNNING;
		if (w->number > 0 && now_ms() >= end)
			return E_TOOLS_TIMEOUT;
		nanosleep(&tick, NULL);
	}
	pthread_mutex_lock(&big_lock);
	w->vm->tools_known = 1;
	pthread_mutex_unlock(&big_lock);
	return 0;
}

EXPORT VixHandle VixVM_WaitForToolsInGuest(VixHandle vm, int seconds, VixEventProc *callback, void *data)
{
	struct work w = {.run = wait_tools, .number = seconds, .callback = callback, .data = data};
	return job_start("VixVM_WaitForToolsInGuest", vm, NULL, w);
}

static int read_variable(struct work *w)
{
	char value[PATH_SIZE] = "";

	if (w->number == VIX_VM_CONFIG_RUNTIME_ONLY) {
		vmx_get(w->path, w->text, value, sizeof value);
	} else if (w->number == VIX_VM_GUEST_VARIABLE && strcmp(w->text, "ip") == 0) {
		if (!tools_running(w->path))
			return E_TOOLS_NOT_RUNNING;
		guest_ip(w->path, value, sizeof value);
	}
	job_text(w, value);
	return 0;
}

EXPORT VixHandle VixVM_ReadVariable(VixHandle vm, int type, const char *name, int options,
		VixEventProc *callback, void *data)
{
	struct work w = {.run = read_variable, .number = type, .callback = callback, .data = data};

	(void)options;
	snprintf(w.text, sizeof w.text, "%s", name);
	return job_start("VixVM_ReadVariable", vm, NULL, w);
}

static int upgrade(struct work *w) { return vmx_rewrite(w->path, w->path, keep, NULL, "") == 0 ? 0 : E_FILE_ACCESS; }

EXPORT VixHandle VixVM_UpgradeVirtualHardware(VixHandle vm, int options, VixEventProc *callback, void *data)
{
	struct work w = {.run = upgrade, .callback = callback, .data = data};

	(void)options;
	return job_start("VixVM_UpgradeVirtualHardware", vm, NULL, w);
}
