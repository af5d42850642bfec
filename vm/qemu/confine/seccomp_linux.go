package confine

import (
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// forbidden lists system calls that no program needs here, and that reach into other processes, change the system or
// avoid the other rules. QEMU's own filter, which follows, is stricter. Here it would be too strict: QEMU has not
// started yet.
var forbidden = []uint32{
	unix.SYS_PTRACE, unix.SYS_PROCESS_VM_READV, unix.SYS_PROCESS_VM_WRITEV, unix.SYS_KCMP, unix.SYS_PIDFD_GETFD,
	unix.SYS_PIDFD_OPEN, unix.SYS_PERF_EVENT_OPEN, unix.SYS_BPF, unix.SYS_USERFAULTFD,
	unix.SYS_IO_URING_SETUP, unix.SYS_IO_URING_ENTER, unix.SYS_IO_URING_REGISTER, // would open sockets and files
	unix.SYS_ADD_KEY, unix.SYS_REQUEST_KEY, unix.SYS_KEYCTL,
	unix.SYS_UNSHARE, unix.SYS_SETNS, unix.SYS_CHROOT, unix.SYS_PIVOT_ROOT, unix.SYS_MOUNT, unix.SYS_UMOUNT2,
	unix.SYS_FSOPEN, unix.SYS_FSPICK, unix.SYS_FSMOUNT, unix.SYS_OPEN_TREE, unix.SYS_MOVE_MOUNT, unix.SYS_MOUNT_SETATTR,
	unix.SYS_OPEN_BY_HANDLE_AT, unix.SYS_QUOTACTL, unix.SYS_SWAPON, unix.SYS_SWAPOFF, unix.SYS_REBOOT,
	unix.SYS_INIT_MODULE, unix.SYS_FINIT_MODULE, unix.SYS_DELETE_MODULE, unix.SYS_KEXEC_LOAD, unix.SYS_SYSLOG,
	unix.SYS_SETTIMEOFDAY, unix.SYS_CLOCK_SETTIME, unix.SYS_ADJTIMEX, unix.SYS_CLOCK_ADJTIME, unix.SYS_ACCT,
	unix.SYS_SETHOSTNAME, unix.SYS_SETDOMAINNAME, unix.SYS_VHANGUP, unix.SYS_FANOTIFY_INIT, unix.SYS_LOOKUP_DCOOKIE,
}

// audited has the kernel's number of each architecture that the filter knows.
var audited = map[string]uint32{"amd64": unix.AUDIT_ARCH_X86_64, "arm64": unix.AUDIT_ARCH_AARCH64}

// Offsets in struct seccomp_data.
const (
	callOffset = 0
	archOffset = 4
	argsOffset = 16 // 8 bytes each; the low half comes first on the architectures in audited

	x32Calls = 0x4000_0000 // the first call of amd64's other calling convention
)

const (
	allow = unix.SECCOMP_RET_ALLOW
	deny  = unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)
)

// restrictCalls gives the calling thread a seccomp filter. Calls that the filter forbids fail with EPERM.
func restrictCalls(r Rules) error {
	if seccomp().Why != "" {
		return nil
	}
	raw, err := bpf.Assemble(filter(audited[runtime.GOARCH], r.Network))
	if err != nil {
		return fmt.Errorf("assembling the filter: %w", err)
	}
	code := make([]unix.SockFilter, len(raw))
	for i, in := range raw {
		code[i] = unix.SockFilter{Code: in.Op, Jt: in.Jt, Jf: in.Jf, K: in.K}
	}
	program := unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]} // #nosec G115 -- about a hundred
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&program)))
	if errno != 0 {
		return os.NewSyscallError("seccomp", errno)
	}
	return nil
}

// filter returns the program that judges each system call. Calls of another architecture are denied, since they have
// other numbers.
func filter(arch uint32, network bool) []bpf.Instruction {
	load := func(offset uint32) bpf.Instruction { return bpf.LoadAbsolute{Off: offset, Size: 4} }
	unless := func(value uint32) bpf.Instruction { return bpf.JumpIf{Cond: bpf.JumpEqual, Val: value, SkipTrue: 1} }
	when := func(value uint32) bpf.Instruction { return bpf.JumpIf{Cond: bpf.JumpEqual, Val: value, SkipFalse: 1} }
	denied, allowed := bpf.RetConstant{Val: deny}, bpf.RetConstant{Val: allow}

	program := []bpf.Instruction{load(archOffset), unless(arch), denied, load(callOffset)}
	program = append(program, bpf.JumpIf{Cond: bpf.JumpGreaterOrEqual, Val: x32Calls, SkipFalse: 1}, denied)
	for _, call := range forbidden {
		program = append(program, when(call), denied)
	}
	if !network {
		return append(program, when(unix.SYS_SOCKET), denied, allowed)
	}
	// Sockets are TCP's and UDP's only: neither raw ones nor those of other programs on the host.
	return append(program,
		unless(unix.SYS_SOCKET), allowed,
		load(argsOffset), // the family
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.AF_INET, SkipTrue: 2},
		unless(unix.AF_INET6), denied,
		load(argsOffset+8), bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: 0xf}, // the type without its flags
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.SOCK_STREAM, SkipTrue: 2},
		unless(unix.SOCK_DGRAM), denied,
		load(argsOffset+16), when(unix.IPPROTO_MPTCP), denied, // to which Landlock's rules about TCP do not apply
		allowed,
	)
}

// seccomp reports whether the kernel filters system calls.
func seccomp() Measure {
	m := Measure{Name: "seccomp"}
	if audited[runtime.GOARCH] == 0 {
		m.Why = "there is no filter for " + runtime.GOARCH
		return m
	}
	action := uint32(unix.SECCOMP_RET_ERRNO)
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_GET_ACTION_AVAIL, 0, uintptr(unsafe.Pointer(&action)))
	if errno != 0 {
		m.Why = fmt.Sprintf("the kernel does not offer it: %v", errno)
	}
	return m
}
