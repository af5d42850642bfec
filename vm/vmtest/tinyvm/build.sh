#!/bin/bash
# build.sh builds the small guest image for the tests and the demo from Debian
# packages, as archives of VMware virtual machines. It needs neither root nor loop
# devices, and uses the network only for apt-get download.
#
#   build.sh OUTDIR [VARIANT...]   builds OUTDIR/VARIANT.EXT and its .sha256
#   build.sh --list                prints the variants
#   build.sh --packages            prints the Debian packages it needs
#
# Without a variant it builds "tinyvm", and with "all" every variant. It does not
# build an archive again that is newer than this folder. OUTDIR/cache has the
# unpacked packages and the raw disks. The same packages give the same bytes.
set -euo pipefail
umask 022
export LC_ALL=C TZ=UTC
PATH=$PATH:/usr/sbin:/sbin

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export SOURCE_DATE_EPOCH=1704067200 # 2024-01-01, every file's time

variants=(tinyvm tinyvm-zip tinyvm-tar tinyvm-bz2 tinyvm-xz tinyvm-sparse
	tinyvm-split tinyvm-flat tinyvm-ide-e1000 tinyvm-lsisas tinyvm-sata
	tinyvm-nvme tinyvm-vlance tinyvm-efi tinyvm-noagent tinyvm-arm64)

# The tools, each with its Debian package.
tools=(dpkg-deb:dpkg sfdisk:fdisk mformat:mtools mcopy:mtools
	syslinux:syslinux cpio:cpio depmod:kmod modprobe:kmod
	qemu-img:qemu-utils objcopy:binutils objdump:binutils gzip:gzip lz4:lz4
	bzip2:bzip2 xz:xz-utils zip:zip flock:util-linux grub-mkimage:grub-common)
mbr=/usr/lib/syslinux/mbr/mbr.bin # package syslinux-common

# The drivers of the guest's kernel. Debian's cloud kernel boots fastest, but has no
# drivers for the network cards of Intel and AMD, for AHCI and for LSI controllers.
cloud_modules=(vmxnet3 vmw_pvscsi ata_piix sd_mod virtio_pci virtio_console
	button evdev)
full_modules=("${cloud_modules[@]}" e1000 e1000e pcnet32 ahci mptsas mptspi nvme)
arm_modules=(vmxnet3 e1000e nvme ahci sd_mod virtio_pci virtio_console evdev)

# The guest needs no mitigations and no timer check: it runs only for minutes and
# runs no untrusted code. The second line saves a seventh of the boot's processor time.
cmdline="console=tty0 console=ttyS0,115200 quiet loglevel=4 mitigations=off no_timer_check tsc=reliable \
nokaslr rodata=off noreplace-smp cryptomgr.notests"

die() {
	echo "build.sh: $*" >&2
	exit 1
}

packages() {
	printf '%s\n' "${tools[@]#*:}" syslinux-common | sort -u | tr '\n' ' ' | sed 's/ $/\n/'
}

check_tools() {
	local pair missing=()
	command -v apt-get >/dev/null ||
		die "apt-get is missing: the image is built from Debian packages, on Debian 12 or later"
	[ "$(dpkg --print-architecture)" = amd64 ] ||
		die "the image is built on amd64, this is $(dpkg --print-architecture)"
	for pair in "${tools[@]}"; do
		command -v "${pair%%:*}" >/dev/null ||
			missing+=("${pair%%:*} (Debian package ${pair#*:})")
	done
	[ -e "$mbr" ] || missing+=("$mbr (Debian package syslinux-common)")
	[ ${#missing[@]} -eq 0 ] || die "missing: $(printf '%s, ' "${missing[@]}" | sed 's/, $//')"
}

# describe VARIANT sets the variables that differ between variants.
describe() {
	format=tar.gz subformat=streamOptimized disk=pvscsi nic=vmxnet3
	firmware=bios kernel=cloud agent=yes guest=other5xlinux-64
	case $1 in
	tinyvm) ;;
	tinyvm-zip) format=zip ;;
	tinyvm-tar) format=tar ;;
	tinyvm-bz2) format=tar.bz2 ;;
	tinyvm-xz) format=tar.xz ;;
	tinyvm-sparse) subformat=monolithicSparse ;;
	tinyvm-split) subformat=twoGbMaxExtentSparse ;;
	tinyvm-flat) subformat=monolithicFlat ;;
	tinyvm-ide-e1000) disk=ide nic=e1000 kernel=full ;;
	tinyvm-lsisas) disk=lsisas1068 kernel=full ;;
	tinyvm-sata) disk=sata nic=e1000e kernel=full ;;
	tinyvm-nvme) disk=nvme ;;
	tinyvm-vlance) disk=ide nic=vlance kernel=full ;;
	# Debian's OVMF boots from NVMe, SATA and IDE disks, not from pvscsi.
	tinyvm-efi) firmware=efi disk=nvme ;;
	tinyvm-noagent) agent=no ;;
	# As VMware Fusion makes it on Apple silicon.
	tinyvm-arm64) firmware=efi disk=nvme kernel=arm64 agent=no guest=arm-other5xlinux-64 ;;
	*) die "no variant $1; there are: ${variants[*]}" ;;
	esac
}

# fresh FILE succeeds if the file is newer than everything that it is built from.
fresh() {
	[ -e "$1" ] && [ -z "$(find "$here" -newer "$1" ! -name check.sh ! -path "$here" -print -quit)" ]
}

# use_arm makes fetch and depends use arm64 packages, with lists of their own, so that
# the host's dpkg need not know the architecture.
use_arm() {
	local state=$cache/apt-arm64
	apt_options+=(-o APT::Architecture=arm64 -o APT::Architectures::=arm64 -o "Dir::State=$state"
		-o Dir::State::status=/dev/null -o "Dir::Cache=$state/cache")
	if [ ! -d "$state/lists" ]; then
		mkdir -p "$state/lists/partial" "$state/cache/archives/partial"
		apt-get -qq "${apt_options[@]}" update || { rm -rf "$state"; die "apt-get could not read the lists of arm64 packages"; }
	fi
}

# fetch NAME [PACKAGE] downloads a Debian package and unpacks it into
# $packages/NAME, unless that folder exists. The package is NAME by default.
fetch() {
	local name=$1 package=${2:-$1} tmp
	[ ! -d "$packages/$name" ] || return 0
	tmp=$(mktemp -d "$work/fetch.XXXXXX")
	(cd "$tmp" && apt-get -qq "${apt_options[@]}" download "$package") ||
		die "apt-get could not download $package; run apt-get update first"
	dpkg-deb -x "$tmp"/*.deb "$tmp/root"
	mv "$tmp/root" "$packages/$name"
	rm -rf "$tmp"
}

# depends PACKAGE REGEXP prints the dependencies of a package that match.
depends() {
	apt-cache "${apt_options[@]}" depends --important "$1" 2>/dev/null |
		sed -n 's/^ *|\{0,1\}\(Pre\)\{0,1\}Depends: //p' | grep -E "$2" || true
}

# fetch_kernel FLAVOUR fetches the kernel of the flavour's meta package.
fetch_kernel() {
	local meta=linux-image-amd64 package
	[ "$1" = full ] || meta=linux-image-$1-amd64
	[ "$1" != arm64 ] || meta=linux-image-arm64
	[ ! -d "$packages/kernel-$1" ] || return 0
	package=$(depends "$meta" '^linux-image-[0-9]' | head -n 1)
	[ -n "$package" ] || die "apt knows no package $meta; run apt-get update first"
	fetch "kernel-$1" "$package"
}

# fetch_agent fetches the guest agent and the libraries it is linked against.
fetch_agent() {
	local library dependency
	fetch qemu-guest-agent
	for library in $(depends qemu-guest-agent '^lib'); do
		fetch "$library"
		for dependency in $(depends "$library" '^lib(c6|pcre2|atomic)'); do fetch "$dependency"; done
	done
}

# find_library NAME prints the path of a library in the fetched packages.
find_library() {
	local path
	for path in "$packages"/*/{,usr/}lib/x86_64-linux-gnu/"$1"; do
		[ ! -e "$path" ] || { readlink -f "$path"; return; }
	done
	die "no fetched package has $1"
}

# copy_libraries FILE ROOT copies the libraries that a program needs to ROOT/lib.
copy_libraries() {
	local name path
	for name in $(objdump -p "$1" | awk '$1 == "NEEDED" { print $2 }'); do
		[ ! -e "$2/lib/$name" ] || continue
		path=$(find_library "$name")
		cp "$path" "$2/lib/$name"
		copy_libraries "$path" "$2"
	done
}

# copy_modules FLAVOUR ROOT copies the kernel modules that the guest needs.
copy_modules() {
	local from=$packages/kernel-$1 to=$2 version module path modules
	modules=("${cloud_modules[@]}")
	[ "$1" = cloud ] || modules=("${full_modules[@]}")
	[ "$1" != arm64 ] || modules=("${arm_modules[@]}")
	# Debian 13 keeps the kernel's files below /usr/lib.
	[ -e "$from/lib/modules" ] || ln -s usr/lib "$from/lib"
	version=$(basename "$from"/lib/modules/*)
	depmod -b "$from" "$version"
	for module in "${modules[@]}"; do
		modprobe -d "$from" -S "$version" --show-depends "$module" ||
			die "the $1 kernel has no module $module"
	done | sed -n 's/^insmod \([^ ]*\).*/\1/p' | sort -u | while read -r path; do
		mkdir -p "$to/$(dirname "${path#"$from/"}")"
		cp "$path" "$to/${path#"$from/"}"
	done
	find "$to/lib/modules" -name '*.ko.xz' -exec xz -d {} +
	cp "$from/lib/modules/$version"/modules.{builtin,builtin.modinfo,order} "$to/lib/modules/$version"
	depmod -b "$to" "$version"
	(cd "$to/lib/modules/$version" &&
		find . -maxdepth 1 -name 'modules.*' ! -name modules.dep ! -name modules.alias -delete)
}

# pack ROOT FILE packs a folder as an initramfs. LZ4, in the format that kernels read, unpacks so fast that a boot takes
# a twentieth less than with gzip.
pack() {
	find "$1" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
	(cd "$1" && find . | sort | cpio --quiet --reproducible -o -H newc -R 0:0) | lz4 -lq9c >"$2"
}

# build_initramfs FLAVOUR AGENT SUFFIX builds $work/initramfs. The guest agent is in a
# second archive at its end; the kernel unpacks both. SUFFIX is that of the folder
# with busybox.
build_initramfs() {
	local root=$work/root
	rm -rf "$root" "$root-agent"
	mkdir -p "$root"/{bin,dev,lib,lib64,proc,root,run,sys,tmp,usr/bin,usr/sbin,var/log}
	cp -a "$here/root/." "$root"
	ln -s ../run "$root/var/run"
	cp "$(find "$packages/busybox-static$3" -type f -path '*/bin/busybox')" "$root/bin"
	"$(find "$packages/busybox-static" -type f -path '*/bin/busybox')" --list-full | while read -r applet; do
		[ -e "$root/$applet" ] || [ ! -d "$root/$(dirname "$applet")" ] ||
			ln -s /bin/busybox "$root/$applet"
	done
	copy_modules "$1" "$root"
	pack "$root" "$work/initramfs"
	[ "$2" = yes ] || return 0
	mkdir -p "$root-agent"/{lib,lib64,usr/sbin}
	cp "$packages/qemu-guest-agent/usr/sbin/qemu-ga" "$root-agent/usr/sbin"
	copy_libraries "$root-agent/usr/sbin/qemu-ga" "$root-agent"
	mv "$root-agent/lib/ld-linux-x86-64.so.2" "$root-agent/lib64"
	pack "$root-agent" "$work/agent"
	cat "$work/agent" >>"$work/initramfs"
}

# build_uki KERNEL FILE combines the kernel, the initramfs and the command line to
# one EFI program, with systemd's stub.
build_uki() {
	local stub=$packages/systemd-boot-efi/usr/lib/systemd/boot/efi/linuxx64.efi.stub
	local size address end=0 kernel_at initramfs_at header field
	while read -r size address; do
		((16#$size + 16#$address <= end)) || end=$((16#$size + 16#$address))
	done < <(objdump -h "$stub" | awk '$1 ~ /^[0-9]+$/ { print $3, $4 }')
	end=$(((end + 0xfffff) & ~0xfffff))
	kernel_at=$((end + 0x100000))
	initramfs_at=$(((kernel_at + $(stat -c %s "$1") + 0xfffff) & ~0xfffff))
	printf '%s' "$cmdline" >"$work/cmdline"
	objcopy --add-section .osrel="$here/root/etc/os-release" --change-section-vma .osrel=$((end)) \
		--add-section .cmdline="$work/cmdline" --change-section-vma .cmdline=$((end + 0x10000)) \
		--add-section .linux="$1" --change-section-vma .linux=$kernel_at \
		--add-section .initrd="$work/initramfs" --change-section-vma .initrd=$initramfs_at \
		"$stub" "$2"
	# objcopy writes the current time and a checksum, which firmware does not read.
	header=$(od -An -tu4 -j60 -N4 "$2")
	for field in $((header + 8)) $((header + 88)); do
		dd if=/dev/zero of="$2" bs=1 seek="$field" count=4 conv=notrunc status=none
	done
}

# build_grub FILE combines GRUB for ARM with its configuration to one EFI program.
build_grub() {
	printf 'search --no-floppy --file /vmlinuz --set root\nlinux /vmlinuz %s\ninitrd /initramfs\nboot\n' \
		"${cmdline//ttyS0,115200/ttyAMA0}" >"$work/grub.cfg"
	grub-mkimage -d "$packages/grub-efi-arm64-bin/usr/lib/grub/arm64-efi" -O arm64-efi -p /EFI/BOOT \
		-c "$work/grub.cfg" -o "$1" part_msdos fat normal linux search search_fs_file boot
}

# build_disk FLAVOUR FIRMWARE AGENT FILE builds a raw disk. It has a boot sector, a
# FAT partition from 1 to 40 MiB, and then 8 MiB for the guest's marks.
build_disk() {
	local type=6 fat=$work/disk.img@@1M kernel suffix=
	fetch busybox-static
	if [ "$1" = arm64 ]; then
		local apt_options=("${apt_options[@]}")
		suffix=-arm64
		use_arm
		fetch busybox-static-arm64 busybox-static
		fetch grub-efi-arm64-bin
	fi
	fetch_kernel "$1"
	[ "$3" = no ] || fetch_agent
	build_initramfs "$1" "$3" "$suffix"
	kernel=$(echo "$packages/kernel-$1"/boot/vmlinuz-*)
	[ "$2" = bios ] || type=ef
	rm -f "$work/disk.img"
	truncate -s 48M "$work/disk.img"
	# The disk signature in the boot sector is "tvm1". The guest searches for it.
	printf 'label: dos\nlabel-id: 0x316d7674\nstart=2048, size=79872, type=%s, bootable\n' $type |
		sfdisk -q "$work/disk.img"
	mformat -i "$fat" -T 79872 -h 16 -s 63 -H 2048 -N 54564d31 ::
	if [ "$1" = arm64 ]; then
		build_grub "$work/BOOTAA64.EFI"
		cp "$kernel" "$work/vmlinuz"
		touch -d "@$SOURCE_DATE_EPOCH" "$work"/{BOOTAA64.EFI,vmlinuz,initramfs}
		mmd -i "$fat" ::/EFI ::/EFI/BOOT
		mcopy -m -i "$fat" "$work/vmlinuz" "$work/initramfs" ::
		mcopy -m -i "$fat" "$work/BOOTAA64.EFI" ::/EFI/BOOT
	elif [ "$2" = efi ]; then
		fetch systemd-boot-efi
		build_uki "$kernel" "$work/BOOTX64.EFI"
		touch -d "@$SOURCE_DATE_EPOCH" "$work/BOOTX64.EFI"
		mmd -i "$fat" ::/EFI ::/EFI/BOOT
		mcopy -m -i "$fat" "$work/BOOTX64.EFI" ::/EFI/BOOT
	else
		dd if="$mbr" of="$work/disk.img" bs=440 count=1 conv=notrunc status=none
		syslinux --install -t 1048576 "$work/disk.img"
		sed "s|@CMDLINE@|$cmdline|" "$here/syslinux.cfg" >"$work/syslinux.cfg"
		cp "$kernel" "$work/vmlinuz"
		touch -d "@$SOURCE_DATE_EPOCH" "$work"/{syslinux.cfg,vmlinuz,initramfs}
		mcopy -m -i "$fat" "$work/syslinux.cfg" "$work/vmlinuz" "$work/initramfs" ::
	fi
	mv "$work/disk.img" "$4"
}

# write_vmx NAME FILE fills in the template with the variables of describe.
write_vmx() {
	local lines
	case $disk in
	pvscsi | lsisas1068)
		lines='scsi0.virtualDev = "'$disk'"\nscsi0.present = "TRUE"\nscsi0:0.fileName = "'$1'.vmdk"\nscsi0:0.present = "TRUE"' ;;
	sata) lines='sata0.present = "TRUE"\nsata0:0.fileName = "'$1'.vmdk"\nsata0:0.present = "TRUE"' ;;
	nvme) lines='nvme0.present = "TRUE"\nnvme0:0.fileName = "'$1'.vmdk"\nnvme0:0.present = "TRUE"' ;;
	ide) lines='ide0:0.fileName = "'$1'.vmdk"\nide0:0.present = "TRUE"' ;;
	esac
	sed -e "s|@NAME@|$1|g" -e "s|@NIC@|$nic|" -e "s|@DISK@|$lines|" \
		-e "s|@GUEST@|$guest|" \
		-e "s|@FIRMWARE@|firmware = \"$firmware\"|" "$here/tinyvm.vmx.in" >"$2"
}

# write_vmdk RAW FILE converts a raw disk. It replaces the random content ID of
# qemu-img with a constant, so that the same disk gives the same bytes.
write_vmdk() {
	local raw=$1 adapter=lsilogic
	[ "$disk" != ide ] || adapter=ide
	if [ "$subformat" = twoGbMaxExtentSparse ]; then
		# A disk of 5 GiB has three extents. Nearly all of it is a hole.
		cp --sparse=always "$raw" "$work/large.img"
		raw=$work/large.img
		truncate -s 5G "$raw"
	fi
	qemu-img convert -f raw -O vmdk -o "subformat=$subformat,adapter_type=$adapter" "$raw" "$2"
	sed -i '0,/^CID=[0-9a-f]\{8\}$/s//CID=74766d31/' "$2"
}

# archive DIR FILE packs the folder $work/tree/DIR.
archive() {
	local tar=(tar -C "$work/tree" --sort=name "--mtime=@$SOURCE_DATE_EPOCH" --owner=0 --group=0
		--numeric-owner --format=ustar -cf - "$1")
	case $format in
	tar) "${tar[@]}" >"$2" ;;
	tar.gz) "${tar[@]}" | gzip -n >"$2" ;;
	tar.bz2) "${tar[@]}" | bzip2 >"$2" ;;
	tar.xz) "${tar[@]}" | xz -T1 >"$2" ;;
	zip)
		find "$work/tree" -exec touch -d "@$SOURCE_DATE_EPOCH" {} +
		(cd "$work/tree" && find "$1" | sort | zip -qX - -@ >"$2")
		;;
	esac
}

# build_variant NAME builds the archive and its checksum, unless they are fresh.
build_variant() {
	local name=$1 file raw
	describe "$name"
	file=$name.$format
	if fresh "$out/$file" && [ -e "$out/$file.sha256" ]; then return; fi
	raw=$cache/disk-$kernel-$firmware-$agent.img
	fresh "$raw" || build_disk "$kernel" "$firmware" "$agent" "$raw"
	rm -rf "$work/tree"
	mkdir -p "$work/tree/$name"
	write_vmx "$name" "$work/tree/$name/$name.vmx"
	write_vmdk "$raw" "$work/tree/$name/$name.vmdk"
	archive "$name" "$work/$file"
	(cd "$work" && sha256sum "$file" >"$file.sha256")
	rm -f "$out/$file.sha256"
	mv "$work/$file" "$out/$file"
	mv "$work/$file.sha256" "$out/$file.sha256"
	echo "$out/$file $(stat -c %s "$out/$file") bytes"
}

case ${1:-} in
--packages) packages; exit ;;
--list) printf '%s\n' "${variants[@]}"; exit ;;
'' | -*) die "usage: build.sh OUTDIR [VARIANT...] | --list | --packages" ;;
esac

check_tools
mkdir -p "$1"
out=$(cd "$1" && pwd)
shift
[ $# -gt 0 ] || set -- tinyvm
[ "$*" != all ] || set -- "${variants[@]}"
for name; do describe "$name"; done

cache=$out/cache
packages=$cache/packages
mkdir -p "$packages"
exec 9>"$cache/lock"
flock 9
work=$(mktemp -d "$cache/work.XXXXXX")
trap 'rm -rf "$work"' EXIT
apt_options=(-o APT::Get::AllowUnauthenticated=false)
[ "$(id -u)" != 0 ] || apt_options+=(-o APT::Sandbox::User=root)

for name; do build_variant "$name"; done
