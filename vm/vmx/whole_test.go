package vmx_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"osx-builder/vm/vmx"
)

// rawDisk writes a raw disk of 3 MiB and some sectors with data at its beginning, in its middle and at its end, and
// returns its path.
func rawDisk(t *testing.T) string {
	t.Helper()
	data := make([]byte, 3<<20+5*512)
	for _, at := range []int{0, 1 << 20, 2<<20 + 4096, len(data) - 512} {
		for i := range 512 {
			data[at+i] = byte(at>>12 + i*i>>3 + 1)
		}
	}
	return writeFile(t, filepath.Join(t.TempDir(), "raw.img"), data)
}

func writeFile(t *testing.T, name string, data []byte) string {
	t.Helper()
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func readFile(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// convert creates a disk of this subformat from a raw one, with a .vmx, and returns the folder.
func convert(t *testing.T, raw, subformat string) string {
	t.Helper()
	dir := t.TempDir()
	qemuImg(t, dir, "convert", "-f", "raw", "-O", "vmdk", "-o", "subformat="+subformat, raw, "d.vmdk")
	writeFile(t, filepath.Join(dir, "m.vmx"), []byte(machine("d.vmdk")))
	return dir
}

// contents returns what QEMU reads from the disk in dir.
func contents(t *testing.T, dir string) []byte {
	t.Helper()
	out := filepath.Join(t.TempDir(), "out.img")
	qemuImg(t, dir, "convert", "-f", "vmdk", "-O", "raw", "d.vmdk", out)
	return readFile(t, out)
}

// Wherever a file of a disk is truncated, either Check refuses the image, or QEMU reads the same data as before.
func TestCheckRefusesTruncatedDisks(t *testing.T) {
	raw := rawDisk(t)
	want := readFile(t, raw)
	files := map[string]string{"twoGbMaxExtentSparse": "d-s001.vmdk", "twoGbMaxExtentFlat": "d-f001.vmdk", "monolithicFlat": "d-flat.vmdk"}
	for _, subformat := range subformats {
		t.Run(subformat, func(t *testing.T) {
			t.Parallel()
			dir := convert(t, raw, subformat)
			name := filepath.Join(dir, files[subformat])
			if files[subformat] == "" {
				name = filepath.Join(dir, "d.vmdk")
			}
			whole := readFile(t, name)
			cuts := []int{1, 2, 511, 512, 513, 4096, 65535, 65536, 65537, 1 << 17}
			for i := range 20 {
				cuts = append(cuts, len(whole)*i/20+i, len(whole)-512*(i+1))
			}
			refused := 0
			for _, cut := range cuts {
				if cut <= 0 || cut > len(whole) {
					continue
				}
				writeFile(t, name, whole[:len(whole)-cut])
				err := vmx.Check(openRoot(t, dir), "m.vmx")
				if refusal := (*vmx.CheckError)(nil); errors.As(err, &refusal) && !refusal.Unsafe() {
					refused++
				} else if err != nil {
					t.Errorf("%d bytes less: got %v, want a CheckError that is not hostile", cut, err)
				} else if !bytes.Equal(contents(t, dir), want) {
					t.Errorf("%d bytes less: Check passes, but QEMU reads other data", cut)
				}
			}
			if refused < 20 {
				t.Errorf("%d truncated disks were refused, want at least 20", refused)
			}
		})
	}
}

// withFooter returns a streamOptimized file in the form that VMware writes: the header says that the directory's offset
// is in a footer, which is followed by the mark of the end.
func withFooter(data []byte) string {
	header := string(data[:512])
	return set(string(data), directory(^uint64(0))) + set(strings.Repeat("\x00", 512), field{12, 4, 3}) + header + strings.Repeat("\x00", 512)
}

// Files with one wrong field each, which QEMU would not open or would read as other data.
func TestCheckRefusesDamagedDisks(t *testing.T) {
	raw := rawDisk(t)
	stream := readFile(t, filepath.Join(convert(t, raw, "streamOptimized"), "d.vmdk"))
	footer := withFooter(stream)
	end := len(footer)
	marker := firstGrain(t, stream)
	for name, tt := range map[string]struct {
		file string
		want string
	}{
		"line ends":                 {string(bytes.Replace(stream, []byte("\n \r\n"), []byte("\n \n\n"), 1)), "line ends"},
		"no markers":                {set(string(stream), flags(1<<16|1)), "markers"},
		"marker of another grain":   {set(footer, field{marker, 8, 128}), "marker"},
		"empty grain":               {set(footer, field{marker + 8, 4, 0}), "marker"},
		"grain beyond the end":      {set(footer, field{marker + 8, 4, uint64(end)}), "ends beyond the end"},
		"footer of another type":    {set(footer, field{end - 1536 + 12, 4, 2}), "footer"},
		"footer without its header": {set(footer, field{end - 1024, 4, 0}), "footer"},
		"stream without its end":    {footer[:end-512], "footer"},
		"end of another type":       {set(footer, field{end - 512 + 12, 4, 1}), "footer"},
		"data behind the end":       {footer + strings.Repeat("x", 512), "footer"},
		"CID missing":               {strings.Replace(footer, "\nCID=", "\nCiX=", 1), "CID"},
		"CID only in a comment":     {strings.Replace(footer, "version=1\n", "#CID=1234\n", 1), "CID"},
	} {
		t.Run(name, func(t *testing.T) {
			if tt.file == footer {
				t.Fatal("the file is not damaged")
			}
			wantRefusal(t, folder(t, map[string]string{"m.vmx": machine("d.vmdk"), "d.vmdk": tt.file}), false, []string{"d.vmdk", tt.want})
		})
	}
	t.Run("a whole one", func(t *testing.T) {
		root := folder(t, map[string]string{"m.vmx": machine("d.vmdk"), "d.vmdk": footer})
		if err := vmx.Check(root, "m.vmx"); err != nil {
			t.Errorf("got %v", err)
		}
		if !bytes.Equal(contents(t, root.Name()), readFile(t, raw)) {
			t.Error("QEMU reads other data")
		}
	})
}

// firstGrain returns the byte at which the first compressed grain of a file begins.
func firstGrain(t *testing.T, data []byte) int {
	t.Helper()
	number := func(at int) int { return int(binary.LittleEndian.Uint32(data[at:])) }
	return number(number(number(56)*512)*512) * 512
}

// contentID returns the CID of the disk in dir.
func contentID(t *testing.T, dir string) string {
	t.Helper()
	disk := readFile(t, filepath.Join(dir, "d.vmdk"))
	at := bytes.Index(disk, []byte("\nCID=")) + 5
	cid, _, _ := strings.Cut(string(disk[at:at+9]), "\n")
	return cid
}

// A child whose parentCID is not the CID of its parent fails each read in QEMU, and VMware does not open it.
func TestCheckRefusesBrokenChains(t *testing.T) {
	raw := rawDisk(t)
	for _, subformat := range []string{"monolithicSparse", "twoGbMaxExtentSparse"} {
		dir := convert(t, raw, "monolithicSparse")
		for len(contentID(t, dir)) != 8 { // the changes below keep the files' length, and QEMU writes no leading zeroes
			dir = convert(t, raw, "monolithicSparse")
		}
		qemuImg(t, dir, "create", "-q", "-f", "vmdk", "-o", "subformat="+subformat, "-b", "d.vmdk", "-F", "vmdk", "c.vmdk")
		writeFile(t, filepath.Join(dir, "m.vmx"), []byte(machine("c.vmdk")))
		if err := vmx.Check(openRoot(t, dir), "m.vmx"); err != nil {
			t.Fatalf("%s: %v", subformat, err)
		}
		parent, child := readFile(t, filepath.Join(dir, "d.vmdk")), readFile(t, filepath.Join(dir, "c.vmdk"))
		cid := contentID(t, dir)
		for name, tt := range map[string]struct {
			parent, child []byte
			names         []string
		}{
			"parent changed":          {bytes.Replace(parent, []byte("\nCID="+cid), []byte("\nCID=12345678"), 1), child, []string{"c.vmdk", cid, "d.vmdk", "12345678"}},
			"child of another parent": {parent, bytes.Replace(child, []byte("parentCID="+cid), []byte("parentCID=12345678"), 1), []string{"c.vmdk", "12345678", "d.vmdk", cid}},
			"child of none":           {parent, bytes.Replace(child, []byte("parentCID="+cid), []byte("parentCID=ffffffff"), 1), []string{"c.vmdk", "parentCID", "d.vmdk"}},
		} {
			t.Run(subformat+", "+name, func(t *testing.T) {
				writeFile(t, filepath.Join(dir, "d.vmdk"), tt.parent)
				writeFile(t, filepath.Join(dir, "c.vmdk"), tt.child)
				wantRefusal(t, openRoot(t, dir), false, tt.names)
			})
		}
		t.Run(subformat+", leading zeroes", func(t *testing.T) {
			writeFile(t, filepath.Join(dir, "d.vmdk"), bytes.Replace(parent, []byte("\nCID="+cid), []byte("\nCID=0000abcd"), 1))
			writeFile(t, filepath.Join(dir, "c.vmdk"), bytes.Replace(child, []byte("parentCID="+cid), []byte("parentCID=ABCD\n\n\n\n"), 1))
			if err := vmx.Check(openRoot(t, dir), "m.vmx"); err != nil {
				t.Errorf("got %v", err)
			}
		})
	}
}

// A shared parent is compared with each of its children.
func TestCheckComparesSharedParents(t *testing.T) {
	files := map[string]string{
		"m.vmx":     machine("b.vmdk", `scsi0:1.present = "TRUE"`, `scsi0:1.fileName = "c.vmdk"`),
		"base.vmdk": sparse(text("monolithicSparse")), "b.vmdk": sparse(childText("base.vmdk")),
		"c.vmdk": sparse(strings.Replace(childText("base.vmdk"), "parentCID=fffffffe", "parentCID=00000001", 1)),
	}
	wantRefusal(t, folder(t, files), false, []string{"c.vmdk", "parentCID", "base.vmdk"})
}

// esxDisk returns the extents of ESX disks with the data of three grains, by type, and the disk's contents.
func esxDisk() (extents map[string]string, data []byte) {
	const sectors = 100_000
	data = make([]byte, sectors*512)
	grains := []int{0, 3, sectors/8 - 1} // of 8 sectors
	var written string
	cowdTables := make([]byte, 8*4096*4)
	seTables := make([]byte, 4*4096*8)
	for i, grain := range grains {
		text := strings.Repeat(fmt.Sprintf("%8d", i+1), 512)
		copy(data[grain*4096:], text)
		written += text
		binary.LittleEndian.PutUint32(cowdTables[4*grain:], uint32(8+len(cowdTables)/512+8*i))
		binary.LittleEndian.PutUint64(seTables[8*grain:], 3<<60|uint64(i)<<48)
	}
	cowdDirectory, seDirectory := make([]byte, 4*512), make([]byte, 512)
	for i := range 4 {
		binary.LittleEndian.PutUint32(cowdDirectory[4*i:], uint32(8+32*i))
		binary.LittleEndian.PutUint64(seDirectory[8*i:], 1<<60|uint64(i))
	}
	head := cowd(sectors, 8, 4)
	return map[string]string{
		"vmfsSparse": set(head, field{20, 4, 4}) + string(cowdDirectory) + string(cowdTables) + written,
		"seSparse":   seSparse(sectors, 1, field{192, 8, 3 + 256})[:1024] + string(seDirectory) + string(seTables) + written,
	}, data
}

// Of the disks of ESX too, a truncated one is refused, and what passes is what QEMU reads.
func TestCheckRefusesTruncatedESXDisks(t *testing.T) {
	extents, data := esxDisk()
	for createType, extent := range extents {
		files := func(extent string) map[string]string {
			return map[string]string{
				"m.vmx":  machine("d.vmdk"),
				"d.vmdk": text(createType, fmt.Sprintf(`RW 100000 %s "e.vmdk"`, strings.ToUpper(createType))), "e.vmdk": extent,
			}
		}
		t.Run(createType, func(t *testing.T) {
			root := folder(t, files(extent))
			if err := vmx.Check(root, "m.vmx"); err != nil {
				t.Fatal(err)
			}
			if got := contents(t, root.Name()); !bytes.Equal(got, data) {
				t.Fatal("QEMU reads other data")
			}
			for _, cut := range []int{1, 512, 4096, 5000, 3 * 4096, len(extent) / 2, len(extent) - 600} {
				wantRefusal(t, folder(t, files(extent[:len(extent)-cut])), false, []string{"e.vmdk"})
			}
		})
	}
	whole := extents["seSparse"]
	for name, extent := range map[string]string{
		"dirty":                      set(whole, field{512 + 24, 8, 1}),
		"second header missing":      set(whole, field{512, 8, 0}),
		"other version":              set(whole, field{8, 8, 3 << 32}),
		"other grains":               set(whole, field{24, 8, 16}),
		"unknown flags":              set(whole, field{40, 8, 1}),
		"unknown entry of directory": set(whole, field{1024, 8, 2 << 60}),
		"unknown grain":              set(whole, field{1536, 8, 7 << 60}),
		"grain beyond everything":    set(whole, field{1536, 8, 3<<60 | 1<<47}),
	} {
		t.Run(name, func(t *testing.T) {
			wantRefusal(t, folder(t, map[string]string{"m.vmx": machine("d.vmdk"), "d.vmdk": text("seSparse", `RW 100000 SESPARSE "e.vmdk"`), "e.vmdk": extent}), false, []string{"e.vmdk"})
		})
	}
}

// QEMU opens an offset only of FLAT extents.
func TestCheckRefusesOffsetsThatQEMUCannotRead(t *testing.T) {
	for _, line := range []string{`RW 8 VMFS "d-flat.vmdk" 0`, `RW 4 VMFS "d-flat.vmdk" 4`, `RW 2048 SPARSE "d-flat.vmdk" 0`} {
		wantRefusal(t, folder(t, flat(line)), false, []string{"d.vmdk", "extent offset", "d-flat.vmdk"})
	}
}
