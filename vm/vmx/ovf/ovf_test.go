package ovf_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"osx-builder/image"
	"osx-builder/vm/vmx"
	"osx-builder/vm/vmx/ovf"
)

// item returns an item of the hardware.
func item(kind, id int, elements string) string {
	return fmt.Sprintf("<Item><rasd:InstanceID>%d</rasd:InstanceID><rasd:ResourceType>%d</rasd:ResourceType>%s</Item>", id, kind, elements)
}

func element(name, text string) string { return "<rasd:" + name + ">" + text + "</rasd:" + name + ">" }

// description returns an .ovf file with these references, disks, hardware and other sections.
func description(references, disks, hardware, more string) string {
	return `<?xml version="1.0" encoding="UTF-8"?>
<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1"
 xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData"
 xmlns:vssd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_VirtualSystemSettingData"
 xmlns:vmw="http://www.vmware.com/schema/ovf">
 <References>` + references + `</References>
 <DiskSection><Info>Disks</Info>` + disks + `</DiskSection>
 <VirtualSystem ovf:id="appliance"><Info>A machine</Info><Name>Appliance</Name>
  <OperatingSystemSection ovf:id="96" vmw:osType="debian12_64Guest"><Info>Guest</Info></OperatingSystemSection>
  <VirtualHardwareSection><Info>Hardware</Info>
   <System><vssd:ElementName>x</vssd:ElementName><vssd:InstanceID>0</vssd:InstanceID><vssd:VirtualSystemType>vmx-17</vssd:VirtualSystemType></System>
   ` + hardware + `
  </VirtualHardwareSection>` + more + `
 </VirtualSystem>
</Envelope>`
}

const (
	reference = `<File ovf:id="file1" ovf:href="disk1.vmdk"/>`
	oneDisk   = `<Disk ovf:diskId="vmdisk1" ovf:fileRef="file1" ovf:capacity="1" ovf:capacityAllocationUnits="byte * 2^20" ovf:format="http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized"/>`
)

// plain is the hardware of a machine with a disk on pvscsi and a vmxnet3.
func plain() string {
	return item(3, 1, element("VirtualQuantity", "2")) + item(4, 2, element("AllocationUnits", "byte * 2^20")+element("VirtualQuantity", "1024")) +
		item(6, 3, element("Address", "0")+element("ResourceSubType", "VirtualSCSI")+`<vmw:Config vmw:key="slotInfo.pciSlotNumber" vmw:value="160"/>`) +
		item(17, 4, element("AddressOnParent", "0")+element("HostResource", "ovf:/disk/vmdisk1")+element("Parent", "3")) +
		item(10, 5, element("ResourceSubType", "VmxNet3")+element("Connection", "VM Network")+`<vmw:Config vmw:key="slotInfo.pciSlotNumber" vmw:value="192"/>`)
}

// streamDisk returns a streamOptimized disk of 1 MiB that qemu-img made.
func streamDisk(t *testing.T) []byte {
	t.Helper()
	dir := t.TempDir()
	raw := filepath.Join(dir, "raw")
	if err := os.WriteFile(raw, bytes.Repeat([]byte("data"), 1<<18), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("qemu-img", "convert", "-O", "vmdk", "-o", "subformat=streamOptimized", raw, filepath.Join(dir, "d")).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	data, err := os.ReadFile(filepath.Join(dir, "d"))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

type entry struct{ name, body string }

// manifest returns a manifest of these files.
func manifest(files ...entry) entry {
	var b strings.Builder
	for _, f := range files {
		fmt.Fprintf(&b, "SHA256(%s)= %x\n", f.name, sha256.Sum256([]byte(f.body)))
	}
	return entry{"a.mf", b.String()}
}

// unpack lets the daemon's cache unpack an OVA with these files, and returns the folder and its .vmx.
func unpack(t *testing.T, files ...entry) (*os.Root, string, error) {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		if err := w.WriteHeader(&tar.Header{Name: f.name, Mode: 0o600, Size: int64(len(f.body))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(f.body)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(b.Bytes()) }))
	t.Cleanup(s.Close)
	dir := t.TempDir()
	c, err := image.Open(dir, image.Options{Prepare: ovf.Prepare[*image.Files], Check: vmx.Check, Limits: image.Limits{FreeBytes: -1, UnpackedBytes: 64 << 20}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Close()
		_ = filepath.WalkDir(dir, func(path string, _ fs.DirEntry, _ error) error { return os.Chmod(path, 0o700) })
	})
	sum := sha256.Sum256(b.Bytes())
	g, err := c.Ensure(t.Context(), image.Source{URL: s.URL, Sum: image.Sum{Type: "sha256", Hex: hex.EncodeToString(sum[:])}}, nil)
	if err != nil {
		if left, _ := filepath.Glob(filepath.Join(dir, "*", "*")); len(left) > 0 {
			t.Errorf("after %v, the cache has %v", err, left)
		}
		return nil, "", err
	}
	root, err := os.OpenRoot(filepath.Dir(g.VMX))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return root, filepath.Base(g.VMX), nil
}

// machineOf returns the hardware of an OVA.
func machineOf(t *testing.T, files ...entry) (vmx.Hardware, *os.Root) {
	t.Helper()
	root, config, err := unpack(t, files...)
	if err != nil {
		t.Fatal(err)
	}
	text, err := root.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	f, err := vmx.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	h, err := f.Hardware()
	if err != nil {
		t.Fatal(err)
	}
	return h, root
}

// An OVA as VMware's ovftool writes it becomes the machine that it describes.
func TestPrepare(t *testing.T) {
	disk := entry{"disk1.vmdk", string(streamDisk(t))}
	hardware := plain() + `<vmw:Config ovf:required="false" vmw:key="firmware" vmw:value="efi"/>` +
		`<vmw:ExtraConfig vmw:key="guestinfo.role" vmw:value="db"/><vmw:ExtraConfig vmw:key="serial0.fileName" vmw:value="/etc/shadow"/>`
	properties := `<ProductSection ovf:class="net"><Info>Settings</Info>
		<Property ovf:key="ip" ovf:type="string" ovf:userConfigurable="true"><Label>Address</Label></Property>
		<Property ovf:key="dns" ovf:type="string" ovf:userConfigurable="true" ovf:value="192.0.2.1"/>
		<Property ovf:key="secret" ovf:type="string" ovf:userConfigurable="true" ovf:password="true" ovf:value="hush"/>
		<Property ovf:key="fixed" ovf:type="string" ovf:value="x"/></ProductSection>`
	config := entry{"a.ovf", description(reference, oneDisk, hardware, properties)}
	h, root := machineOf(t, config, manifest(config, disk), disk)
	if h.GuestOS != "debian12-64" || h.DisplayName != "Appliance" || h.Firmware != "efi" || h.CPUs != 2 || h.Memory != 1024 {
		t.Errorf("got %+v", h)
	}
	if len(h.Disks) != 1 || h.Disks[0].Key != "scsi0:0.fileName" || h.Disks[0].Adapter != "pvscsi" || h.Disks[0].File != "disk1.vmdk" {
		t.Errorf("got disks %+v, want disk1.vmdk on pvscsi at scsi0:0", h.Disks)
	}
	if len(h.NICs) != 1 || h.NICs[0].Model != "vmxnet3" || h.NICs[0].Connection != "nat" {
		t.Errorf("got NICs %+v, want a vmxnet3 on nat", h.NICs)
	}
	want := []string{
		"OVF property net.ip (Address) has no value; the guest must work without it, or be configured after it has started",
		"OVF property net.dns has the default 192.0.2.1; the guest must work without it, or be configured after it has started",
		"OVF property net.secret has no value; the guest must work without it, or be configured after it has started",
	}
	if diff := cmp.Diff(want, h.Remarks); diff != "" {
		t.Errorf("remarks (-want +got):\n%s", diff)
	}
	text, _ := root.ReadFile("a.vmx")
	f, err := vmx.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	if removed := f.Normalize(); len(removed) > 0 || len(h.HostAccess) > 0 {
		t.Errorf("VMware cannot read %q, and the machine accesses its host with %q", removed, h.HostAccess)
	}
	for key, want := range map[string]bool{"guestinfo.role = \"db\"": true, "scsi0.pciSlotNumber = \"160\"": true, "ethernet0.pciSlotNumber = \"192\"": true, "/etc/shadow": false, "hush": false} {
		if strings.Contains(string(text), key) != want {
			t.Errorf("the .vmx contains %q: %t, want %t:\n%s", key, !want, want, text)
		}
	}
}

// Controllers and cards of every kind, a disk without a file, and the packages of other programs.
func TestPrepareHardware(t *testing.T) {
	disk := entry{"disk1.vmdk", string(streamDisk(t))}
	nic := func(kind, network string) string {
		return item(10, 90, element("ResourceSubType", kind)+element("Connection", network))
	}
	controller := func(kind int, model string) string {
		return item(kind, 3, element("ResourceSubType", model)) + item(17, 4, element("HostResource", "/disk/vmdisk1")+element("Parent", "3"))
	}
	for name, tt := range map[string]struct {
		hardware    string
		disk, model string // the slot and the adapter of the first disk
		nics        []string
	}{
		"lsilogic":         {controller(6, "lsilogic") + nic("E1000", "hostonly"), "scsi0:0", "lsilogic", []string{"e1000 hostonly"}},
		"lsilogicsas":      {controller(6, "lsilogicsas") + nic("E1000e", "bridged") + nic("PCNet32", "x"), "scsi0:0", "lsisas1068", []string{"e1000e bridged", "vlance nat"}},
		"unknown SCSI":     {controller(6, "virtio-scsi") + nic("virtio", "x"), "scsi0:0", "lsilogic", []string{"e1000 nat"}},
		"SATA":             {controller(20, "vmware.sata.ahci") + nic("VmxNet2 E1000", "x"), "sata0:0", "", []string{"vmxnet nat"}},
		"AHCI of VBox":     {controller(20, "AHCI") + nic("PCNet32 E1000", "NAT"), "sata0:0", "", []string{"vlance nat"}},
		"NVMe":             {controller(20, "vmware.nvme.controller"), "nvme0:0", "", nil},
		"IDE":              {controller(5, "PIIX4"), "ide0:0", "", nil},
		"second IDE":       {item(5, 1, "") + controller(5, ""), "ide1:0", "", nil},
		"unit 7":           {item(6, 3, element("ResourceSubType", "VirtualSCSI")) + item(17, 4, element("AddressOnParent", "7")+element("HostResource", "/disk/vmdisk1")+element("Parent", "3")), "scsi0:8", "pvscsi", nil},
		"file as resource": {item(6, 3, element("ResourceSubType", "VirtualSCSI")) + item(17, 4, element("HostResource", "ovf:/file/file1")+element("Parent", "3")), "scsi0:0", "pvscsi", nil},
	} {
		t.Run(name, func(t *testing.T) {
			disks := oneDisk
			if name == "file as resource" {
				disks = ""
			}
			h, _ := machineOf(t, entry{"a.ovf", description(reference, disks, tt.hardware, "")}, disk)
			if len(h.Disks) != 1 || h.Disks[0].Key != tt.disk+".fileName" || h.Disks[0].Adapter != tt.model {
				t.Errorf("got disks %+v, want one at %s on %q", h.Disks, tt.disk, tt.model)
			}
			var nics []string
			for _, n := range h.NICs {
				nics = append(nics, n.Model+" "+n.Connection)
			}
			if tt.nics != nil && !slices.Equal(nics, tt.nics) {
				t.Errorf("got NICs %q, want %q", nics, tt.nics)
			}
		})
	}
}

func gzipped(t *testing.T, data []byte) string {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, err := z.Write(data)
	if err := errors.Join(err, z.Close()); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// Chunked and compressed files become the disk, and an empty disk needs no file.
func TestPrepareReferences(t *testing.T) {
	data := streamDisk(t)
	packed := gzipped(t, data)
	half, third := len(data)/2, len(packed)/3
	for name, tt := range map[string]struct {
		reference string
		files     []entry
		size      int64
	}{
		"plain":                  {reference, []entry{{"disk1.vmdk", string(data)}}, 1 << 20},
		"escaped name":           {`<File ovf:id="file1" ovf:href="my%20disk.vmdk"/>`, []entry{{"my disk.vmdk", string(data)}}, 1 << 20},
		"compressed":             {`<File ovf:id="file1" ovf:href="d.vmdk.gz" ovf:compression="gzip"/>`, []entry{{"d.vmdk.gz", packed}}, 1 << 20},
		"chunked":                {`<File ovf:id="file1" ovf:href="d.vmdk" ovf:chunkSize="9"/>`, []entry{{"d.vmdk.000000000", string(data[:half])}, {"d.vmdk.000000001", string(data[half:])}}, 1 << 20},
		"chunked and compressed": {`<File ovf:id="file1" ovf:href="d.gz" ovf:chunkSize="9" ovf:compression="gzip"/>`, []entry{{"d.gz.000000000", packed[:third]}, {"d.gz.000000001", packed[third : 2*third]}, {"d.gz.000000002", packed[2*third:]}}, 1 << 20},
		"empty":                  {"", nil, 40 << 30},
	} {
		t.Run(name, func(t *testing.T) {
			disks := oneDisk
			if name == "empty" {
				disks = `<Disk ovf:diskId="vmdisk1" ovf:capacity="40" ovf:capacityAllocationUnits="byte * 2^30"/>`
			}
			config := entry{"a.ovf", description(tt.reference, disks, plain(), "")}
			h, root := machineOf(t, append([]entry{config, manifest(append([]entry{config}, tt.files...)...)}, tt.files...)...)
			v, err := vmx.ReadVMDK(root, h.Disks[0].File)
			if err != nil || v.Capacity != tt.size {
				t.Errorf("got %d bytes, %v, want %d", v.Capacity, err, tt.size)
			}
			if name != "plain" && name != "escaped name" {
				entries, _ := fs.ReadDir(root.FS(), ".")
				if len(entries) != 5 { // .ovf, .mf, .vmx, the disk, image.json
					t.Errorf("got %v, want that the parts are removed", entries)
				}
			}
			out := filepath.Join(t.TempDir(), "raw")
			if text, err := exec.Command("qemu-img", "convert", "-f", "vmdk", "-O", "raw", filepath.Join(root.Name(), h.Disks[0].File), out).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, text)
			}
			if name == "empty" {
				return
			}
			if got, err := os.ReadFile(out); err != nil || !bytes.Equal(got, bytes.Repeat([]byte("data"), 1<<18)) {
				t.Errorf("QEMU reads other data, %v", err)
			}
		})
	}
}

// A package that is damaged or no single machine is invalid, and one that names other files is unsafe.
func TestPrepareRefuses(t *testing.T) {
	disk := entry{"disk1.vmdk", string(streamDisk(t))}
	good := entry{"a.ovf", description(reference, oneDisk, plain(), "")}
	with := func(references, disks string) []entry {
		return []entry{{"a.ovf", description(references, disks, plain(), "")}, disk}
	}
	for name, tt := range map[string]struct {
		files []entry
		want  error
		text  string
	}{
		"changed disk":          {[]entry{good, manifest(good, entry{"disk1.vmdk", "other"}), disk}, image.ErrInvalid, "SHA256"},
		"changed .ovf":          {[]entry{good, manifest(entry{"a.ovf", "other"}), disk}, image.ErrInvalid, "a.ovf"},
		"manifest of more":      {[]entry{good, manifest(good, entry{"gone.iso", "x"}), disk}, image.ErrInvalid, "gone.iso"},
		"manifest of one twice": {[]entry{good, {"a.mf", manifest(good).body + manifest(good).body}, disk}, image.ErrInvalid, "twice"},
		"61 disks":              {with(reference, strings.Repeat(oneDisk, 61)), image.ErrInvalid, "60 disks"},
		"no manifest":           {[]entry{good, {"a.mf", "what is this"}, disk}, image.ErrInvalid, "SHA256(FILE)"},
		"disk missing":          {[]entry{good}, image.ErrInvalid, "disk1.vmdk"},
		"truncated disk":        {[]entry{good, {"disk1.vmdk", disk.body[:140*512]}}, image.ErrInvalid, "truncated"},
		"no XML":                {[]entry{{"a.ovf", "<x>"}, disk}, image.ErrInvalid, "export the machine again"},
		"two .ovf":              {[]entry{good, {"b.ovf", good.body}, disk}, image.ErrInvalid, "exactly one"},
		"no machine":            {[]entry{{"a.ovf", `<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1"/>`}, disk}, image.ErrInvalid, "one machine"},
		"URL":                   {with(`<File ovf:id="file1" ovf:href="http://192.0.2.1/d.vmdk"/>`, oneDisk), image.ErrUnsafe, "192.0.2.1"},
		"file above":            {with(`<File ovf:id="file1" ovf:href="../d.vmdk"/>`, oneDisk), image.ErrUnsafe, "../d.vmdk"},
		"absolute file":         {with(`<File ovf:id="file1" ovf:href="/etc/shadow"/>`, oneDisk), image.ErrUnsafe, "/etc/shadow"},
		"no reference":          {with("", oneDisk), image.ErrInvalid, "file1"},
		"unknown packing":       {with(`<File ovf:id="file1" ovf:href="disk1.vmdk" ovf:compression="bzip2"/>`, oneDisk), image.ErrInvalid, "bzip2"},
		"no gzip":               {with(`<File ovf:id="file1" ovf:href="disk1.vmdk" ovf:compression="gzip"/>`, oneDisk), image.ErrInvalid, "gzip"},
		"disk on a snapshot":    {with(reference, strings.Replace(oneDisk, "<Disk ", `<Disk ovf:parentRef="x" `, 1)), image.ErrInvalid, "snapshots"},
		"disk of 63 TiB":        {with("", `<Disk ovf:diskId="vmdisk1" ovf:capacity="63" ovf:capacityAllocationUnits="byte * 2^40"/>`), image.ErrInvalid, "62 TiB"},
		"one file twice":        {with(reference, oneDisk+strings.Replace(oneDisk, "vmdisk1", "vmdisk2", 1)), image.ErrInvalid, "disk1.vmdk"},
		"bomb":                  {[]entry{{"a.ovf", description(`<File ovf:id="file1" ovf:href="d.gz" ovf:compression="gzip"/>`, oneDisk, plain(), "")}, {"d.gz", gzipped(t, make([]byte, 100<<20))}}, image.ErrTooLarge, "64 MiB"},
		"name of the cache":     {[]entry{{"image.ovf", good.body}, {"image.vmdk", "x"}, disk, {"image.vmx.d/x", ""}}, nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := unpack(t, tt.files...)
			if !errors.Is(err, tt.want) || err != nil && !strings.Contains(err.Error(), tt.text) {
				t.Errorf("got %v, want %v that says %q", err, tt.want, tt.text)
			}
		})
	}
}
