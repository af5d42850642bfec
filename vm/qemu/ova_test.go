package qemu_test

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"osx-builder/image"
	"osx-builder/vm"
	"osx-builder/vm/vmx"
	"osx-builder/vm/vmx/ovf"
)

// ovfOfTinyVM describes the small guest as VMware's tools do.
const ovfOfTinyVM = `<?xml version="1.0"?>
<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1"
 xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData" xmlns:vmw="http://www.vmware.com/schema/ovf">
<References><File ovf:id="file1" ovf:href="tinyvm-disk1.vmdk"/></References>
<DiskSection><Info>Disks</Info><Disk ovf:diskId="disk1" ovf:fileRef="file1" ovf:capacity="64" ovf:capacityAllocationUnits="byte * 2^20"/></DiskSection>
<VirtualSystem ovf:id="tinyvm"><Info>A machine</Info>
 <ProductSection><Info>Settings</Info><Property ovf:key="hostname" ovf:type="string" ovf:userConfigurable="true"/></ProductSection>
 <OperatingSystemSection ovf:id="101" vmw:osType="other5xLinux64Guest"><Info>Guest</Info></OperatingSystemSection>
 <VirtualHardwareSection><Info>Hardware</Info>
  <Item><rasd:InstanceID>1</rasd:InstanceID><rasd:ResourceType>3</rasd:ResourceType><rasd:VirtualQuantity>2</rasd:VirtualQuantity></Item>
  <Item><rasd:InstanceID>2</rasd:InstanceID><rasd:ResourceType>4</rasd:ResourceType><rasd:VirtualQuantity>512</rasd:VirtualQuantity></Item>
  <Item><rasd:InstanceID>3</rasd:InstanceID><rasd:ResourceType>6</rasd:ResourceType><rasd:ResourceSubType>VirtualSCSI</rasd:ResourceSubType></Item>
  <Item><rasd:AddressOnParent>0</rasd:AddressOnParent><rasd:HostResource>ovf:/disk/disk1</rasd:HostResource><rasd:InstanceID>4</rasd:InstanceID><rasd:Parent>3</rasd:Parent><rasd:ResourceType>17</rasd:ResourceType></Item>
  <Item><rasd:Connection>VM Network</rasd:Connection><rasd:InstanceID>5</rasd:InstanceID><rasd:ResourceSubType>VmxNet3</rasd:ResourceSubType><rasd:ResourceType>10</rasd:ResourceType></Item>
 </VirtualHardwareSection>
</VirtualSystem></Envelope>`

// ova unpacks the small guest as an OVA, as the daemon does, and returns its .vmx.
func (r *testDriver) ova() string {
	r.t.Helper()
	must := func(err error) {
		r.t.Helper()
		if err != nil {
			r.t.Fatal(err)
		}
	}
	disk, err := os.ReadFile(filepath.Join(filepath.Dir(r.tinyvm()), "tinyvm.vmdk"))
	must(err)
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	for _, f := range []struct {
		name string
		body []byte
	}{{"tinyvm.ovf", []byte(ovfOfTinyVM)}, {"tinyvm-disk1.vmdk", disk}} {
		must(w.WriteHeader(&tar.Header{Name: f.name, Mode: 0o600, Size: int64(len(f.body))}))
		_, err := w.Write(f.body)
		must(err)
	}
	must(w.Close())
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(archive.Bytes()) }))
	defer s.Close()
	dir := filepath.Join(r.data, "ova")
	c, err := image.Open(dir, image.Options{Prepare: ovf.Prepare[*image.Files], Check: vmx.Check, Limits: image.Limits{FreeBytes: -1}})
	must(err)
	r.t.Cleanup(func() {
		_ = c.Close()
		_ = filepath.WalkDir(dir, func(path string, _ fs.DirEntry, _ error) error { return os.Chmod(path, 0o700) })
	})
	sum := sha256.Sum256(archive.Bytes())
	g, err := c.Ensure(r.t.Context(), image.Source{URL: s.URL, Sum: image.Sum{Type: "sha256", Hex: hex.EncodeToString(sum[:])}}, nil)
	must(err)
	return g.VMX
}

// A guest from an OVA boots, has its address, and its machine lists the property that nobody set.
func TestGuestOfOVA(t *testing.T) {
	t.Parallel()
	r := newTestDriver(t)
	m := r.machine()
	m.Memory, m.Forward = 256, []int{80}
	st, page := r.bootsFrom(m, r.ova(), pageAt)
	if st.Fault != nil || st.GuestOS != "other5xlinux-64" || !strings.Contains(page, st.MAC) {
		t.Errorf("got %+v and page %q, want the guest with its MAC address", st, page)
	}
	if !slices.ContainsFunc(st.Warnings, func(w vm.Warning) bool {
		return w.Code == vm.WarningOVFLeftOut && strings.Contains(w.Message, "hostname")
	}) {
		t.Errorf("got warnings %+v, want one about the property hostname", st.Warnings)
	}
}
