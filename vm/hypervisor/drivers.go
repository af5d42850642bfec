package hypervisor

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"runtime"
	"strings"

	"osx-builder/vm"
	"osx-builder/vm/qemu"
	"osx-builder/vm/vix"
	"osx-builder/vm/vmrun"
	"osx-builder/vm/vmware"
	"osx-builder/vm/vsphere"
)

// VSphere says which vCenter or ESXi the driver for vSphere uses.
type VSphere = vsphere.Settings

// Drivers returns the candidates of this program. VMware comes first: if it is installed, the images were probably made
// for it. Drivers sets the options that name folders and the log.
func Drivers(data *vm.DataFolder, log *slog.Logger, v vix.Options, vmrunProgram string, q qemu.Options, remote VSphere) []Candidate {
	v.HostIDs = filepath.Join(data.Path(), "vmware-hosts.json")
	v.Gold, v.Dir, v.Log = data.Gold(), filepath.Join(data.Images(), qemu.PreparedFolder), log
	r := vmrun.Options{Gold: v.Gold, Dir: v.Dir, HostIDs: v.HostIDs, Program: vmrunProgram, Log: log}
	q.Dir, q.MachinesDir, q.Gold, q.Log = data.Path(), data.Machines(), data.Gold(), log
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
		{
			Name: "qemu", Product: "QEMU", OwnsMachine: qemu.OwnsMachine,
			Open: func() (Driver, error) {
				d, err := qemu.Open(q)
				if err != nil {
					return nil, err
				}
				return d, nil
			},
		},
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
	names := []string{"vmrun", "qemu", "vsphere"}
	if vix.Supported() {
		names = append([]string{"vix"}, names...)
	}
	return strings.Join(names, ", ")
}

// BuildInfo is what -version prints.
func BuildInfo(version string) string {
	return fmt.Sprintf("osx-builder %s (%s %s/%s), drivers: %s", version, runtime.Version(), runtime.GOOS, runtime.GOARCH, BuiltIn())
}

// CleanNetworks removes the networks of the data folder at path, which no daemon may use meanwhile: one that runs would
// create again what its machines need.
func CleanNetworks(ctx context.Context, path string, log *slog.Logger) error {
	data, err := vm.OpenDataFolder(path, "-clean-network", log)
	if err != nil {
		return err
	}
	defer data.Close()
	if err := qemu.CleanNetworks(ctx, qemu.Options{Dir: data.Path(), Log: log}); err != nil {
		return err
	}
	log.Info("networks removed", "data", data.Path())
	return nil
}
