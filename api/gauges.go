package api

import (
	"context"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"osx-builder/vm"
)

// gauges are the metrics whose values are read at each scrape.
type gauges struct{ vms *vm.Manager }

var (
	descVMs        = prometheus.NewDesc("osx_builder_vms", "Machines by phase and power state; the state is none if the hypervisor has no machine yet, and unknown if it cannot be read.", []string{"phase", "status"}, nil)
	descImages     = prometheus.NewDesc("osx_builder_images", "Unpacked images in the cache.", nil, nil)
	descImageBytes = prometheus.NewDesc("osx_builder_image_disk_bytes", "Disk space used by the unpacked images.", nil, nil)
	descFree       = prometheus.NewDesc("osx_builder_disk_free_bytes", "Free space on the data folder's disk.", nil, nil)
	descTotal      = prometheus.NewDesc("osx_builder_disk_total_bytes", "Size of the data folder's disk.", nil, nil)
	descCreating   = prometheus.NewDesc("osx_builder_creations_in_progress", "Creations under way.", nil, nil)
	descCreations  = prometheus.NewDesc("osx_builder_creations_limit", "Creations that may be under way at once.", nil, nil)
	descMachines   = prometheus.NewDesc("osx_builder_vms_limit", "Machines that may exist; absent if only memory limits them.", nil, nil)
	descPromised   = prometheus.NewDesc("osx_builder_memory_promised_bytes", "Memory promised to the machines that exist and taken by templates.", nil, nil)
	descMemory     = prometheus.NewDesc("osx_builder_memory_limit_bytes", "Memory that all machines together may have.", nil, nil)
	descPool       = prometheus.NewDesc("osx_builder_pool_machines", "Machines of a pool that wait.", []string{"image", "cpus", "memory"}, nil)
	descPoolCount  = prometheus.NewDesc("osx_builder_pool_machines_wanted", "Machines of a pool that are to wait.", []string{"image", "cpus", "memory"}, nil)
	descCPUs       = prometheus.NewDesc("osx_builder_vm_cpus_limit", "Processors that one machine may have.", nil, nil)
	descOwned      = prometheus.NewDesc("osx_builder_owner_vms", "Machines by owner, which is the name of the token that created them.", []string{"owner"}, nil)
	descOwnedBytes = prometheus.NewDesc("osx_builder_owner_memory_promised_bytes", "Memory promised to the machines of an owner.", []string{"owner"}, nil)
	descQuota      = prometheus.NewDesc("osx_builder_owner_vms_limit", "Machines that one owner may have; absent if there is no limit.", nil, nil)
	descQuotaBytes = prometheus.NewDesc("osx_builder_owner_memory_limit_bytes", "Memory that the machines of one owner may have together; absent if there is no limit.", nil, nil)
	descReserve    = prometheus.NewDesc("osx_builder_disk_reserve_bytes", "Disk space reserved for the host.", nil, nil)
)

// Describe implements [prometheus.Collector].
func (gauges) Describe(c chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		descVMs, descImages, descImageBytes, descFree, descTotal, descReserve,
		descCreating, descCreations, descMachines, descPromised, descMemory, descCPUs, descPool, descPoolCount, descOwned, descOwnedBytes, descQuota, descQuotaBytes,
	} {
		c <- d
	}
}

// Collect implements [prometheus.Collector]. If the hypervisor hangs, Collect returns after the Manager's own timeout.
// It leaves out values that cannot be read.
func (g gauges) Collect(c chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		c <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	if seen, err := g.vms.StateCounts(context.Background()); err == nil {
		for s, n := range seen {
			status := string(s.Status)
			if status == "" {
				status = "none"
			}
			gauge(descVMs, float64(n), string(s.Phase), status)
		}
	}
	if list, err := g.vms.Images().List(); err == nil {
		var unpacked, bytes int64
		for _, i := range list {
			if i.Phase == vm.ImageReady || i.Phase == vm.ImagePreparing {
				unpacked++
			}
			bytes += i.DiskBytes
		}
		gauge(descImages, float64(unpacked))
		gauge(descImageBytes, float64(bytes))
	}
	limits := g.vms.Capacity()
	gauge(descCreating, float64(limits.Creating))
	gauge(descCreations, float64(limits.Creations))
	for _, p := range limits.Pools {
		labels := []string{p.ChecksumType + "-" + p.Checksum, strconv.Itoa(p.CPUs), p.Memory}
		gauge(descPool, float64(p.Ready), labels...)
		gauge(descPoolCount, float64(p.Count), labels...)
	}
	if limits.VMs > 0 {
		gauge(descMachines, float64(limits.VMs))
	}
	gauge(descPromised, float64(limits.PromisedMiB)*(1<<20))
	gauge(descMemory, float64(limits.MemoryMiB)*(1<<20))
	gauge(descCPUs, float64(limits.CPUs))
	g.collectOwners(limits, gauge)
	if d, err := g.vms.Disk(); err == nil {
		gauge(descFree, float64(d.Free))
		gauge(descTotal, float64(d.Total))
		gauge(descReserve, float64(d.Reserve))
	}
}

// collectOwners adds what the owners have, and what they may have.
func (gauges) collectOwners(limits vm.Capacity, gauge func(d *prometheus.Desc, v float64, labels ...string)) {
	for owner, used := range limits.Owners {
		gauge(descOwned, float64(used.VMs), owner)
		gauge(descOwnedBytes, float64(used.MemoryMiB)*(1<<20), owner)
	}
	if limits.PerOwner.VMs > 0 {
		gauge(descQuota, float64(limits.PerOwner.VMs))
	}
	if limits.PerOwner.MemoryMiB > 0 {
		gauge(descQuotaBytes, float64(limits.PerOwner.MemoryMiB)*(1<<20))
	}
}
