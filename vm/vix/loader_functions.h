/*
 * The functions of VMware's library that govix calls, except the four with a variable number of arguments, which are in
 * loader.c:
 *
 *	VIX_FUNCTION(result type, name, parameters, arguments)
 */

VIX_FUNCTION(const char *, Vix_GetErrorText,
	(VixError err, const char *locale),
	(err, locale))
VIX_FUNCTION(void, Vix_ReleaseHandle,
	(VixHandle handle),
	(handle))
VIX_FUNCTION(void, Vix_FreeBuffer,
	(void *p),
	(p))
VIX_FUNCTION(VixHandle, VixHost_Connect,
	(int apiVersion, VixServiceProvider hostType, const char *hostName, int
	 hostPort, const char *userName, const char *password, VixHostOptions options,
	 VixHandle propertyListHandle, VixEventProc *callbackProc, void *clientData),
	(apiVersion, hostType, hostName, hostPort, userName, password, options,
	 propertyListHandle, callbackProc, clientData))
VIX_FUNCTION(void, VixHost_Disconnect,
	(VixHandle hostHandle),
	(hostHandle))
VIX_FUNCTION(VixHandle, VixHost_RegisterVM,
	(VixHandle hostHandle, const char *vmxFilePath, VixEventProc *callbackProc,
	 void *clientData),
	(hostHandle, vmxFilePath, callbackProc, clientData))
VIX_FUNCTION(VixHandle, VixHost_UnregisterVM,
	(VixHandle hostHandle, const char *vmxFilePath, VixEventProc *callbackProc,
	 void *clientData),
	(hostHandle, vmxFilePath, callbackProc, clientData))
VIX_FUNCTION(VixHandle, VixHost_FindItems,
	(VixHandle hostHandle, VixFindItemType searchType, VixHandle searchCriteria,
	 int32 timeout, VixEventProc *callbackProc, void *clientData),
	(hostHandle, searchType, searchCriteria, timeout, callbackProc, clientData))
VIX_FUNCTION(VixHandle, VixHost_OpenVM,
	(VixHandle hostHandle, const char *vmxFilePathName, VixVMOpenOptions options,
	 VixHandle propertyListHandle, VixEventProc *callbackProc, void *clientData),
	(hostHandle, vmxFilePathName, options, propertyListHandle, callbackProc,
	 clientData))
VIX_FUNCTION(VixHandle, VixVM_PowerOn,
	(VixHandle vmHandle, VixVMPowerOpOptions powerOnOptions, VixHandle
	 propertyListHandle, VixEventProc *callbackProc, void *clientData),
	(vmHandle, powerOnOptions, propertyListHandle, callbackProc, clientData))
VIX_FUNCTION(VixHandle, VixVM_PowerOff,
	(VixHandle vmHandle, VixVMPowerOpOptions powerOffOptions, VixEventProc
	 *callbackProc, void *clientData),
	(vmHandle, powerOffOptions, callbackProc, clientData))
VIX_FUNCTION(VixHandle, VixVM_Reset,
	(VixHandle vmHandle, VixVMPowerOpOptions resetOptions, VixEventProc
	 *callbackProc, void *clientData),
	(vmHandle, resetOptions, callbackProc, clientData))
VIX_FUNCTION(VixHandle, VixVM_Suspend,
	(VixHandle vmHandle, VixVMPowerOpOptions suspendOptions, VixEventProc
	 *callbackProc, void *clientData),
	(vmHandle, suspendOptions, callbackProc, clientData))
VIX_FUNCTION(VixHandle, VixVM_Pause,
	(VixHandle vmHandle, int options, VixHandle propertyList, VixEventProc
	 *callbackProc, void *clientData),
	(vmHandle, options, propertyList, callbackProc, clientData))
VIX_FUNCTION(VixHandle, VixVM_Unpause,
	(VixHandle vmHandle, int options, VixHandle propertyList, VixEventProc
	 *callbackProc, void *clientData),
	(vmHandle, options, propertyList, callbackProc, clientData))
VIX_FUNCTION(VixHandle, VixVM_Delete,
	(VixHandle vmHandle, VixVMDeleteOptions deleteOptions, VixEventProc
	 *callbackProc, void *clientData),
	(vmHandle, deleteOptions, callbackProc, clientData))
VIX_FUNCTION(VixHandle, VixVM_WaitForToolsInGuest,
	(VixHandle vmHandle, int timeoutInSeconds, VixEventProc *callbackProc, void
	 *clientData),
	(vmHandle, timeoutInSeconds, callbackProc, clientData))
VIX_FUNCTION(VixHandle, VixVM_LoginInGuest,
	(VixHandle vmHandle, const char *userName, const char *password, int options,
	 VixEventProc *callbackProc, void *clientData),
	(vmHandle, userName, password, options, callbackProc, clientData))
VIX_FUNCTION(VixHandle, VixVM_LogoutFromGuest,
	(VixHandle vmHandle, VixEventProc *callbackProc, void *clientData),
	(vmHandle, callbackProc, clientData))
VIX_FUNCTION(VixHandle, VixVM_RunProgramInGuest,
	(VixHandle vmHandle, const char *guestProgramName, const char *commandLineArgs,
	 VixRunProgramOptions options, VixHandle propertyListHandle, VixEventProc
	 *callbackProc, void *clientData),
	(vmHandle, guestProgramName, commandLineArgs, options, propertyListHandle,
	 callbackProc, clientData))
VIX_FUNCTION(VixHandle, VixVM_ListProcessesInGuest,
	(VixHandle vmHandle, int options, VixEventProc *callbackProc, void *clientData),
	(vmHandle, options, callbackProc, clientData))
VIX_FUNCTION(VixHandle, VixVM_KillProcessInGuest,
	(VixHandle vmHandle, uint64 pid, int options, VixEventProc *callbackProc, void
	 *clientData),
	(vmHandle, pid, options, callbackProc, clientData))
VIX_FUNCTION(VixHandle, VixVM_CopyFileFromHostToGuest,
	(VixHandle vmHandle, const char *hostPathName, const char *guestPathName, int
	 options, VixHandle propertyListHandle, VixEventProc *callbackProc, void
	 *clientData),
	(vmHandle, hostPathName, guestPathName, options, propertyListHandle,
	 callbackProc, clientData))
VIX_FUNCTION(VixHandle, VixVM_CopyFileFromGuestToHost,
	(VixHandle vmHandle, const char *guestPathName, const char *hostPathName, int
	 options, VixHandle propertyListHandle, VixEventProc *callbackProc, void
	 *clientData),
	(vmHandle, guestPathName, hostPathName, options, propertyListHandle,
	 callbackProc, clientData))
VIX_FUNCTION(VixHandle, VixVM_DeleteFileInGuest,
	(VixHandle vmHandle, const char *guestPathName, VixEventProc *callbackProc,
	 void *clientData),
	(vmHandle, guestPathName, callbackProc, clientData))
VIX_FUNCTION(VixHandle, VixVM_FileExistsInGuest,
	(VixHandle vmHandle, const char *guestPathName, VixEventProc *callbackProc,
	 void *clientData),
	(vmHandle, guestPathName, callbackProc, clientData))
VIX_FUNCTION(VixHandle, VixVM_RenameFileInGuest,
	(VixHandle vmHandle, const char *oldName, const char *newName, int options,
	 VixHandle propertyListHandle, VixEventProc *callbackProc, void *clientData),
	(vmHandle, oldName, newName, options, propertyListHandle, callbackProc,
	 clientData))
VIX_FUNCTION(VixHandle, VixVM_CreateTempFileInGuest,
	(VixHandle vmHandle, int options, VixHandle propertyListHandle, VixEventProc
	 *callbackProc, void *clientData),
	(vmHandle, options, propertyListHandle, callbackProc, clientData))
VIX_FUNCTION(VixHandle, VixVM_GetFileInfoInGuest,
	(VixHandle vmHandle, const char *pathName, VixEventProc *callbackProc, void
	 *clientData),
	(vmHandle, pathName, callbackProc, clientData))
VIX_FUNCTION(VixHandle, VixVM_ListDirectoryInGuest,
	(VixHandle vmHandle, const char *pathName, int options, VixEventProc
	 *callbackProc, void *clientData),
	(vmHandle, pathName, options, callbackProc, clientData))
VIX_FUNCTION(VixHandle, VixVM_CreateDirectoryInGuest,
	(VixHandle vmHandle, const char *pathName, VixHandle propertyListHandle,
	 VixEventProc *callbackProc, void *clientData),
	(vmHandle, pathName, propertyListHandle, callbackProc, clientData))
VIX_FUNCTION(VixHandle, VixVM_DeleteDirectoryInGuest,
	(VixHandle vmHandle, const char *pathName, int options, VixEventProc
	 *callbackProc, void *clientData),
	(vmHandle, pathName, options, callbackProc, clientData))
VIX_FUNCTION(VixHandle, VixVM_DirectoryExistsInGuest,
	(VixHandle vmHandle, const char *pathName, VixEventProc *callbackProc, void
	 *clientData),
	(vmHandle, pathName, callbackProc, clientData))
VIX_FUNCTION(VixHandle, VixVM_ReadVariable,
	(VixHandle vmHandle, int variableType, const char *name, int options,
	 VixEventProc *callbackProc, void *clientData),
	(vmHandle, variableType, name, options, callbackProc, clientData))
VIX_FUNCTION(VixHandle, VixVM_WriteVariable,
	(VixHandle vmHandle, int variableType, const char *valueName, const char
	 *value, int options, VixEventProc *callbackProc, void *clientData),
	(vmHandle, variableType, valueName, value, options, callbackProc, clientData))
VIX_FUNCTION(VixError, VixVM_GetNumRootSnapshots,
	(VixHandle vmHandle, int *result),
	(vmHandle, result))
VIX_FUNCTION(VixError, VixVM_GetRootSnapshot,
	(VixHandle vmHandle, int index, VixHandle *snapshotHandle),
	(vmHandle, index, snapshotHandle))
VIX_FUNCTION(VixError, VixVM_GetCurrentSnapshot,
	(VixHandle vmHandle, VixHandle *snapshotHandle),
	(vmHandle, snapshotHandle))
VIX_FUNCTION(VixError, VixVM_GetNamedSnapshot,
	(VixHandle vmHandle, const char *name, VixHandle *snapshotHandle),
	(vmHandle, name, snapshotHandle))
VIX_FUNCTION(VixHandle, VixVM_RemoveSnapshot,
	(VixHandle vmHandle, VixHandle snapshotHandle, VixRemoveSnapshotOptions
	 options, VixEventProc *callbackProc, void *clientData),
	(vmHandle, snapshotHandle, options, callbackProc, clientData))
VIX_FUNCTION(VixHandle, VixVM_RevertToSnapshot,
	(VixHandle vmHandle, VixHandle snapshotHandle, VixVMPowerOpOptions options,
	 VixHandle propertyListHandle, VixEventProc *callbackProc, void *clientData),
	(vmHandle, snapshotHandle, options, propertyListHandle, callbackProc,
	 clientData))
VIX_FUNCTION(VixHandle, VixVM_CreateSnapshot,
	(VixHandle vmHandle, const char *name, const char *description,
	 VixCreateSnapshotOptions options, VixHandle propertyListHandle, VixEventProc
	 *callbackProc, void *clientData),
	(vmHandle, name, description, options, propertyListHandle, callbackProc,
	 clientData))
VIX_FUNCTION(VixHandle, VixVM_EnableSharedFolders,
	(VixHandle vmHandle, Bool enabled, int options, VixEventProc *callbackProc,
	 void *clientData),
	(vmHandle, enabled, options, callbackProc, clientData))
VIX_FUNCTION(VixHandle, VixVM_GetNumSharedFolders,
	(VixHandle vmHandle, VixEventProc *callbackProc, void *clientData),
	(vmHandle, callbackProc, clientData))
VIX_FUNCTION(VixHandle, VixVM_GetSharedFolderState,
	(VixHandle vmHandle, int index, VixEventProc *callbackProc, void *clientData),
	(vmHandle, index, callbackProc, clientData))
VIX_FUNCTION(VixHandle, VixVM_SetSharedFolderState,
	(VixHandle vmHandle, const char *shareName, const char *hostPathName,
	 VixMsgSharedFolderOptions flags, VixEventProc *callbackProc, void *clientData),
	(vmHandle, shareName, hostPathName, flags, callbackProc, clientData))
VIX_FUNCTION(VixHandle, VixVM_AddSharedFolder,
	(VixHandle vmHandle, const char *shareName, const char *hostPathName,
	 VixMsgSharedFolderOptions flags, VixEventProc *callbackProc, void *clientData),
	(vmHandle, shareName, hostPathName, flags, callbackProc, clientData))
VIX_FUNCTION(VixHandle, VixVM_RemoveSharedFolder,
	(VixHandle vmHandle, const char *shareName, int flags, VixEventProc
	 *callbackProc, void *clientData),
	(vmHandle, shareName, flags, callbackProc, clientData))
VIX_FUNCTION(VixHandle, VixVM_CaptureScreenImage,
	(VixHandle vmHandle, int captureType, VixHandle additionalProperties,
	 VixEventProc *callbackProc, void *clientData),
	(vmHandle, captureType, additionalProperties, callbackProc, clientData))
VIX_FUNCTION(VixHandle, VixVM_Clone,
	(VixHandle vmHandle, VixHandle snapshotHandle, VixCloneType cloneType, const
	 char *destConfigPathName, int options, VixHandle propertyListHandle,
	 VixEventProc *callbackProc, void *clientData),
	(vmHandle, snapshotHandle, cloneType, destConfigPathName, options,
	 propertyListHandle, callbackProc, clientData))
VIX_FUNCTION(VixHandle, VixVM_UpgradeVirtualHardware,
	(VixHandle vmHandle, int options, VixEventProc *callbackProc, void *clientData),
	(vmHandle, options, callbackProc, clientData))
VIX_FUNCTION(VixHandle, VixVM_InstallTools,
	(VixHandle vmHandle, int options, const char *commandLineArgs, VixEventProc
	 *callbackProc, void *clientData),
	(vmHandle, options, commandLineArgs, callbackProc, clientData))
VIX_FUNCTION(int, VixJob_GetNumProperties,
	(VixHandle jobHandle, int resultPropertyID),
	(jobHandle, resultPropertyID))
VIX_FUNCTION(VixError, VixSnapshot_GetNumChildren,
	(VixHandle parentSnapshotHandle, int *numChildSnapshots),
	(parentSnapshotHandle, numChildSnapshots))
VIX_FUNCTION(VixError, VixSnapshot_GetChild,
	(VixHandle parentSnapshotHandle, int index, VixHandle *childSnapshotHandle),
	(parentSnapshotHandle, index, childSnapshotHandle))
VIX_FUNCTION(VixError, VixSnapshot_GetParent,
	(VixHandle snapshotHandle, VixHandle *parentSnapshotHandle),
	(snapshotHandle, parentSnapshotHandle))
