package image

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
	"unsafe"

	"golang.org/x/sys/windows"
)

// inUseTime is how long a rename or a removal is tried again. Windows neither renames nor removes a file that a process
// has open, nor renames a folder with such a file; and virus scanners open every new file for a moment.
const inUseTime = 5 * time.Second

// whileInUse calls f until it returns another error than that a file is in use, or for inUseTime.
func whileInUse(f func() error) error {
	end := time.Now().Add(inUseTime)
	for pause := time.Millisecond; ; pause = min(2*pause, 100*time.Millisecond) {
		err := f()
		inUse := errors.Is(err, windows.ERROR_SHARING_VIOLATION) || errors.Is(err, windows.ERROR_ACCESS_DENIED)
		if !inUse || time.Now().After(end) {
			return err
		}
		time.Sleep(pause)
	}
}

// replaceFile replaces a file by one rename.
func replaceFile(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path))
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// rename gives a file or a folder another name. If there is a file of that name, it is replaced. When rename returns,
// the disk has the new name.
func rename(from, to string) error {
	oldName, err := windows.UTF16PtrFromString(from)
	if err != nil {
		return err
	}
	newName, err := windows.UTF16PtrFromString(to)
	if err != nil {
		return err
	}
	err = whileInUse(func() error {
		return windows.MoveFileEx(oldName, newName, windows.MOVEFILE_REPLACE_EXISTING|windows.MOVEFILE_WRITE_THROUGH)
	})
	if err != nil {
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
	}
	return nil
}

// Remove removes a file. If a process has it open, Remove waits a few seconds.
func Remove(path string) error { return whileInUse(func() error { return os.Remove(path) }) }

// SyncPath makes a file's contents survive a loss of power. The names in a folder do without: the file system has a
// journal, and rename waits for it.
func SyncPath(path string) error {
	info, err := os.Stat(path)
	if err != nil || info.IsDir() {
		return err
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0) // #nosec G304
	if err != nil {
		return err
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("syncing %s: %w", path, err)
	}
	return nil
}

// allowHoles makes what is not written of a new file take no space, if the file system can do that.
func allowHoles(f *os.File) {
	var n uint32
	_ = windows.DeviceIoControl(windows.Handle(f.Fd()), windows.FSCTL_SET_SPARSE, nil, 0, nil, 0, &n, nil)
}

// links counts a file's names.
func links(path string, _ fs.FileInfo) uint64 {
	f, err := os.Open(path) // #nosec G304
	if err != nil {
		return 1
	}
	defer f.Close()
	var info windows.ByHandleFileInformation
	if err := windows.GetFileInformationByHandle(windows.Handle(f.Fd()), &info); err != nil {
		return 1
	}
	return uint64(info.NumberOfLinks)
}

// invalidFileSize is what GetCompressedFileSizeW returns for an error, and for one size in 2³².
const invalidFileSize = 0xFFFFFFFF

var getCompressedFileSize = windows.NewLazySystemDLL("kernel32.dll").NewProc("GetCompressedFileSizeW")

// diskBytes is what a file takes on disk, which for one with holes is less than its size.
func diskBytes(path string, info fs.FileInfo) int64 {
	name, err := windows.UTF16PtrFromString(path)
	if err != nil {
		return info.Size()
	}
	var high uint32
	low, _, err := getCompressedFileSize.Call(uintptr(unsafe.Pointer(name)), uintptr(unsafe.Pointer(&high)))
	if uint32(low) == invalidFileSize && !errors.Is(err, windows.ERROR_SUCCESS) {
		return info.Size()
	}
	return int64(high)<<32 | int64(uint32(low))
}

// diskSpace returns the bytes of dir's file system, and those of them that this
// process may still use.
func diskSpace(dir string) (free, total int64, err error) {
	name, err := windows.UTF16PtrFromString(dir)
	if err != nil {
		return 0, 0, err
	}
	var available, size uint64
	if err := windows.GetDiskFreeSpaceEx(name, &available, &size, nil); err != nil {
		return 0, 0, fmt.Errorf("asking for free disk space: %w", err)
	}
	return int64(available), int64(size), nil // #nosec G115
}

// isFull reports whether the system refused to write because the disk or a quota is full.
func isFull(err error) bool {
	return errors.Is(err, windows.ERROR_DISK_FULL) || errors.Is(err, windows.ERROR_HANDLE_DISK_FULL) ||
		errors.Is(err, windows.ERROR_DISK_QUOTA_EXCEEDED)
}
