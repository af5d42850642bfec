package vmx_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"osx-builder/vm/vmx"
)

// machine returns a .vmx with one SCSI disk and more lines.
func machine(disk string, lines ...string) string {
	return "scsi0.present = \"TRUE\"\nscsi0:0.present = \"TRUE\"\nscsi0:0.fileName = \"" + disk + "\"\n" + strings.Join(lines, "\n") + "\n"
}

// flat returns an image with one disk, a text descriptor with these lines.
func flat(lines ...string) map[string]string {
	return map[string]string{
		"m.vmx":       machine("d.vmdk"),
		"d.vmdk":      text("monolithicFlat", lines...),
		"d-flat.vmdk": strings.Repeat("x", 4096),
	}
}

// embedded returns an image with one disk, a sparse file with this descriptor.
func embedded(descriptor string) map[string]string {
	return map[string]string{"m.vmx": machine("d.vmdk"), "d.vmdk": sparse(descriptor)}
}

const (
	goodExtent = `RW 8 FLAT "d-flat.vmdk" 0`
	qcow2      = "QFI\xfb\x00\x00\x00\x03\x00\x00\x00\x00\x00\x00\x00\x68\x00\x00\x00\x0b"
	shadow     = "/etc/shadow"
)

// with returns the image with added or replaced files.
func with(image, files map[string]string) map[string]string {
	image = maps.Clone(image)
	maps.Copy(image, files)
	return image
}

func TestCheckAcceptsImages(t *testing.T) {
	child := childText("d.vmdk", `RW 2048 SPARSE "c.vmdk"`)
	tests := map[string]map[string]string{
		"flat disk":                         flat("# Extent description", goodExtent, "", `ddb.adapterType = "lsilogic"`),
		"flat disk of ESX":                  with(flat(), map[string]string{"d.vmdk": text("vmfs", `RW 8 VMFS "d-flat.vmdk"`)}),
		"sparse disk":                       embedded(text("monolithicSparse", `RW 2048 SPARSE "d.vmdk"`)),
		"sparse disk, renamed":              embedded(text("streamOptimized", `RDONLY 2048 SPARSE "generated-stream.vmdk"`)),
		"disk in a folder":                  {"a/m.vmx": machine("./disks/d.vmdk"), "a/disks/d.vmdk": text("monolithicFlat", `RW 8 FLAT "x/f" 0`), "a/disks/x/f": strings.Repeat("x", 4096)},
		"parent":                            with(embedded(text("monolithicSparse")), map[string]string{"m.vmx": machine("c.vmdk"), "c.vmdk": sparse(child)}),
		"two of one parent":                 with(embedded(text("monolithicSparse")), map[string]string{"m.vmx": machine("c.vmdk", `scsi0:1.present = "TRUE"`, `scsi0:1.fileName = "b.vmdk"`), "b.vmdk": sparse(child), "c.vmdk": sparse(child)}),
		"ESX snapshot":                      with(flat(), map[string]string{"d.vmdk": text("vmfsSparse", `RW 8 VMFSSPARSE "e.vmdk"`), "e.vmdk": cowd(8, 1, 1)}),
		"new ESX snapshot":                  with(flat(), map[string]string{"d.vmdk": text("seSparse", `RW 8 SESPARSE "e.vmdk"`), "e.vmdk": seSparse(8, 1)}),
		"nvram not there":                   with(flat(goodExtent), map[string]string{"m.vmx": machine("d.vmdk", `nvram = "m.nvram"`)}),
		"nvram there":                       with(flat(goodExtent), map[string]string{"m.vmx": machine("d.vmdk", `nvram = "m.nvram"`), "m.nvram": "x"}),
		"snapshots":                         with(flat(goodExtent), map[string]string{"m.vmsd": "snapshot.numSnapshots = \"1\"\nsnapshot0.filename = \"m-1.vmsn\"\nsnapshot0.disk0.fileName = \"d.vmdk\""}),
		"devices of the host":               with(flat(goodExtent), map[string]string{"m.vmx": machine("d.vmdk", `ide1:0.present = "TRUE"`, `ide1:0.deviceType = "cdrom-raw"`, `ide1:0.fileName = "/dev/cdrom"`, `serial0.present = "TRUE"`, `serial0.fileName = "/dev/ttyS0"`)}),
		"device not present":                with(flat(goodExtent), map[string]string{"m.vmx": machine("d.vmdk", `scsi0:1.present = "FALSE"`, `scsi0:1.fileName = "/dev/sda"`)}),
		"key set twice alike":               with(flat(goodExtent), map[string]string{"m.vmx": machine("d.vmdk", `scsi0:0.filename = "d.vmdk"`)}),
		"change tracking":                   flat(goodExtent, `changeTrackPath="d-ctk.vmdk"`),
		"the guest's data looks like qcow2": with(flat(goodExtent), map[string]string{"d-flat.vmdk": qcow2 + strings.Repeat("\x00", 4096)}),
	}
	for name, files := range tests {
		t.Run(name, func(t *testing.T) {
			at := "m.vmx"
			if _, ok := files[at]; !ok {
				at = "a/m.vmx"
			}
			if err := vmx.Check(folder(t, files), at); err != nil {
				t.Errorf("got %v", err)
			}
		})
	}
	for _, subformat := range subformats {
		t.Run("made by QEMU as "+subformat, func(t *testing.T) {
			dir := t.TempDir()
			makeDisk(t, dir, subformat, "d.vmdk")
			if err := os.WriteFile(filepath.Join(dir, "m.vmx"), []byte(machine("d.vmdk")), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := vmx.Check(openRoot(t, dir), "m.vmx"); err != nil {
				t.Errorf("got %v", err)
			}
		})
	}
}

// refused is an image that Check must refuse.
type refused struct {
	files map[string]string
	names []string // parts of the message that identify the cause
}

func TestCheckRefusesHostileImages(t *testing.T) {
	disk := func(name string) refused {
		return refused{with(flat(goodExtent), map[string]string{"m.vmx": machine(name)}), []string{"m.vmx", "scsi0:0.fileName"}}
	}
	extent := func(line string) refused { return refused{flat(line), []string{"d.vmdk", "extent"}} }
	parent := func(hint string) refused {
		return refused{flat(goodExtent, hint), []string{"d.vmdk", "parentFileNameHint"}}
	}
	inSparse := func(lines ...string) refused {
		return refused{embedded(text("monolithicSparse", lines...)), []string{"d.vmdk"}}
	}
	tests := map[string]refused{
		// The published attacks.
		"CVE-2022-47951: flat extent outside":      extent(`RW 8 FLAT "/etc/passwd" 0`),
		"CVE-2024-32498: qcow2 posing as VMDK":     {with(flat(), map[string]string{"d.vmdk": qcow2 + strings.Repeat("\x00", 512)}), []string{"m.vmx", "scsi0:0.fileName", "d.vmdk", "QCOW"}},
		"CVE-2024-4467: json: as the disk":         disk(`json:{|22driver|22:|22file|22,|22filename|22:|22/etc/shadow|22}`),
		"CVE-2024-4467: json: as the parent":       parent(`parentFileNameHint="json:{'driver':'raw','file':{'filename':'/etc/shadow'}}"`),
		"raw as VMDK":                              {with(flat(), map[string]string{"d.vmdk": "root:x:0:0\n"}), []string{"scsi0:0.fileName", "raw"}},
		"absolute disk":                            disk(shadow),
		"device":                                   disk("/dev/sda"),
		"disk above":                               disk("../d.vmdk"),
		"disk above, then below":                   disk("a/../../d.vmdk"),
		"disk on a Windows drive":                  disk(`C:\d.vmdk`),
		"disk on a drive, with slashes":            disk("C:/d.vmdk"),
		"disk on a share":                          disk(`\\server\share\d.vmdk`),
		"URL":                                      disk("https://example.org/d.vmdk"),
		"nbd":                                      disk("nbd:localhost:10809"),
		"file:":                                    disk("file:d.vmdk"),
		"protocol behind a blank":                  disk("a b:d.vmdk"),
		"line end in a name":                       disk("d.vmdk|0A"),
		"NUL in a name":                            disk("d.vmdk|00x"),
		"name without end":                         disk(strings.Repeat("d", 501)),
		"a folder":                                 {map[string]string{"m.vmx": machine("d.vmdk"), "d.vmdk/x": ""}, []string{"scsi0:0.fileName"}},
		"raw disk":                                 {with(flat(goodExtent), map[string]string{"m.vmx": machine("d.vmdk", `scsi0:0.deviceType = "rawDisk"`)}), []string{"scsi0:0.deviceType"}},
		"redo log outside":                         {with(flat(goodExtent), map[string]string{"m.vmx": machine("d.vmdk", `scsi0:0.redo = "/etc/cron.d/x"`)}), []string{"scsi0:0.redo"}},
		"snapshot outside":                         {with(flat(goodExtent), map[string]string{"m.vmsd": `snapshot0.disk0.fileName = "/home/jane/work.vmdk"`}), []string{"m.vmsd", "snapshot0.disk0.filename", "/home/jane"}},
		"snapshot outside, set over":               {with(flat(goodExtent), map[string]string{"m.vmsd": "a.fileName = \"/x\"\na.fileName = \"y\""}), []string{"m.vmsd", "a.filename"}},
		"nvram outside":                            {with(flat(goodExtent), map[string]string{"m.vmx": machine("d.vmdk", `nvram = "/etc/passwd"`)}), []string{"nvram"}},
		"disk on a controller not present":         {with(flat(goodExtent), map[string]string{"m.vmx": machine("d.vmdk", `nvme0:0.present = "TRUE"`, `nvme0:0.fileName = "/etc/shadow"`)}), []string{"nvme0:0.fileName"}},
		"second line of a key behind a lone CR":    {with(flat(goodExtent), map[string]string{"m.vmx": machine("d.vmdk", "annotation = \"x\"\rsata0:0.present = TRUE\rsata0:0.fileName = \"/etc/shadow\"")}), []string{"sata0:0.fileName"}},
		"extent above":                             extent(`RW 8 FLAT "../f" 0`),
		"extent on a device of Windows":            extent(`RW 8 FLAT "\\.\PhysicalDrive0" 0`),
		"extent with a protocol":                   extent(`RW 8 SPARSE "nbd:unix:/run/x"`),
		"raw extent":                               extent(`RW 8 VMFSRAW "d-flat.vmdk"`),
		"raw device mapping":                       extent(`RW 8 VMFSRDM "d-flat.vmdk"`),
		"sparse extent that is a qcow2":            {with(flat(`RW 8 SPARSE "e.vmdk"`), map[string]string{"e.vmdk": qcow2}), []string{"d.vmdk", "e.vmdk"}},
		"sparse extent that is itself a list":      {with(flat(`RW 8 SPARSE "e.vmdk"`), map[string]string{"e.vmdk": emptySparse(`RW 8 FLAT "/etc/shadow" 0`)}), []string{"e.vmdk", "capacity"}},
		"sparse disk that is a list":               {with(flat(), map[string]string{"d.vmdk": emptySparse(`RW 8 FLAT "/etc/shadow" 0`)}), []string{"capacity"}},
		"absolute parent":                          parent(`parentFileNameHint="/etc/shadow"`),
		"parent above":                             parent(`parentFileNameHint="../base.vmdk"`),
		"parent with a protocol":                   parent(`parentFileNameHint="nbd:localhost:10809"`),
		"parent that only QEMU sees":               parent(`#parentFileNameHint="/etc/shadow"`),
		"parent that QEMU reads otherwise":         {with(flat(goodExtent, `parentFileNameHint= "d2.vmdk"`), map[string]string{"d2.vmdk": text("monolithicFlat", goodExtent)}), []string{"parentFileNameHint"}},
		"parent in the padding of a sparse file":   {embedded(text("monolithicSparse") + "\x00\x00" + `parentFileNameHint="/etc/shadow"`), []string{"parentFileNameHint"}},
		"parent beside a descriptor put elsewhere": {with(flat(), map[string]string{"d.vmdk": movedDescriptor()}), []string{"parentFileNameHint"}},
		"parent of a sparse file":                  inSparse(`parentFileNameHint="/etc/shadow"`),
		"hostile parent of the parent":             {with(embedded(childText("b.vmdk")), map[string]string{"b.vmdk": sparse(text("monolithicSparse", `parentFileNameHint="/dev/sda"`))}), []string{"b.vmdk", "parentFileNameHint", "/dev/sda"}},
		"parent that is a qcow2":                   {with(embedded(childText("b.vmdk")), map[string]string{"b.vmdk": qcow2}), []string{"d.vmdk", "parentFileNameHint", "b.vmdk"}},
		"extent claimed by a sparse file":          inSparse(`RW 2048 FLAT "/etc/shadow" 0`),
		"raw extent claimed by a sparse file":      inSparse(`RW 2048 VMFSRAW "x"`),
		"change tracking outside":                  {flat(goodExtent, `changeTrackPath="/etc/cron.d/x"`), []string{"changeTrackPath"}},
		"parent of the cloud":                      {flat(goodExtent, `ddb.objectParentUri = "vvol://x"`), []string{"ddb.objectParentUri"}},
	}
	for _, kind := range []string{"fullDevice", "partitionedDevice", "vmfsRaw", "vmfsRawDeviceMap", "vmfsPassthroughRawDeviceMap", "vmfsRDM", "custom"} {
		tests["createType "+kind] = refused{with(flat(), map[string]string{"d.vmdk": text(kind, goodExtent)}), []string{"createType", kind}}
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) { wantRefusal(t, folder(t, tt.files), true, tt.names) })
	}
}

func TestCheckRefusesDamagedImages(t *testing.T) {
	many := map[string]string{"m.vmx": machine("d00.vmdk")}
	for i := range 40 {
		many[fmt.Sprintf("d%02d.vmdk", i)] = sparse(childText(fmt.Sprintf("d%02d.vmdk", i+1)))
	}
	tests := map[string]refused{
		"no .vmx":                 {map[string]string{"other.vmx": ""}, []string{"m.vmx"}},
		"no hard disk":            {map[string]string{"m.vmx": "memsize = 512\n"}, []string{"m.vmx", "no hard disk"}},
		"disk missing":            {map[string]string{"m.vmx": machine("d.vmdk")}, []string{"m.vmx", "scsi0:0.fileName", "d.vmdk"}},
		"backslashes":             {map[string]string{"m.vmx": machine(`disks\d.vmdk`)}, []string{"scsi0:0.fileName", "forward slashes"}},
		"disk without a name":     {map[string]string{"m.vmx": machine("")}, []string{"scsi0:0.fileName"}},
		"NUL in the .vmx":         {map[string]string{"m.vmx": "\x00"}, []string{"m.vmx", "NUL"}},
		"encrypted":               {map[string]string{"m.vmx": `encryption.data = "AAAA"`}, []string{"encryption.data"}},
		"encrypted whole":         {map[string]string{"m.vmx": "encryption.data = \"AAAA\"\nvmx.encryptionType = \"full\"\n"}, []string{"encryption.data"}},
		"partly, without disks":   {map[string]string{"m.vmx": "encryption.data = \"AAAA\"\nvmx.encryptionType = \"partial\"\n"}, []string{"no hard disk"}},
		"no such slot":            {map[string]string{"m.vmx": `scsi9:0.present = "TRUE"`}, []string{"m.vmx", "scsi9:0.present"}},
		"disk named twice":        {with(flat(goodExtent), map[string]string{"m.vmx": machine("d.vmdk", `scsi0:0.filename = "e.vmdk"`)}), []string{"scsi0:0.filename"}},
		"present twice":           {with(flat(goodExtent), map[string]string{"m.vmx": machine("d.vmdk", `scsi0:0.present = "FALSE"`)}), []string{"scsi0:0.present"}},
		"extent missing":          {flat(`RW 8 FLAT "f.vmdk" 0`), []string{"d.vmdk", "extent", "f.vmdk"}},
		"extent too short":        {flat(`RW 9 FLAT "d-flat.vmdk" 0`), []string{"d.vmdk", "d-flat.vmdk", "4096", "4608"}},
		"extent begins too late":  {flat(`RW 8 FLAT "d-flat.vmdk" 1`), []string{"d-flat.vmdk"}},
		"sparse extent is raw":    {with(flat(`RW 8 SPARSE "d-flat.vmdk"`), nil), []string{"extent", "d-flat.vmdk", "raw"}},
		"sparse extent is a text": {flat(`RW 8 SPARSE "d.vmdk"`), []string{"d.vmdk"}},
		"extent of zeroes":        {flat(goodExtent, "RW 8 ZERO"), []string{"ZERO"}},
		"extent only to be read":  {flat(`RDONLY 8 FLAT "d-flat.vmdk" 0`), []string{"RDONLY"}},
		"no extent":               {flat(), []string{"d.vmdk", "extent"}},
		"no createType":           {with(flat(), map[string]string{"d.vmdk": "# Disk DescriptorFile\n" + goodExtent}), []string{"createType"}},
		"sparse file, type flat":  {embedded(text("monolithicFlat", goodExtent)), []string{"createType"}},
		"text file, type sparse":  {with(flat(), map[string]string{"d.vmdk": text("monolithicSparse", goodExtent)}), []string{"createType"}},
		"parent missing":          {embedded(childText("b.vmdk")), []string{"d.vmdk", "parentFileNameHint", "b.vmdk"}},
		"parent not named":        {embedded(strings.Replace(text("monolithicSparse"), "parentCID=ffffffff", "parentCID=12345678", 1)), []string{"parentCID"}},
		"its own parent":          {embedded(childText("d.vmdk")), []string{"parentFileNameHint", "own parent"}},
		"ring of parents":         {with(embedded(childText("b.vmdk")), map[string]string{"b.vmdk": sparse(childText("d.vmdk"))}), []string{"own parent"}},
		"too many parents":        {many, []string{"parents"}},
		"part of a split disk":    {with(flat(), map[string]string{"d.vmdk": sparse("")}), []string{"scsi0:0.fileName", "split disk"}},
		"30,000 extents":          extents(3, 10_000),
		"garbage in a descriptor": {flat(goodExtent, "what is this"), []string{"d.vmdk", "what is this"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) { wantRefusal(t, folder(t, tt.files), false, tt.names) })
	}
}

// extents returns an image of disks with many extents.
func extents(disks, each int) refused {
	files := flat()
	var lines []string
	for i := range disks {
		name := fmt.Sprintf("d%d.vmdk", i)
		lines = append(lines, fmt.Sprintf("sata0:%d.present = TRUE\nsata0:%d.fileName = %s", i, i, name))
		var extents []string
		for j := range each {
			extent := fmt.Sprintf("d%d-%d", i, j)
			extents = append(extents, fmt.Sprintf("RW 1 FLAT %q 0", extent))
			if (i+1)*each <= 20_000 { // Check refuses the next disk before it looks for its files
				files[extent] = strings.Repeat("x", 512)
			}
		}
		files[name] = text("monolithicFlat", extents...)
	}
	files["m.vmx"] = strings.Join(lines, "\n")
	return refused{files, []string{"d2.vmdk", "20000 extents"}}
}

// emptySparse returns a sparse file without capacity. QEMU would open the files in its descriptor instead.
func emptySparse(line string) string {
	b := []byte(sparse(text("monolithicFlat", line)))
	binary.LittleEndian.PutUint64(b[12:], 0)
	return string(b)
}

// movedDescriptor returns a sparse file whose header points at a valid descriptor at its end, while QEMU searches the
// parent directly after the header.
func movedDescriptor() string {
	b := []byte(sparse(`parentFileNameHint="/etc/shadow"`))
	binary.LittleEndian.PutUint64(b[28:], uint64(len(b)/512))
	return string(b) + text("monolithicSparse")
}

func wantRefusal(t *testing.T, root *os.Root, hostile bool, names []string) {
	t.Helper()
	err := vmx.Check(root, "m.vmx")
	if refusal := (*vmx.CheckError)(nil); !errors.As(err, &refusal) {
		t.Fatalf("got %v, want a CheckError", err)
	}
	var unsafe interface{ Unsafe() bool }
	if !errors.As(err, &unsafe) || unsafe.Unsafe() != hostile {
		t.Errorf("got %v, want it hostile: %v", err, hostile)
	}
	for _, name := range names {
		if !strings.Contains(err.Error(), name) {
			t.Errorf("got %v, want it to name %s", err, name)
		}
	}
	if strings.ContainsFunc(err.Error(), func(r rune) bool { return r < ' ' || r == 0x7f }) {
		t.Errorf("the message %q has control characters in it", err)
	}
}

// Files that unpacking should refuse are refused here too, and Check does not wait for a pipe.
func TestCheckRefusesSpecialFiles(t *testing.T) {
	kinds := map[string]func(at string) error{
		"link":         func(at string) error { return os.Symlink("d-flat.vmdk", at) },
		"link outside": func(at string) error { return os.Symlink("/etc/passwd", at) },
		"pipe":         func(at string) error { return syscall.Mkfifo(at, 0o600) },
	}
	for kind, special := range kinds {
		for name, image := range map[string]map[string]string{
			"disk":   with(flat(goodExtent), map[string]string{"m.vmx": machine("x")}),
			"extent": flat(`RW 1 FLAT "x" 0`),
			"parent": flat(goodExtent, `parentFileNameHint="x"`),
			"nvram":  with(flat(goodExtent), map[string]string{"m.vmx": machine("d.vmdk", "nvram = x")}),
		} {
			t.Run(kind+" as "+name, func(t *testing.T) {
				root := folder(t, image)
				if err := special(filepath.Join(root.Name(), "x")); err != nil {
					t.Fatal(err)
				}
				wantRefusal(t, root, true, []string{"regular"})
			})
		}
	}
	t.Run("folder behind a link", func(t *testing.T) {
		root := folder(t, with(flat(goodExtent), map[string]string{"m.vmx": machine("l/d.vmdk"), "a/d.vmdk": text("monolithicFlat")}))
		if err := os.Symlink("a", filepath.Join(root.Name(), "l")); err != nil {
			t.Fatal(err)
		}
		wantRefusal(t, root, true, []string{"regular"})
	})
}

// VMware encrypts only what a virtual TPM needs. Without the TPM the machine needs no key.
func TestRemoveTPM(t *testing.T) {
	f := parse(t, "nvram = \"m.nvram\"\nmemsize = \"4096\"\nvtpm.present = \"TRUE\"\nvtpm.ekCSR = \"AAAA\"\nvmx.encryptionType = \"partial\"\nencryption.keySafe = \"x\"\nencryption.data = \"y\"\n")
	if !f.RemoveTPM() || string(f.Bytes()) != "memsize = \"4096\"\n" {
		t.Errorf("got %q, want only the memory", f.Bytes())
	}
	f = parse(t, "nvram = \"m.nvram\"\nencryption.data = \"y\"\n")
	if before := string(f.Bytes()); f.RemoveTPM() || string(f.Bytes()) != before {
		t.Errorf("got %q from a machine without a TPM, want no change", f.Bytes())
	}
}
