package hypervisor

import (
	"fmt"
	"log/slog"
	"path/filepath"
	"runtime"
	"strings"

	"osx-builder/vm"
	"osx-builder/vm/vix"
	"osx-builder/vm/vmrun"
	"osx-builder/vm/vmware"
	"osx-builder/vm/vsphere"
)

// VSphere says which vCenter or ESXi the driver for vSphere uses.
type VSphere = vsphere.Settings

// Drivers returns the candidates of this program. VMware comes first: if it is installed, the images were probably made
// for it. Drivers sets the options that name folders and the log.
func Drivers(data *vm.DataFolder, log *slog.Logger, v vix.Options, vmrunProgram string, q QEMU, remote VSphere) []Candidate {
	v.HostIDs = filepath.Join(data.Path(), "vmware-hosts.json")
	v.Gold, v.Dir, v.Log = data.Gold(), filepath.Join(data.Images(), vm.PreparedFolder), log
	r := vmrun.Options{Gold: v.Gold, Dir: v.Dir, HostIDs: v.HostIDs, Program: vmrunProgram, Log: log}
	vs := vsphere.Options{Settings: remote, Dir: data.Path(), Machines: data.Machines(), Gold: data.Gold(), Log: log}
	return []Candidate{
		{
			Name: "vix", Product: "VMware", OwnsMachine: vmware.OwnsMachine,
			Open: func() (Driver, error) {
				d, err := vix.Open(v)
				if err != nil {
					return nil, err // not a Driver that holds nil
				}
				return d, nil
			},
		},
		{
			Name: "vmrun", Product: "VMware", OwnsMachine: vmware.OwnsMachine,
			Open: func() (Driver, error) {
				d, err := vmrun.Open(r)
				if err != nil {
					return nil, err
				}
				return d, nil
			},
		},
		qemuCandidate(data, log, q),
		{
			Name: "vsphere", Product: "vSphere", OwnsMachine: vsphere.OwnsMachine, OnlyByName: true,
			Open: func() (Driver, error) {
				d, err := vsphere.Open(vs)
				if err != nil {
					return nil, err
				}
				return d, nil
			},
		},
	}
}

// BuiltIn lists the drivers that this binary can open, separated by commas.
func BuiltIn() string {
	names := []string{"vmrun", "vsphere"}
	if hasQEMU {
		names = []string{"vmrun", "qemu", "vsphere"}
	}
	if vix.Supported() {
		names = append([]string{"vix"}, names...)
	}
	return strings.Join(names, ", ")
}

// BuildInfo is what -version prints.
func BuildInfo(version string) string {
	return fmt.Sprintf("osx-builder %s (%s %s/%s), drivers: %s", version, runtime.Version(), runtime.GOOS, runtime.GOARCH, BuiltIn())
}
