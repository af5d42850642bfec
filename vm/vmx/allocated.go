package vmx

import (
	"fmt"
	"os"
	"path"
)

// Allocated returns how many bytes of data the disk at name inside root contains, without its parents. The image must
// have passed [Check]. For sparse files, Allocated adds up the grains in their tables. Extents of other types are counted
// in full.
func Allocated(root *os.Root, name string) (int64, error) {
	v, err := ReadVMDK(root, name)
	if err != nil {
		return 0, err
	}
	var sum int64
	var counter grainCounter
	for _, e := range v.Extents {
		n := e.Sectors * sectorSize
		if e.Type == "SPARSE" {
			if n, err = counter.extent(root, path.Join(path.Dir(name), e.File), n); err != nil {
				return 0, fmt.Errorf("counting the grains of %s: %w", name, err)
			}
		}
		sum += n
	}
	return min(sum, v.Capacity), nil
}

// extent returns how many bytes of data the file of a SPARSE extent of n bytes contains.
func (c *grainCounter) extent(root *os.Root, name string, n int64) (int64, error) {
	file, err := openRegular(root, name)
	if err != nil {
		return 0, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return 0, err
	}
	head, err := readAt(file, 0, headerSize)
	if err != nil || formatOf(head) != formatSparse {
		return n, err
	}
	h, err := readSparseHeader(file, head, info.Size())
	if err != nil {
		return 0, err
	}
	return c.allocated(file, h.grains, info.Size())
}
