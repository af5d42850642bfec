package image

import (
	"bytes"
	"fmt"
	"strings"
)

// foreign are formats that are no archives of an image, by how they begin, with what
// to do about it.
var foreign = []struct{ magic, advice string }{
	{"7z\xbc\xaf\x27\x1c", "a 7z archive: unpack it and pack the folder again, for instance as tar.gz (7z x IMAGE.7z; tar -czf IMAGE.tar.gz FOLDER)"},
	{"Rar!\x1a\x07", "a RAR archive: unpack it and pack the folder again, for instance as tar.gz (tar -czf IMAGE.tar.gz FOLDER)"},
	{"\x04\x22\x4d\x18", "compressed by lz4: decompress it with lz4 -d, and compress the tar archive by gzip or zstd"},
	{"\x1f\x9d", "compressed by compress: decompress it with uncompress, and compress the tar archive by gzip or zstd"},
	{"LZIP", "compressed by lzip: decompress it with lzip -d, and compress the tar archive by xz"},
	{"\x5d\x00\x00", "compressed by the old LZMA format: decompress it with xz -d, and compress the tar archive by xz without --format=lzma"},
	{"\x89LZO", "compressed by lzop: decompress it with lzop -d, and compress the tar archive by gzip or zstd"},
	{"MSCF", "a Windows cabinet: unpack it and pack the folder again as zip or tar.gz"},
	{"07070", "a cpio archive: unpack it with cpio -i and pack the folder again with tar -czf"},
	{"xar!", "a macOS package: unpack it with xar -xf and pack the machine's folder again with tar -czf"},
	{"KDMV", "a disk without its machine: pack the folder with the .vmx file and the disks with tar -czf"},
	{"# Disk DescriptorFile", "a disk's descriptor without its machine: pack the folder with the .vmx file and the disks with tar -czf"},
	{"QFI\xfb", "a qcow2 disk: an image is a packed VMware machine, a .vmx file with its VMDK disks"},
	{"vhdxfile", "a Hyper-V disk: an image is a packed VMware machine, a .vmx file with its VMDK disks"},
	{"conectix", "a VHD disk: an image is a packed VMware machine, a .vmx file with its VMDK disks"},
	{"<?xml", "an XML text; if it is an .ovf file, pack it together with its disks, or export the machine as .ova"},
	{"PK\x07\x08", "a part of a split zip archive: pack the folder again in one file"},
}

// foreignTexts are the beginnings of texts, without regard to case and blanks.
var foreignTexts = []struct{ prefix, advice string }{
	{"<!doctype html", "a web page: use the URL of the file itself, which may need a token or another link"},
	{"<html", "a web page: use the URL of the file itself, which may need a token or another link"},
	{"version https://git-lfs", "a pointer of Git LFS instead of the file: use the URL of the file itself"},
	{".encoding", "a .vmx file without its disks: pack its whole folder with tar -czf"},
	{"config.version", "a .vmx file without its disks: pack its whole folder with tar -czf"},
	{"#!/usr/bin/vmware", "a .vmx file without its disks: pack its whole folder with tar -czf"},
}

// adviceOn says what a file is that is no archive, and what to do.
func adviceOn(head []byte) string {
	for _, f := range foreign {
		if bytes.HasPrefix(head, []byte(f.magic)) {
			return f.advice
		}
	}
	text := strings.ToLower(string(bytes.TrimLeft(bytes.TrimPrefix(head, []byte("\xef\xbb\xbf")), " \t\r\n")))
	for _, f := range foreignTexts {
		if strings.HasPrefix(text, f.prefix) {
			return f.advice
		}
	}
	return fmt.Sprintf("no archive that is known here (it begins with %q): tar, tar.gz, tar.bz2, tar.xz, tar.zst, zip and OVA are", head[:min(len(head), 16)])
}
