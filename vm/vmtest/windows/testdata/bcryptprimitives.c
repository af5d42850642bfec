/*
 * What Go 1.26 needs and wine 8 lacks: the library bcryptprimitives.dll with a source of random numbers, and the error
 * of systems that cannot remove files in the way of Windows 10. Go then removes them in another way.
 */
#include <windows.h>
#include <stdint.h>
#include <string.h>

enum {
	FILE_DISPOSITION_INFORMATION_EX = 64,
	STUB_SIZE = 32, /* a system call of wine, which has only absolute addresses */
	JUMP_SIZE = 12,
};

typedef LONG WINAPI set_information(HANDLE file, void *status, void *information, ULONG size, int class);

static set_information *original;

BOOLEAN NTAPI SystemFunction036(PVOID buffer, ULONG length); /* RtlGenRandom */

__declspec(dllexport) BOOL WINAPI ProcessPrng(PBYTE data, SIZE_T length)
{
	return SystemFunction036(data, length);
}

static LONG WINAPI replacement(HANDLE file, void *status, void *information, ULONG size, int class)
{
	if (class == FILE_DISPOSITION_INFORMATION_EX)
		return (LONG)0xC0000003; /* STATUS_INVALID_INFO_CLASS */
	return original(file, status, information, size, class);
}

/* Replaces NtSetInformationFile in this process. */
static void replace(void)
{
	unsigned char *code = (unsigned char *)(uintptr_t)GetProcAddress(GetModuleHandleA("ntdll.dll"), "NtSetInformationFile");
	unsigned char jump[JUMP_SIZE] = {0x48, 0xB8, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xE0}; /* mov rax, address; jmp rax */
	uintptr_t address = (uintptr_t)replacement;
	void *copy = VirtualAlloc(NULL, STUB_SIZE, MEM_COMMIT | MEM_RESERVE, PAGE_EXECUTE_READWRITE);
	DWORD old;

	memcpy(copy, code, STUB_SIZE);
	original = (set_information *)(uintptr_t)copy;
	memcpy(jump + 2, &address, sizeof address);
	if (VirtualProtect(code, sizeof jump, PAGE_EXECUTE_READWRITE, &old))
		memcpy(code, jump, sizeof jump);
}

BOOL WINAPI DllMain(HINSTANCE instance, DWORD reason, LPVOID reserved)
{
	(void)instance, (void)reserved;
	if (reason == DLL_PROCESS_ATTACH)
		replace();
	return TRUE;
}
