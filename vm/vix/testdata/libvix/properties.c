/* Properties and error texts. */
#include "double.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct { int code; const char *text; } texts[] = {
	{0, "The operation was successful"},
	{1, "Unknown error"},
	{3, "One of the parameters was invalid"},
	{4, "A file was not found"},
	{5, "The object is busy"},
	{6, "The operation is not supported"},
	{8, "There is not enough disk space"},
	{10, "The operation was canceled"},
	{11, "The file is read-only"},
	{12, "The file already exists"},
	{13, "You do not have access rights to this file"},
	{15, "The file is already in use"},
	{26, "The host is not connected"},
	{32, "This operation is not supported with the current license"},
	{34, "The connection to the host was lost"},
	{36, "The host is not responding"},
	{1000, "The handle is not a valid VIX object"},
	{1001, "The operation is not supported on this type of handle"},
	{3000, "A timeout error occurred while waiting for VMware Tools"},
	{3006, "The virtual machine needs to be powered on"},
	{3007, "The virtual machine should not be powered on. It is already running."},
	{3008, "Cannot connect to the virtual machine"},
	{3009, "Power operation scripts are not available"},
	{3014, "Insufficient permissions in the host operating system"},
	{3016, "The VMware Tools are not running in the virtual machine"},
	{3028, "The virtual machine is blocked waiting for a user operation"},
	{3041, "The virtual machine cannot be powered on"},
	{3043, "Cannot launch the UI because no display server is present in the current environment"},
	{4000, "The virtual machine cannot be found"},
	{4002, "Cannot read the virtual machine configuration file"},
	{13003, "The snapshot was not found"},
	{13004, "The snapshot already exists"},
	{13010, "The snapshot is locked"},
	{22002, "The specified version was not found"},
	{22005, "No VMware product is installed"},
};

EXPORT const char *Vix_GetErrorText(VixError err, const char *locale)
{
	(void)locale;
	for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
		if (texts[i].code == (int)(err & 0xFFFF))
			return texts[i].text;
	return "Unknown error";
}

/* Returns the bits of the power state, some of which have no meaning. */
static int power_bits(struct object *vm)
{
	long since;

	switch (state_power(vm->path, &since)) {
	case ON:
		return 0x4000 | VIX_POWERSTATE_POWERED_ON |
			(vm->tools_known && tools_running(vm->path) ? VIX_POWERSTATE_TOOLS_RUNNING : 0);
	case SUSPENDED:
		return VIX_POWERSTATE_SUSPENDED | VIX_POWERSTATE_POWERED_OFF;
	case OFF:
		break;
	}
	return 0x4000 | VIX_POWERSTATE_POWERED_OFF;
}

/* Before a wait for the tools, VIX's answer has no meaning. Here it is wrong. */
static int tools_bits(struct object *vm)
{
	if (!vm->tools_known)
		return VIX_TOOLSSTATE_RUNNING;
	return tools_running(vm->path) ? VIX_TOOLSSTATE_RUNNING : VIX_TOOLSSTATE_UNKNOWN;
}

static VixError vm_property(struct object *vm, VixPropertyID id, void *at)
{
	char text[PATH_SIZE] = "";
	long since;

	switch (id) {
	case VIX_PROPERTY_VM_NUM_VCPUS:
		*(int *)at = vmx_number(vm->path, "numvcpus", 1);
		return VIX_OK;
	case VIX_PROPERTY_VM_MEMORY_SIZE:
		*(int *)at = vmx_number(vm->path, "memsize", 256);
		return VIX_OK;
	case VIX_PROPERTY_VM_POWER_STATE:
		*(int *)at = power_bits(vm);
		return VIX_OK;
	case VIX_PROPERTY_VM_TOOLS_STATE:
		*(int *)at = tools_bits(vm);
		return VIX_OK;
	case VIX_PROPERTY_VM_IS_RUNNING:
		*(Bool *)at = state_power(vm->path, &since) == ON;
		return VIX_OK;
	case VIX_PROPERTY_VM_READ_ONLY:
	case VIX_PROPERTY_VM_IN_VMTEAM:
		*(Bool *)at = FALSE;
		return VIX_OK;
	case VIX_PROPERTY_VM_GUESTOS:
		vmx_get(vm->path, "guestOS", text, sizeof text);
		*(char **)at = strdup(text);
		return VIX_OK;
	case VIX_PROPERTY_VM_VMX_PATHNAME:
		*(char **)at = strdup(vm->path);
		return VIX_OK;
	}
	return make_error(E_UNKNOWN_PROPERTY);
}

static VixError property(struct object *o, VixPropertyID id, void *at)
{
	if (o->kind == VM)
		return o->deleted ? make_error(E_VM_NOT_FOUND) : vm_property(o, id, at);
	if (o->kind == SNAPSHOT && (id == VIX_PROPERTY_SNAPSHOT_DISPLAYNAME || id == VIX_PROPERTY_SNAPSHOT_DESCRIPTION)) {
		*(char **)at = strdup(id == VIX_PROPERTY_SNAPSHOT_DISPLAYNAME ? o->name : "");
		return VIX_OK;
	}
	if (o->kind == PROPLIST && id == VIX_PROPERTY_FOUND_ITEM_LOCATION) {
		*(char **)at = strdup(o->path);
		return VIX_OK;
	}
	return make_error(E_UNKNOWN_PROPERTY);
}

EXPORT VixError Vix_GetProperties(VixHandle handle, VixPropertyID first, ...)
{
	char path[PATH_SIZE] = "";
	va_list rest;
	VixError err;
	int code;

	pthread_mutex_lock(&big_lock);
	struct object *o = object_find(handle, KINDS, &err);
	if (o != NULL) {
		object_ref(o);
		memcpy(path, o->path, sizeof path);
	}
	pthread_mutex_unlock(&big_lock);
	if (o == NULL)
		return err;

	code = sync_call("Vix_GetProperties", path);
	err = make_error(code);
	pthread_mutex_lock(&big_lock);
	va_start(rest, first);
	for (VixPropertyID id = first; err == VIX_OK && id != VIX_PROPERTY_NONE; id = va_arg(rest, VixPropertyID))
		err = property(o, id, va_arg(rest, void *));
	va_end(rest);
	object_unref(o);
	pthread_mutex_unlock(&big_lock);
	return err;
}
