package vmx_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"osx-builder/vm/vmx"
)

// field is a number in a header.
type field struct {
	offset, bytes int
	value         uint64
}

// The fields of a hosted sparse header.
func flags(n uint64) field           { return field{8, 4, n} }
func capacity(n uint64) field        { return field{12, 8, n} }
func grainSize(n uint64) field       { return field{20, 8, n} }
func perTable(n uint64) field        { return field{44, 4, n} }
func secondDirectory(n uint64) field { return field{48, 8, n} }
func directory(n uint64) field       { return field{56, 8, n} }
func overHead(n uint64) field        { return field{64, 8, n} }
func algorithm(n uint64) field       { return field{77, 2, n} }

// set returns the file with other fields.
func set(file string, fields ...field) string {
	b := []byte(file)
	for _, f := range fields {
		var number [8]byte
		binary.LittleEndian.PutUint64(number[:], f.value)
		copy(b[f.offset:f.offset+f.bytes], number[:])
	}
	return string(b)
}

// cowd returns an extent of an ESX disk with empty grains.
func cowd(sectors, grain, entries uint64) string {
	return set("COWD"+strings.Repeat("\x00", 2044), field{4, 4, 1}, field{12, 4, sectors}, field{16, 4, grain}, field{20, 4, 2}, field{24, 4, entries})
}

// seSparse returns an extent of a newer ESX disk with empty grains: the header, the second header, the directory.
func seSparse(sectors, directorySectors uint64, fields ...field) string {
	return set("\xbe\xba\xfe\xca"+strings.Repeat("\x00", 2044), append([]field{
		{8, 8, 2<<32 | 1},
		{16, 8, sectors},
		{24, 8, 8},
		{32, 8, 64},
		{80, 8, 1},
		{88, 8, 1},
		{512, 8, 0xcafecafe},
		{128, 8, 2},
		{136, 8, directorySectors},
		{144, 8, 3},
		{192, 8, 67},
	}, fields...)...)
}

// split returns an image whose one disk consists of sparse files.
func split(lines []string, files map[string]string) map[string]string {
	return with(files, map[string]string{"m.vmx": machine("d.vmdk"), "d.vmdk": text("twoGbMaxExtentSparse", lines...)})
}

// esx returns an image whose one disk has one extent of an ESX disk.
func esx(createType, kind, file string) map[string]string {
	return map[string]string{"m.vmx": machine("d.vmdk"), "d.vmdk": text(createType, fmt.Sprintf(`RW 8 %s "e.vmdk"`, kind)), "e.vmdk": file}
}

// grainTables returns a sparse extent with a directory of these tables, which begins at sector 2, and sectors behind it.
// Each table lists the grain at the sector given.
func grainTables(tables []uint32, grain uint32, sectors int, fields ...field) string {
	b := make([]byte, 512*sectors)
	copy(b, set(sparse(""), append([]field{directory(2), capacity(uint64(len(tables)) * 65536)}, fields...)...)[:512])
	for i, at := range tables {
		binary.LittleEndian.PutUint32(b[1024+4*i:], at)
		for j := 0; j < 512 && int(at)*512+4*j < len(b); j++ {
			binary.LittleEndian.PutUint32(b[int(at)*512+4*j:], grain)
		}
	}
	return string(b)
}

// What an image claims costs memory and time when a hypervisor or Check reads it, so each claim is held against what it
// can be.
func TestCheckRefusesExcessiveTables(t *testing.T) {
	one := func(fields ...field) map[string]string {
		return split([]string{`RW 2048 SPARSE "e.vmdk"`}, map[string]string{"e.vmdk": set(sparse(""), fields...)})
	}
	whole := func(fields ...field) map[string]string {
		return map[string]string{"m.vmx": machine("d.vmdk"), "d.vmdk": set(sparse(text("monolithicSparse")), fields...)}
	}
	extent := func(sectors int, file string) map[string]string {
		return split([]string{fmt.Sprintf(`RW %d SPARSE "e.vmdk"`, sectors)}, map[string]string{"e.vmdk": file})
	}
	repeated := func(n int) []uint32 {
		tables := make([]uint32, n)
		for i := range tables {
			tables[i] = 4
		}
		return tables
	}
	two := func(second string) map[string]string {
		return map[string]string{
			"m.vmx":  machine("d.vmdk", `scsi0:1.present = "TRUE"`, `scsi0:1.fileName = "`+second+`"`),
			"d.vmdk": text("monolithicFlat", goodExtent), "d-flat.vmdk": strings.Repeat("x", 4096),
			"b.vmdk": text("monolithicFlat", goodExtent),
			"c.vmdk": text("monolithicFlat", `RW 1 FLAT "c" 0`, `parentFileNameHint="d.vmdk"`), "c": strings.Repeat("x", 512),
			"e.vmdk": text("monolithicFlat", `RW 1 FLAT "d.vmdk" 0`), "d2": strings.Repeat("x", 512),
		}
	}
	// Each of these files is honest, and all of them have empty tables.
	var many []string
	files := map[string]string{}
	for i := range 2100 {
		name := fmt.Sprintf("e%d.vmdk", i)
		many = append(many, fmt.Sprintf("RW 2048 SPARSE %q", name))
		files[name] = sparse("")[:22*512]
	}
	footer := set(strings.Repeat("\x00", 512), field{12, 4, 3}) + set(sparse(""), directory(21), capacity(4096))[:512]
	tests := map[string]refused{
		// The image of 482 bytes for which QEMU allocated 4.2 GiB.
		"directory of 128 MiB, 16 times":   {split([]string{strings.Repeat("RW 8 SPARSE \"e.vmdk\"\n", 16)}, map[string]string{"e.vmdk": set(sparse(""), capacity(1<<37), grainSize(8))}), []string{"e.vmdk", "gdOffset", "134217728"}},
		"one sparse file twice":            {split([]string{`RW 2048 SPARSE "e.vmdk"`, `RW 2048 SPARSE "./e.vmdk"`}, map[string]string{"e.vmdk": sparse("")}), []string{"./e.vmdk", "twice"}},
		"one flat file twice":              {flat(`RW 4 FLAT "d-flat.vmdk" 0`, `RW 4 FLAT "d-flat.vmdk" 4`), []string{"d-flat.vmdk", "twice"}},
		"descriptor as an extent":          {flat(`RW 1 FLAT "d.vmdk" 0`), []string{"d.vmdk", "twice"}},
		"one file as two disks":            {two("d.vmdk"), []string{"scsi0:1.fileName", "d.vmdk", "another disk"}},
		"one extent in two disks":          {two("b.vmdk"), []string{"b.vmdk", "d-flat.vmdk", "twice"}},
		"disk as the other's parent":       {two("c.vmdk"), []string{"c.vmdk", "parentFileNameHint", "scsi0:0.fileName"}},
		"disk's descriptor as an extent":   {two("e.vmdk"), []string{"e.vmdk", "d.vmdk", "twice"}},
		"capacity above the line":          {one(capacity(4096)), []string{"e.vmdk", "capacity", "4096", "2048"}},
		"capacity below the line":          {one(capacity(2047)), []string{"e.vmdk", "capacity", "2047", "2048"}},
		"capacity rounded in the middle":   {split([]string{`RW 2000 SPARSE "e.vmdk"`, `RW 2048 SPARSE "f.vmdk"`}, map[string]string{"e.vmdk": sparse(""), "f.vmdk": sparse("")}), []string{"e.vmdk", "capacity", "2048", "2000"}},
		"embedded line of another size":    {embedded(text("monolithicSparse", `RW 4096 SPARSE "d.vmdk"`)), []string{"d.vmdk", "capacity", "2048", "4096"}},
		"grain of no sector":               {one(grainSize(0)), []string{"e.vmdk", "grainSize", `"0"`}},
		"grain of 1 sector":                {one(grainSize(1)), []string{"e.vmdk", "grainSize", `"1"`, "4 KiB"}},
		"grain of 4 sectors":               {whole(grainSize(4)), []string{"d.vmdk", "grainSize", `"4"`}},
		"grain of 2 MiB":                   {one(grainSize(4096)), []string{"e.vmdk", "grainSize", `"4096"`, "1 MiB"}},
		"grain of 2^63 sectors":            {one(grainSize(1 << 63)), []string{"grainSize", "9223372036854775808"}},
		"grain of 96 sectors":              {one(grainSize(96)), []string{"grainSize", `"96"`, "power of two"}},
		"tables without entries":           {one(perTable(0)), []string{"numGTEsPerGT", `"0"`, "512"}},
		"tables of 1 entry":                {one(perTable(1)), []string{"numGTEsPerGT", `"1"`}},
		"tables of 2^31 entries":           {whole(perTable(1 << 31)), []string{"numGTEsPerGT", "2147483648"}},
		"unknown compression":              {one(algorithm(2)), []string{"compressAlgorithm", `"2"`}},
		"first grain beyond the end":       {one(overHead(1 << 40)), []string{"overHead", "1099511627776"}},
		"directory in the header":          {one(directory(0)), []string{"gdOffset", `"0"`}},
		"directory beyond the end":         {one(directory(22)), []string{"gdOffset", `"22"`, "11264"}},
		"directory beyond everything":      {one(directory(1 << 60)), []string{"gdOffset", "1152921504606846976"}},
		"directory larger than the file":   {extent(1<<37, set(sparse(""), capacity(1<<37))), []string{"gdOffset", "8388608 bytes"}},
		"second directory beyond the end":  {one(flags(2), secondDirectory(22)), []string{"rgdOffset", `"22"`}},
		"directory of the footer":          {map[string]string{"m.vmx": machine("d.vmdk"), "d.vmdk": set(sparse(text("streamOptimized", `RW 2048 SPARSE "d.vmdk"`)), directory(^uint64(0))) + footer + strings.Repeat("\x00", 512)}, []string{"d.vmdk", "capacity", "4096", "2048"}},
		"footer not at a sector":           {map[string]string{"m.vmx": machine("d.vmdk"), "d.vmdk": set(sparse(text("streamOptimized", `RW 2048 SPARSE "d.vmdk"`)), directory(^uint64(0))) + footer + strings.Repeat("\x00", 511)}, []string{"d.vmdk", "12799", "multiple of 512"}},
		"table beyond the end":             {extent(65536, grainTables([]uint32{1 << 30}, 0, 8)), []string{"e.vmdk", "grain table", "1073741824"}},
		"grain beyond the end":             {extent(65536, grainTables([]uint32{3}, 8, 8)), []string{"e.vmdk", "grain", `"8"`}},
		"one table many times":             {extent(100*65536, grainTables(repeated(100), 0, 8)), []string{"e.vmdk", "grain directory", "4096 bytes"}},
		"one grain many times":             {extent(65536, grainTables([]uint32{4}, 7, 1024)), []string{"e.vmdk", "grain tables", `"512"`}},
		"one compressed grain many times":  {extent(65536, grainTables([]uint32{4}, 7, 64, algorithm(1), flags(1<<16|1<<17), field{7 * 512, 8, 0}, field{7*512 + 8, 4, 9})), []string{"e.vmdk", "grain", `"7"`, "marker"}},
		"2,100 extents":                    {split(many, files), []string{"d.vmdk", "e2047.vmdk", "67108864"}},
		"ESX disk of another size":         {esx("vmfsSparse", "VMFSSPARSE", cowd(9, 1, 1)), []string{"e.vmdk", "capacity", `"9"`}},
		"ESX disk without grains":          {esx("vmfsSparse", "VMFSSPARSE", cowd(8, 0, 1)), []string{"e.vmdk", "grainSize", `"0"`}},
		"ESX disk, directory of 128 MiB":   {esx("vmfsSparse", "VMFSSPARSE", cowd(8, 1, 1<<25)), []string{"e.vmdk", "numGDEntries", "33554432"}},
		"ESX disk, directory too small":    {esx("vmfsSparse", "VMFSSPARSE", cowd(8, 1, 0)), []string{"e.vmdk", "numGDEntries", `"0"`}},
		"ESX disk, directory at the end":   {esx("vmfsSparse", "VMFSSPARSE", set(cowd(8, 1, 1), field{20, 4, 4})), []string{"e.vmdk", "gdOffset", `"4"`}},
		"ESX disk, cut":                    {esx("vmfsSparse", "VMFSSPARSE", "COWD"), []string{"e.vmdk", "truncated"}},
		"new ESX disk of another size":     {esx("seSparse", "SESPARSE", seSparse(1<<36, 1)), []string{"e.vmdk", "capacity", "68719476736"}},
		"new ESX disk, 2^63 in directory":  {esx("seSparse", "SESPARSE", seSparse(8, 1<<63)), []string{"e.vmdk", "grain directory", "9223372036854775808"}},
		"new ESX disk, directory of 1 GiB": {esx("seSparse", "SESPARSE", seSparse(8, 1<<21)), []string{"e.vmdk", "grain directory", "2097152"}},
		"new ESX disk, no directory":       {esx("seSparse", "SESPARSE", seSparse(8, 0)), []string{"e.vmdk", "grain directory", `"0"`}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) { wantRefusal(t, folder(t, tt.files), false, tt.names) })
	}
}

// zeroes makes the file longer, without using space.
func zeroes(t *testing.T, root *os.Root, name string, size int64) {
	t.Helper()
	if err := os.Truncate(filepath.Join(root.Name(), name), size); err != nil {
		t.Fatal(err)
	}
}

// An archive contains large directories of zeroes in a few bytes, so their sum is bounded even if the files are as large
// as they claim.
func TestCheckBoundsWhatHypervisorsLoad(t *testing.T) {
	root := folder(t, split([]string{`RW 137438953472 SPARSE "e.vmdk"`}, map[string]string{"e.vmdk": set(sparse(""), capacity(1<<37), grainSize(8))}))
	zeroes(t, root, "e.vmdk", 129<<20)
	wantRefusal(t, root, false, []string{"d.vmdk", "e.vmdk", "134250496", "67108864"})

	// Both of two disks load the directory of their common parent, which has 40 MiB.
	const entries = 10 << 20
	base := set(sparse(text("monolithicSparse")), capacity(entries*512*8), grainSize(8))
	child := sparse(childText("base.vmdk"))
	files := map[string]string{"m.vmx": machine("b.vmdk"), "base.vmdk": base, "b.vmdk": child, "c.vmdk": child}
	root = folder(t, files)
	zeroes(t, root, "base.vmdk", 41<<20)
	if err := vmx.Check(root, "m.vmx"); err != nil {
		t.Errorf("one disk with a directory of 40 MiB: %v", err)
	}
	files["m.vmx"] = machine("b.vmdk", `scsi0:1.present = "TRUE"`, `scsi0:1.fileName = "c.vmdk"`)
	root = folder(t, files)
	zeroes(t, root, "base.vmdk", 41<<20)
	wantRefusal(t, root, false, []string{"c.vmdk", "parentFileNameHint", "base.vmdk", "67108864"})
}

// More than 1 GiB of tables, all of zeroes, in two files.
func TestCheckBoundsTheTablesItReads(t *testing.T) {
	const tables = 300_000
	at := make([]byte, 4*tables)
	for i := range tables {
		binary.LittleEndian.PutUint32(at[4*i:], uint32(4*i+4*tables)) // #nosec G115
	}
	e := set(sparse(""), directory(1), capacity(tables*65536))[:512] + string(at)
	lines := []string{fmt.Sprintf(`RW %d SPARSE "e.vmdk"`, tables*65536), fmt.Sprintf(`RW %d SPARSE "f.vmdk"`, tables*65536)}
	root := folder(t, split(lines, map[string]string{"e.vmdk": e, "f.vmdk": e}))
	for _, name := range []string{"e.vmdk", "f.vmdk"} {
		zeroes(t, root, name, 2*4*tables*512)
	}
	wantRefusal(t, root, false, []string{"d.vmdk", "f.vmdk", "1073741824"})
}

func TestCheckerMaxDisk(t *testing.T) {
	flatDisk := flat(goodExtent)
	base := sparse(text("monolithicSparse"))
	child := sparse(childText("base.vmdk"))
	tests := map[string]struct {
		files map[string]string
		size  int64
		names []string
	}{
		"flat":   {flatDisk, 4096, []string{"d.vmdk"}},
		"sparse": {embedded(text("monolithicSparse")), 1 << 20, []string{"d.vmdk"}},
		"parent": {map[string]string{"m.vmx": machine("c.vmdk"), "c.vmdk": set(child, capacity(1024)), "base.vmdk": base}, 1 << 20, []string{"base.vmdk"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			root := folder(t, tt.files)
			for _, limit := range []int64{0, tt.size} {
				if err := (vmx.Checker{MaxDisk: limit}).Check(root, "m.vmx"); err != nil {
					t.Errorf("limit %d: %v", limit, err)
				}
			}
			err := vmx.Checker{MaxDisk: tt.size - 1}.Check(root, "m.vmx")
			if refusal := (*vmx.CheckError)(nil); !errors.As(err, &refusal) || refusal.Unsafe() {
				t.Fatalf("got %v, want a CheckError that is not hostile", err)
			}
			for _, name := range append(tt.names, "capacity", fmt.Sprint(tt.size), fmt.Sprint(tt.size-1), "-image-max-disk") {
				if !strings.Contains(err.Error(), name) {
					t.Errorf("got %v, want it to name %s", err, name)
				}
			}
		})
	}
}

// The disks that qemu-img makes pass, empty ones, full ones, and those of sizes that no grain divides, and what is
// allocated in them is what was written.
func TestCheckPassesQEMUDisks(t *testing.T) {
	dir := t.TempDir()
	raw, err := os.Create(filepath.Join(dir, "raw.img"))
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	const grain = 64 << 10
	for _, size := range []int64{512, 3 * grain, 5<<30 + 512} {
		for _, written := range []int64{0, 1, 40} {
			if written*grain > size {
				continue
			}
			if err := errors.Join(raw.Truncate(0), raw.Truncate(size)); err != nil {
				t.Fatal(err)
			}
			for i := range written {
				if _, err := raw.WriteAt([]byte("x"), size/max(1, written)*i/grain*grain); err != nil {
					t.Fatal(err)
				}
			}
			for _, subformat := range subformats {
				t.Run(fmt.Sprintf("%s of %d bytes with %d grains", subformat, size, written), func(t *testing.T) {
					out := t.TempDir()
					qemuImg(t, out, "convert", "-f", "raw", "-O", "vmdk", "-o", "subformat="+subformat, raw.Name(), "d.vmdk")
					if err := os.WriteFile(filepath.Join(out, "m.vmx"), []byte(machine("d.vmdk")), 0o600); err != nil {
						t.Fatal(err)
					}
					root := openRoot(t, out)
					if err := vmx.Check(root, "m.vmx"); err != nil {
						t.Error(err)
					}
					want := written * grain
					if strings.HasSuffix(subformat, "Flat") {
						want = size
					}
					if got, err := vmx.Allocated(root, "d.vmdk"); err != nil || got != want {
						t.Errorf("allocated: got %d, %v, want %d", got, err, want)
					}
				})
			}
		}
	}
}

// VirtualBox rounds the capacity of a disk up to whole grains, and not what its descriptor says.
func TestCheckPassesARoundedCapacity(t *testing.T) {
	for name, files := range map[string]map[string]string{
		"embedded": embedded(text("streamOptimized", `RDONLY 2000 SPARSE "d.vmdk"`)),
		"split":    split([]string{`RW 2048 SPARSE "e.vmdk"`, `RW 1921 SPARSE "f.vmdk"`}, map[string]string{"e.vmdk": sparse(""), "f.vmdk": sparse("")}),
	} {
		if err := vmx.Check(folder(t, files), "m.vmx"); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
