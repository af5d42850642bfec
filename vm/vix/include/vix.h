/*
 * The part of VMware's VIX interface that govix and the loader use. Names, values and signatures are those of VIX 1.13
 * and later. With this file the daemon builds without any VMware product.
 *
 * A function that takes a callback and returns a VixHandle starts a job and returns the job's handle immediately. Every
 * returned handle holds a reference, which Vix_ReleaseHandle releases.
 */
#ifndef OSX_BUILDER_VIX_H
#define OSX_BUILDER_VIX_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define TRUE 1
#define FALSE 0

typedef char Bool;
typedef int32_t int32;
typedef int64_t int64;
typedef uint64_t uint64;

typedef int VixHandle;
typedef int VixPropertyID;
typedef int VixEventType;
typedef int VixHostOptions;
typedef int VixServiceProvider;
typedef int VixFindItemType;
typedef int VixVMOpenOptions;
typedef int VixVMPowerOpOptions;
typedef int VixVMDeleteOptions;
typedef int VixPowerState;
typedef int VixToolsState;
typedef int VixRunProgramOptions;
typedef int VixRemoveSnapshotOptions;
typedef int VixCreateSnapshotOptions;
typedef int VixMsgSharedFolderOptions;
typedef int VixCloneType;

/* The code is in the low 16 bits. On failure the other bits may have any value. */
typedef uint64_t VixError;

typedef void VixEventProc(VixHandle handle, VixEventType eventType,
                          VixHandle moreEventInfo, void *clientData);

/* Handles and errors. */
enum {
	VIX_INVALID_HANDLE = 0,
	VIX_OK = 0,
	VIX_E_CANCELLED = 10,
};

/* Connecting to a host. */
enum {
	VIX_API_VERSION = -1,
	VIX_SERVICEPROVIDER_VMWARE_SERVER = 2,
	VIX_SERVICEPROVIDER_VMWARE_WORKSTATION = 3,
	VIX_SERVICEPROVIDER_VMWARE_PLAYER = 4,
	VIX_SERVICEPROVIDER_VMWARE_VI_SERVER = 10,
	VIX_SERVICEPROVIDER_VMWARE_WORKSTATION_SHARED = 11,
	VIX_HOSTOPTION_VERIFY_SSL_CERT = 0x4000,
	VIX_FIND_RUNNING_VMS = 1,
	VIX_FIND_REGISTERED_VMS = 4,
	VIX_VMOPEN_NORMAL = 0x0,
};

/* Properties, by the kind of handle that has them. */
enum {
	VIX_PROPERTY_NONE = 0,
	VIX_PROPERTY_VM_NUM_VCPUS = 101,
	VIX_PROPERTY_VM_VMX_PATHNAME = 103,
	VIX_PROPERTY_VM_VMTEAM_PATHNAME = 105,
	VIX_PROPERTY_VM_MEMORY_SIZE = 106,
	VIX_PROPERTY_VM_READ_ONLY = 107,
	VIX_PROPERTY_VM_GUESTOS = 109,
	VIX_PROPERTY_VM_IN_VMTEAM = 128,
	VIX_PROPERTY_VM_POWER_STATE = 129,
	VIX_PROPERTY_VM_TOOLS_STATE = 152,
	VIX_PROPERTY_VM_IS_RUNNING = 196,
	VIX_PROPERTY_JOB_RESULT_HANDLE = 3010,
	VIX_PROPERTY_JOB_RESULT_GUEST_OBJECT_EXISTS = 3011,
	VIX_PROPERTY_JOB_RESULT_GUEST_PROGRAM_ELAPSED_TIME = 3017,
	VIX_PROPERTY_JOB_RESULT_GUEST_PROGRAM_EXIT_CODE = 3018,
	VIX_PROPERTY_JOB_RESULT_ITEM_NAME = 3035,
	VIX_PROPERTY_JOB_RESULT_SHARED_FOLDER_COUNT = 3046,
	VIX_PROPERTY_JOB_RESULT_SHARED_FOLDER_HOST = 3048,
	VIX_PROPERTY_JOB_RESULT_SHARED_FOLDER_FLAGS = 3049,
	VIX_PROPERTY_JOB_RESULT_PROCESS_ID = 3051,
	VIX_PROPERTY_JOB_RESULT_PROCESS_OWNER = 3052,
	VIX_PROPERTY_JOB_RESULT_PROCESS_COMMAND = 3053,
	VIX_PROPERTY_JOB_RESULT_FILE_FLAGS = 3054,
	VIX_PROPERTY_JOB_RESULT_PROCESS_START_TIME = 3055,
	VIX_PROPERTY_JOB_RESULT_VM_VARIABLE_STRING = 3056,
	VIX_PROPERTY_JOB_RESULT_PROCESS_BEING_DEBUGGED = 3057,
	VIX_PROPERTY_JOB_RESULT_SCREEN_IMAGE_DATA = 3059,
	VIX_PROPERTY_JOB_RESULT_FILE_SIZE = 3061,
	VIX_PROPERTY_JOB_RESULT_FILE_MOD_TIME = 3062,
	VIX_PROPERTY_FOUND_ITEM_LOCATION = 4010,
	VIX_PROPERTY_SNAPSHOT_DISPLAYNAME = 4200,
	VIX_PROPERTY_SNAPSHOT_DESCRIPTION = 4201,
	VIX_PROPERTY_GUEST_SHAREDFOLDERS_SHARES_PATH = 4525,
	VIX_PROPERTY_VM_ENCRYPTION_PASSWORD = 7001,
};

/* Events for callbacks. */
enum {
	VIX_EVENTTYPE_JOB_COMPLETED = 2,
	VIX_EVENTTYPE_JOB_PROGRESS = 3,
	VIX_EVENTTYPE_FIND_ITEM = 8,
};

/* Power. */
enum {
	VIX_VMPOWEROP_NORMAL = 0,
	VIX_VMPOWEROP_FROM_GUEST = 0x0004,
	VIX_VMPOWEROP_SUPPRESS_SNAPSHOT_POWERON = 0x0080,
	VIX_VMPOWEROP_LAUNCH_GUI = 0x0200,
	VIX_VMPOWEROP_START_VM_PAUSED = 0x1000,
	VIX_POWERSTATE_POWERING_OFF = 0x0001,
	VIX_POWERSTATE_POWERED_OFF = 0x0002,
	VIX_POWERSTATE_POWERING_ON = 0x0004,
	VIX_POWERSTATE_POWERED_ON = 0x0008,
	VIX_POWERSTATE_SUSPENDING = 0x0010,
	VIX_POWERSTATE_SUSPENDED = 0x0020,
	VIX_POWERSTATE_TOOLS_RUNNING = 0x0040,
	VIX_POWERSTATE_RESETTING = 0x0080,
	VIX_POWERSTATE_BLOCKED_ON_MSG = 0x0100,
	VIX_TOOLSSTATE_UNKNOWN = 0x0001,
	VIX_TOOLSSTATE_RUNNING = 0x0002,
	VIX_TOOLSSTATE_NOT_INSTALLED = 0x0004,
	VIX_VMDELETE_DISK_FILES = 0x0002,
};

/* Snapshots and clones. */
enum {
	VIX_SNAPSHOT_REMOVE_CHILDREN = 0x0001,
	VIX_SNAPSHOT_INCLUDE_MEMORY = 0x0002,
	VIX_CLONETYPE_FULL = 0,
	VIX_CLONETYPE_LINKED = 1,
};

/* Inside the guest. */
enum {
	VIX_VM_GUEST_VARIABLE = 1,
	VIX_VM_CONFIG_RUNTIME_ONLY = 2,
	VIX_GUEST_ENVIRONMENT_VARIABLE = 3,
	VIX_LOGIN_IN_GUEST_REQUIRE_INTERACTIVE_ENVIRONMENT = 0x08,
	VIX_RUNPROGRAM_RETURN_IMMEDIATELY = 0x0001,
	VIX_RUNPROGRAM_ACTIVATE_WINDOW = 0x0002,
	VIX_FILE_ATTRIBUTES_DIRECTORY = 0x0001,
	VIX_FILE_ATTRIBUTES_SYMLINK = 0x0002,
	VIX_SHAREDFOLDER_WRITE_ACCESS = 0x04,
	VIX_CAPTURESCREENFORMAT_PNG = 0x01,
	VIX_INSTALLTOOLS_MOUNT_TOOLS_INSTALLER = 0x00,
	VIX_INSTALLTOOLS_AUTO_UPGRADE = 0x01,
	VIX_INSTALLTOOLS_RETURN_IMMEDIATELY = 0x02,
};

/* Handles, properties and jobs. */
const char *Vix_GetErrorText(VixError err, const char *locale);
void Vix_ReleaseHandle(VixHandle handle);
VixError Vix_GetProperties(VixHandle handle, VixPropertyID firstPropertyID, ...);
void Vix_FreeBuffer(void *p);
VixError VixPropertyList_AllocPropertyList(VixHandle hostHandle,
        VixHandle *resultHandle, int firstPropertyID, ...);
VixError VixJob_Wait(VixHandle jobHandle, VixPropertyID firstPropertyID, ...);
int VixJob_GetNumProperties(VixHandle jobHandle, int resultPropertyID);
VixError VixJob_GetNthProperties(VixHandle jobHandle, int index, int propertyID, ...);

/* Hosts. */
VixHandle VixHost_Connect(int apiVersion, VixServiceProvider hostType,
        const char *hostName, int hostPort, const char *userName, const char *password,
        VixHostOptions options, VixHandle propertyListHandle,
        VixEventProc *callbackProc, void *clientData);
void VixHost_Disconnect(VixHandle hostHandle);
VixHandle VixHost_RegisterVM(VixHandle hostHandle, const char *vmxFilePath,
        VixEventProc *callbackProc, void *clientData);
VixHandle VixHost_UnregisterVM(VixHandle hostHandle, const char *vmxFilePath,
        VixEventProc *callbackProc, void *clientData);
VixHandle VixHost_FindItems(VixHandle hostHandle, VixFindItemType searchType,
        VixHandle searchCriteria, int32 timeout, VixEventProc *callbackProc,
        void *clientData);
VixHandle VixHost_OpenVM(VixHandle hostHandle, const char *vmxFilePathName,
        VixVMOpenOptions options, VixHandle propertyListHandle,
        VixEventProc *callbackProc, void *clientData);

/* Virtual machines. */
VixHandle VixVM_PowerOn(VixHandle vmHandle, VixVMPowerOpOptions powerOnOptions,
        VixHandle propertyListHandle, VixEventProc *callbackProc, void *clientData);
VixHandle VixVM_PowerOff(VixHandle vmHandle, VixVMPowerOpOptions powerOffOptions,
        VixEventProc *callbackProc, void *clientData);
VixHandle VixVM_Reset(VixHandle vmHandle, VixVMPowerOpOptions resetOptions,
        VixEventProc *callbackProc, void *clientData);
VixHandle VixVM_Suspend(VixHandle vmHandle, VixVMPowerOpOptions suspendOptions,
        VixEventProc *callbackProc, void *clientData);
VixHandle VixVM_Pause(VixHandle vmHandle, int options, VixHandle propertyList,
        VixEventProc *callbackProc, void *clientData);
VixHandle VixVM_Unpause(VixHandle vmHandle, int options, VixHandle propertyList,
        VixEventProc *callbackProc, void *clientData);
VixHandle VixVM_Delete(VixHandle vmHandle, VixVMDeleteOptions deleteOptions,
        VixEventProc *callbackProc, void *clientData);
VixHandle VixVM_WaitForToolsInGuest(VixHandle vmHandle, int timeoutInSeconds,
        VixEventProc *callbackProc, void *clientData);
VixHandle VixVM_LoginInGuest(VixHandle vmHandle, const char *userName,
        const char *password, int options, VixEventProc *callbackProc,
        void *clientData);
VixHandle VixVM_LogoutFromGuest(VixHandle vmHandle, VixEventProc *callbackProc,
        void *clientData);
VixHandle VixVM_RunProgramInGuest(VixHandle vmHandle, const char *guestProgramName,
        const char *commandLineArgs, VixRunProgramOptions options,
        VixHandle propertyListHandle, VixEventProc *callbackProc, void *clientData);
VixHandle VixVM_ListProcessesInGuest(VixHandle vmHandle, int options,
        VixEventProc *callbackProc, void *clientData);
VixHandle VixVM_KillProcessInGuest(VixHandle vmHandle, uint64 pid, int options,
        VixEventProc *callbackProc, void *clientData);
VixHandle VixVM_CopyFileFromHostToGuest(VixHandle vmHandle, const char *hostPathName,
        const char *guestPathName, int options, VixHandle propertyListHandle,
        VixEventProc *callbackProc, void *clientData);
VixHandle VixVM_CopyFileFromGuestToHost(VixHandle vmHandle, const char *guestPathName,
        const char *hostPathName, int options, VixHandle propertyListHandle,
        VixEventProc *callbackProc, void *clientData);
VixHandle VixVM_DeleteFileInGuest(VixHandle vmHandle, const char *guestPathName,
        VixEventProc *callbackProc, void *clientData);
VixHandle VixVM_FileExistsInGuest(VixHandle vmHandle, const char *guestPathName,
        VixEventProc *callbackProc, void *clientData);
VixHandle VixVM_RenameFileInGuest(VixHandle vmHandle, const char *oldName,
        const char *newName, int options, VixHandle propertyListHandle,
        VixEventProc *callbackProc, void *clientData);
VixHandle VixVM_CreateTempFileInGuest(VixHandle vmHandle, int options,
        VixHandle propertyListHandle, VixEventProc *callbackProc, void *clientData);
VixHandle VixVM_GetFileInfoInGuest(VixHandle vmHandle, const char *pathName,
        VixEventProc *callbackProc, void *clientData);
VixHandle VixVM_ListDirectoryInGuest(VixHandle vmHandle, const char *pathName,
        int options, VixEventProc *callbackProc, void *clientData);
VixHandle VixVM_CreateDirectoryInGuest(VixHandle vmHandle, const char *pathName,
        VixHandle propertyListHandle, VixEventProc *callbackProc, void *clientData);
VixHandle VixVM_DeleteDirectoryInGuest(VixHandle vmHandle, const char *pathName,
        int options, VixEventProc *callbackProc, void *clientData);
VixHandle VixVM_DirectoryExistsInGuest(VixHandle vmHandle, const char *pathName,
        VixEventProc *callbackProc, void *clientData);
VixHandle VixVM_ReadVariable(VixHandle vmHandle, int variableType, const char *name,
        int options, VixEventProc *callbackProc, void *clientData);
VixHandle VixVM_WriteVariable(VixHandle vmHandle, int variableType,
        const char *valueName, const char *value, int options,
        VixEventProc *callbackProc, void *clientData);
VixError VixVM_GetNumRootSnapshots(VixHandle vmHandle, int *result);
VixError VixVM_GetRootSnapshot(VixHandle vmHandle, int index,
        VixHandle *snapshotHandle);
VixError VixVM_GetCurrentSnapshot(VixHandle vmHandle, VixHandle *snapshotHandle);
VixError VixVM_GetNamedSnapshot(VixHandle vmHandle, const char *name,
        VixHandle *snapshotHandle);
VixHandle VixVM_RemoveSnapshot(VixHandle vmHandle, VixHandle snapshotHandle,
        VixRemoveSnapshotOptions options, VixEventProc *callbackProc,
        void *clientData);
VixHandle VixVM_RevertToSnapshot(VixHandle vmHandle, VixHandle snapshotHandle,
        VixVMPowerOpOptions options, VixHandle propertyListHandle,
        VixEventProc *callbackProc, void *clientData);
VixHandle VixVM_CreateSnapshot(VixHandle vmHandle, const char *name,
        const char *description, VixCreateSnapshotOptions options,
        VixHandle propertyListHandle, VixEventProc *callbackProc, void *clientData);
VixHandle VixVM_EnableSharedFolders(VixHandle vmHandle, Bool enabled, int options,
        VixEventProc *callbackProc, void *clientData);
VixHandle VixVM_GetNumSharedFolders(VixHandle vmHandle, VixEventProc *callbackProc,
        void *clientData);
VixHandle VixVM_GetSharedFolderState(VixHandle vmHandle, int index,
        VixEventProc *callbackProc, void *clientData);
VixHandle VixVM_SetSharedFolderState(VixHandle vmHandle, const char *shareName,
        const char *hostPathName, VixMsgSharedFolderOptions flags,
        VixEventProc *callbackProc, void *clientData);
VixHandle VixVM_AddSharedFolder(VixHandle vmHandle, const char *shareName,
        const char *hostPathName, VixMsgSharedFolderOptions flags,
        VixEventProc *callbackProc, void *clientData);
VixHandle VixVM_RemoveSharedFolder(VixHandle vmHandle, const char *shareName,
        int flags, VixEventProc *callbackProc, void *clientData);
VixHandle VixVM_CaptureScreenImage(VixHandle vmHandle, int captureType,
        VixHandle additionalProperties, VixEventProc *callbackProc, void *clientData);
VixHandle VixVM_Clone(VixHandle vmHandle, VixHandle snapshotHandle,
        VixCloneType cloneType, const char *destConfigPathName, int options,
        VixHandle propertyListHandle, VixEventProc *callbackProc, void *clientData);
VixHandle VixVM_UpgradeVirtualHardware(VixHandle vmHandle, int options,
        VixEventProc *callbackProc, void *clientData);
VixHandle VixVM_InstallTools(VixHandle vmHandle, int options,
        const char *commandLineArgs, VixEventProc *callbackProc, void *clientData);

/* Snapshots. */
VixError VixSnapshot_GetNumChildren(VixHandle parentSnapshotHandle,
        int *numChildSnapshots);
VixError VixSnapshot_GetChild(VixHandle parentSnapshotHandle, int index,
        VixHandle *childSnapshotHandle);
VixError VixSnapshot_GetParent(VixHandle snapshotHandle,
        VixHandle *parentSnapshotHandle);

#ifdef __cplusplus
}
#endif

#endif
