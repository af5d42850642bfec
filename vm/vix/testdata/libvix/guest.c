/* Functions that the daemon never calls. Their jobs fail. The parameters are those of vix.h and are ignored. */
#include "double.h"

static int not_supported(struct work *w)
{
	(void)w;
	return E_NOT_SUPPORTED;
}

static VixHandle unsupported(const char *function, VixHandle vm)
{
	struct work w = {.run = not_supported};
	return job_start(function, vm, NULL, w);
}

EXPORT VixHandle VixVM_Pause(VixHandle vmHandle, int options, VixHandle propertyList,
		VixEventProc *callbackProc, void *clientData)
{
	(void)options, (void)propertyList, (void)callbackProc, (void)clientData;
	return unsupported("VixVM_Pause", vmHandle);
}

EXPORT VixHandle VixVM_Unpause(VixHandle vmHandle, int options, VixHandle propertyList,
		VixEventProc *callbackProc, void *clientData)
{
	(void)options, (void)propertyList, (void)callbackProc, (void)clientData;
	return unsupported("VixVM_Unpause", vmHandle);
}

EXPORT VixHandle VixVM_LoginInGuest(VixHandle vmHandle, const char *userName, const char
		*password, int options, VixEventProc *callbackProc, void *clientData)
{
	(void)userName, (void)password, (void)options, (void)callbackProc, (void)clientData;
	return unsupported("VixVM_LoginInGuest", vmHandle);
}

EXPORT VixHandle VixVM_LogoutFromGuest(VixHandle vmHandle, VixEventProc *callbackProc,
		void *clientData)
{
	(void)callbackProc, (void)clientData;
	return unsupported("VixVM_LogoutFromGuest", vmHandle);
}

EXPORT VixHandle VixVM_RunProgramInGuest(VixHandle vmHandle, const char
		*guestProgramName, const char *commandLineArgs, VixRunProgramOptions options,
		VixHandle propertyListHandle, VixEventProc *callbackProc, void *clientData)
{
	(void)guestProgramName, (void)commandLineArgs, (void)options,
	(void)propertyListHandle, (void)callbackProc, (void)clientData;
	return unsupported("VixVM_RunProgramInGuest", vmHandle);
}

EXPORT VixHandle VixVM_ListProcessesInGuest(VixHandle vmHandle, int options,
		VixEventProc *callbackProc, void *clientData)
{
	(void)options, (void)callbackProc, (void)clientData;
	return unsupported("VixVM_ListProcessesInGuest", vmHandle);
}

EXPORT VixHandle VixVM_KillProcessInGuest(VixHandle vmHandle, uint64 pid, int options,
		VixEventProc *callbackProc, void *clientData)
{
	(void)pid, (void)options, (void)callbackProc, (void)clientData;
	return unsupported("VixVM_KillProcessInGuest", vmHandle);
}

EXPORT VixHandle VixVM_CopyFileFromHostToGuest(VixHandle vmHandle, const char
		*hostPathName, const char *guestPathName, int options, VixHandle propertyListHandle,
		VixEventProc *callbackProc, void *clientData)
{
	(void)hostPathName, (void)guestPathName, (void)options, (void)propertyListHandle,
	(void)callbackProc, (void)clientData;
	return unsupported("VixVM_CopyFileFromHostToGuest", vmHandle);
}

EXPORT VixHandle VixVM_CopyFileFromGuestToHost(VixHandle vmHandle, const char
		*guestPathName, const char *hostPathName, int options, VixHandle propertyListHandle,
		VixEventProc *callbackProc, void *clientData)
{
	(void)guestPathName, (void)hostPathName, (void)options, (void)propertyListHandle,
	(void)callbackProc, (void)clientData;
	return unsupported("VixVM_CopyFileFromGuestToHost", vmHandle);
}

EXPORT VixHandle VixVM_DeleteFileInGuest(VixHandle vmHandle, const char *guestPathName,
		VixEventProc *callbackProc, void *clientData)
{
	(void)guestPathName, (void)callbackProc, (void)clientData;
	return unsupported("VixVM_DeleteFileInGuest", vmHandle);
}

EXPORT VixHandle VixVM_FileExistsInGuest(VixHandle vmHandle, const char *guestPathName,
		VixEventProc *callbackProc, void *clientData)
{
	(void)guestPathName, (void)callbackProc, (void)clientData;
	return unsupported("VixVM_FileExistsInGuest", vmHandle);
}

EXPORT VixHandle VixVM_RenameFileInGuest(VixHandle vmHandle, const char *oldName, const
		char *newName, int options, VixHandle propertyListHandle, VixEventProc *callbackProc,
		void *clientData)
{
	(void)oldName, (void)newName, (void)options, (void)propertyListHandle,
	(void)callbackProc, (void)clientData;
	return unsupported("VixVM_RenameFileInGuest", vmHandle);
}

EXPORT VixHandle VixVM_CreateTempFileInGuest(VixHandle vmHandle, int options, VixHandle
		propertyListHandle, VixEventProc *callbackProc, void *clientData)
{
	(void)options, (void)propertyListHandle, (void)callbackProc, (void)clientData;
	return unsupported("VixVM_CreateTempFileInGuest", vmHandle);
}

EXPORT VixHandle VixVM_GetFileInfoInGuest(VixHandle vmHandle, const char *pathName,
		VixEventProc *callbackProc, void *clientData)
{
	(void)pathName, (void)callbackProc, (void)clientData;
	return unsupported("VixVM_GetFileInfoInGuest", vmHandle);
}

EXPORT VixHandle VixVM_ListDirectoryInGuest(VixHandle vmHandle, const char *pathName,
		int options, VixEventProc *callbackProc, void *clientData)
{
	(void)pathName, (void)options, (void)callbackProc, (void)clientData;
	return unsupported("VixVM_ListDirectoryInGuest", vmHandle);
}

EXPORT VixHandle VixVM_CreateDirectoryInGuest(VixHandle vmHandle, const char *pathName,
		VixHandle propertyListHandle, VixEventProc *callbackProc, void *clientData)
{
	(void)pathName, (void)propertyListHandle, (void)callbackProc, (void)clientData;
	return unsupported("VixVM_CreateDirectoryInGuest", vmHandle);
}

EXPORT VixHandle VixVM_DeleteDirectoryInGuest(VixHandle vmHandle, const char *pathName,
		int options, VixEventProc *callbackProc, void *clientData)
{
	(void)pathName, (void)options, (void)callbackProc, (void)clientData;
	return unsupported("VixVM_DeleteDirectoryInGuest", vmHandle);
}

EXPORT VixHandle VixVM_DirectoryExistsInGuest(VixHandle vmHandle, const char *pathName,
		VixEventProc *callbackProc, void *clientData)
{
	(void)pathName, (void)callbackProc, (void)clientData;
	return unsupported("VixVM_DirectoryExistsInGuest", vmHandle);
}

EXPORT VixHandle VixVM_WriteVariable(VixHandle vmHandle, int variableType, const char
		*valueName, const char *value, int options, VixEventProc *callbackProc, void
		*clientData)
{
	(void)variableType, (void)valueName, (void)value, (void)options, (void)callbackProc,
	(void)clientData;
	return unsupported("VixVM_WriteVariable", vmHandle);
}

EXPORT VixHandle VixVM_RemoveSnapshot(VixHandle vmHandle, VixHandle snapshotHandle,
		VixRemoveSnapshotOptions options, VixEventProc *callbackProc, void *clientData)
{
	(void)snapshotHandle, (void)options, (void)callbackProc, (void)clientData;
	return unsupported("VixVM_RemoveSnapshot", vmHandle);
}

EXPORT VixHandle VixVM_RevertToSnapshot(VixHandle vmHandle, VixHandle snapshotHandle,
		VixVMPowerOpOptions options, VixHandle propertyListHandle, VixEventProc *callbackProc,
		void *clientData)
{
	(void)snapshotHandle, (void)options, (void)propertyListHandle, (void)callbackProc,
	(void)clientData;
	return unsupported("VixVM_RevertToSnapshot", vmHandle);
}

EXPORT VixHandle VixVM_EnableSharedFolders(VixHandle vmHandle, Bool enabled, int
		options, VixEventProc *callbackProc, void *clientData)
{
	(void)enabled, (void)options, (void)callbackProc, (void)clientData;
	return unsupported("VixVM_EnableSharedFolders", vmHandle);
}

EXPORT VixHandle VixVM_GetNumSharedFolders(VixHandle vmHandle, VixEventProc
		*callbackProc, void *clientData)
{
	(void)callbackProc, (void)clientData;
	return unsupported("VixVM_GetNumSharedFolders", vmHandle);
}

EXPORT VixHandle VixVM_GetSharedFolderState(VixHandle vmHandle, int index, VixEventProc
		*callbackProc, void *clientData)
{
	(void)index, (void)callbackProc, (void)clientData;
	return unsupported("VixVM_GetSharedFolderState", vmHandle);
}

EXPORT VixHandle VixVM_SetSharedFolderState(VixHandle vmHandle, const char *shareName,
		const char *hostPathName, VixMsgSharedFolderOptions flags, VixEventProc *callbackProc,
		void *clientData)
{
	(void)shareName, (void)hostPathName, (void)flags, (void)callbackProc,
	(void)clientData;
	return unsupported("VixVM_SetSharedFolderState", vmHandle);
}

EXPORT VixHandle VixVM_AddSharedFolder(VixHandle vmHandle, const char *shareName, const
		char *hostPathName, VixMsgSharedFolderOptions flags, VixEventProc *callbackProc, void
		*clientData)
{
	(void)shareName, (void)hostPathName, (void)flags, (void)callbackProc,
	(void)clientData;
	return unsupported("VixVM_AddSharedFolder", vmHandle);
}

EXPORT VixHandle VixVM_RemoveSharedFolder(VixHandle vmHandle, const char *shareName, int
		flags, VixEventProc *callbackProc, void *clientData)
{
	(void)shareName, (void)flags, (void)callbackProc, (void)clientData;
	return unsupported("VixVM_RemoveSharedFolder", vmHandle);
}

EXPORT VixHandle VixVM_InstallTools(VixHandle vmHandle, int options, const char
		*commandLineArgs, VixEventProc *callbackProc, void *clientData)
{
	(void)options, (void)commandLineArgs, (void)callbackProc, (void)clientData;
	return unsupported("VixVM_InstallTools", vmHandle);
}

EXPORT VixError VixSnapshot_GetNumChildren(VixHandle parentSnapshotHandle, int
		*numChildSnapshots)
{
	(void)parentSnapshotHandle, (void)numChildSnapshots;
	return make_error(E_NOT_SUPPORTED);
}

EXPORT VixError VixSnapshot_GetChild(VixHandle parentSnapshotHandle, int index,
		VixHandle *childSnapshotHandle)
{
	(void)parentSnapshotHandle, (void)index, (void)childSnapshotHandle;
	return make_error(E_NOT_SUPPORTED);
}

EXPORT VixError VixSnapshot_GetParent(VixHandle snapshotHandle, VixHandle
		*parentSnapshotHandle)
{
	(void)snapshotHandle, (void)parentSnapshotHandle;
	return make_error(E_NOT_SUPPORTED);
}
