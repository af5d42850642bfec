// Package ovf turns OVF packages, among them unpacked OVA files, into VMware machines: a .vmx file beside the disks.
//
// [Prepare] verifies the package's manifest, joins and decompresses the files of its disks, and writes a .vmx from its
// hardware. Then every driver runs the image like any other. The format is DMTF's DSP0243; the extensions are VMware's.
package ovf

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"path"
	"strconv"
	"strings"

	envelope "github.com/vmware/govmomi/ovf"

	"osx-builder/vm/vmx"
)

const (
	maxDescriptor = 4 << 20 // size of an .ovf file in bytes; real ones have some kilobytes
	maxDisks      = 60      // VMware supports no more
)

// Prepare makes an unpacked image usable: name is the path of its .vmx or .ovf file. It returns the path of the .vmx file,
// whose names [vmx.Resolve] has compared with the files. An error about the image is a [*vmx.CheckError].
func Prepare[F vmx.Files](ctx context.Context, files F, name string) (string, error) {
	if strings.EqualFold(path.Ext(name), ".ovf") {
		p := &pack{ctx: ctx, files: files, name: name}
		config, err := p.convert()
		if err != nil {
			return "", err
		}
		name = strings.TrimSuffix(name, path.Ext(name)) + ".vmx"
		if err := files.Create(name, strings.NewReader(config)); err != nil {
			return "", err
		}
	}
	return name, vmx.Resolve(files, name)
}

// pack is an OVF package.
type pack struct {
	ctx   context.Context
	files vmx.Files
	name  string // of the .ovf file

	envelope *envelope.Envelope
	system   *envelope.VirtualSystem
	hardware *envelope.VirtualHardwareSection
	config   string // the configuration to use, or ""
}

// refuse returns an error about an element of the .ovf file.
func (p *pack) refuse(key, value, format string, args ...any) error {
	return &vmx.CheckError{File: p.name, Key: key, Value: value, Reason: fmt.Sprintf(format, args...)}
}

// convert returns the text of the .vmx.
func (p *pack) convert() (string, error) {
	if err := p.verifyManifest(); err != nil {
		return "", err
	}
	if err := p.read(); err != nil {
		return "", err
	}
	disks, err := p.disks()
	if err != nil {
		return "", err
	}
	return p.machine(disks)
}

// read reads the .ovf file.
func (p *pack) read() error {
	f, err := p.files.Root().Open(p.name)
	if err != nil {
		return fmt.Errorf("reading %s: %w", p.name, err)
	}
	defer f.Close()
	text := &io.LimitedReader{R: f, N: maxDescriptor + 1}
	p.envelope, err = envelope.Unmarshal(text)
	switch {
	case text.N == 0:
		return p.refuse("", "", "the file is larger than %d bytes", maxDescriptor)
	case err != nil:
		return p.refuse("", "", "the file is no OVF description: %v; export the machine again", err)
	case p.envelope.VirtualSystem == nil:
		return p.refuse("VirtualSystem", "", "an image is one machine, and this package has none or several; export one machine")
	case len(p.envelope.VirtualSystem.VirtualHardware) == 0:
		return p.refuse("VirtualHardwareSection", "", "the machine has no hardware; export it again")
	}
	p.system = p.envelope.VirtualSystem
	p.hardware = &p.system.VirtualHardware[0]
	for i, h := range p.system.VirtualHardware { // several are alternatives for other hypervisors
		if h.System != nil && strings.HasPrefix(text1(h.System.VirtualSystemType), "vmx-") {
			p.hardware = &p.system.VirtualHardware[i]
			break
		}
	}
	if d := p.envelope.DeploymentOption; d != nil && len(d.Configuration) > 0 {
		p.config = d.Configuration[0].ID
		for _, c := range d.Configuration {
			if c.Default != nil && *c.Default {
				p.config = c.ID
			}
		}
	}
	return nil
}

// text1 returns the text of an optional element.
func text1(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// path returns the path in the image of a file that the package refers to.
func (p *pack) path(href string) (string, error) {
	for _, name := range []string{href, unescaped(href)} {
		if found, ok := p.files.Find(path.Join(path.Dir(p.name), name)); ok && !strings.Contains(name, "..") {
			return found, nil
		}
	}
	if u, err := url.Parse(href); err == nil && (u.Scheme != "" || strings.HasPrefix(href, "/")) || strings.Contains(href, "..") {
		return "", &vmx.CheckError{File: p.name, Key: "href", Value: href, Hostile: true, Reason: "only files of the package itself may be named"}
	}
	return "", p.refuse("href", href, "the image has no such file; pack all files of the package")
}

func unescaped(href string) string {
	if s, err := url.PathUnescape(href); err == nil {
		return s
	}
	return href
}

// disks returns the file of each disk by its ID, relative to the .ovf file.
func (p *pack) disks() (map[string]string, error) {
	byID := map[string]string{}
	if p.envelope.Disk == nil {
		return byID, nil
	}
	if n := len(p.envelope.Disk.Disks); n > maxDisks {
		return nil, p.refuse("Disk", strconv.Itoa(n), "the package has more than %d disks", maxDisks)
	}
	made := map[string]string{}
	for i, d := range p.envelope.Disk.Disks {
		var err error
		switch {
		case text1(d.ParentRef) != "":
			return nil, p.refuse("parentRef", *d.ParentRef, "disks that are based on others are not supported; export the machine without snapshots")
		case d.FileRef == nil:
			byID[d.DiskID], err = p.emptyDisk(i, d)
		default:
			byID[d.DiskID], err = p.file(*d.FileRef, made)
		}
		if err != nil {
			return nil, err
		}
	}
	return byID, nil
}

// emptyDisk creates a disk that the package has no file for.
func (p *pack) emptyDisk(i int, d envelope.VirtualDiskDesc) (string, error) {
	n, err := strconv.ParseUint(d.Capacity, 10, 63)
	units, known := allocationUnits(text1(d.CapacityAllocationUnits))
	const most = 62 << 40
	if err != nil || !known || n == 0 || n > most/units {
		return "", p.refuse("capacity", d.Capacity+" "+text1(d.CapacityAllocationUnits), "the disk's size is not known, 0 or more than 62 TiB")
	}
	base := strings.TrimSuffix(path.Base(p.name), path.Ext(p.name))
	name := fmt.Sprintf("%s-empty%d.vmdk", base, i)
	return name, p.files.Create(path.Join(path.Dir(p.name), name), vmx.EmptyDisk(int64(n*units))) // #nosec G115
}

// allocationUnits returns the bytes of a unit such as "byte * 2^20" (DSP0004), "MegaBytes" or "GigaBytes".
func allocationUnits(text string) (uint64, bool) {
	text = strings.ToLower(strings.ReplaceAll(text, " ", ""))
	switch text {
	case "", "byte", "bytes":
		return 1, true
	case "kilobytes", "kb":
		return 1 << 10, true
	case "megabytes", "mb":
		return 1 << 20, true
	case "gigabytes", "gb":
		return 1 << 30, true
	}
	power, ok := strings.CutPrefix(text, "byte*2^")
	n, err := strconv.ParseUint(power, 10, 6)
	return 1 << n, ok && err == nil && n < 45
}
