#!/bin/bash
# build.sh builds a real Debian from its packages, as the installer leaves it in a
# VMware machine: GRUB, the standard kernel, ifupdown, open-vm-tools, the guest agent
# and an SSH server. /etc/network/interfaces names the card after VMware's PCI slot.
#
# debian-cloudinit has cloud-init too, as images for clouds do, and leaves the network to it.
# debian13 is the next release, with another DHCP client, on the devices that VMware gives new machines.
#
#   build.sh OUTDIR [VARIANT...]   builds OUTDIR/VARIANT.tar.gz and its .sha256
#   build.sh --list                prints the variants
#   build.sh --packages            prints the Debian packages it needs
#
# Without a variant it builds all. It needs root for the system's files, but no loop
# device. It does not build an archive again that is newer than this folder.
# OUTDIR/cache has the system that all variants share.
set -euo pipefail
umask 022
export LC_ALL=C TZ=UTC
PATH=$PATH:/usr/sbin:/sbin

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
variants=(debian-pvscsi debian-lsilogic debian-efi debian-cloudinit debian13)

# The tools, each with its Debian package.
tools=(mmdebstrap:mmdebstrap mke2fs:e2fsprogs sfdisk:fdisk mformat:mtools qemu-img:qemu-utils
	grub-mkimage:grub-common flock:util-linux)
bios=/usr/lib/grub/i386-pc efi=/usr/lib/grub/x86_64-efi

# What the guest has besides Debian's minimum and its DHCP client.
include=linux-image-amd64,systemd-sysv,udev,kmod,initramfs-tools,zstd,ifupdown,iproute2,openssh-server,open-vm-tools,qemu-guest-agent

die() {
	echo "build.sh: $*" >&2
	exit 1
}

packages() {
	printf '%s\n' "${tools[@]#*:}" grub-pc-bin grub-efi-amd64-bin | sort -u | tr '\n' ' ' | sed 's/ $/\n/'
}

check_tools() {
	local pair missing=()
	[ "$(id -u)" = 0 ] || die "the guest's files belong to root; run it as root"
	for pair in "${tools[@]}"; do
		command -v "${pair%%:*}" >/dev/null || missing+=("${pair%%:*} (Debian package ${pair#*:})")
	done
	[ -e $bios/boot.img ] || missing+=("$bios/boot.img (Debian package grub-pc-bin)")
	[ -e $efi/kernel.img ] || missing+=("$efi/kernel.img (Debian package grub-efi-amd64-bin)")
	[ ${#missing[@]} -eq 0 ] || die "missing: $(printf '%s, ' "${missing[@]}" | sed 's/, $//')"
}

# What it has besides with cloud-init: what grows its partition and its file system.
cloudinit=cloud-init,cloud-guest-utils,fdisk,e2fsprogs,sudo

# describe VARIANT sets the variables that differ between variants.
describe() {
	system=debian suite=bookworm dhcp=isc-dhcp-client
	case $1 in
	debian-pvscsi) firmware=bios disk=pvscsi nic=vmxnet3 slot=33 ;;
	debian-lsilogic) firmware=bios disk=lsilogic nic=e1000 slot=33 ;;
	debian-efi) firmware=efi disk=sata nic=e1000e slot=192 ;;
	debian-cloudinit) firmware=bios disk=pvscsi nic=vmxnet3 slot=33 system=cloudinit ;;
	debian13) firmware=efi disk=nvme nic=vmxnet3 slot=192 system=debian13 suite=trixie dhcp=dhcpcd-base ;;
	*) die "no variant $1; there are: ${variants[*]}" ;;
	esac
}

# fresh FILE succeeds if the file is newer than everything that it is built from.
fresh() { [ -e "$1" ] && [ "$1" -nt "$here/build.sh" ]; }

# build_system builds $cache/$system.tar, the files that variants share. The
# initramfs has the drivers of VMware's disk controllers; Debian's usual one has
# hundreds, which take a minute to load without hardware acceleration.
build_system() {
	local hooks=$work/hooks packages=$include,$dhcp
	[ "$system" != cloudinit ] || packages+=,$cloudinit
	mkdir -p "$hooks"
	cat >"$hooks/before" <<'end'
#!/bin/sh
set -e
mkdir -p "$1/etc/initramfs-tools/conf.d"
printf '%s\n' ext4 sd_mod vmw_pvscsi mptspi mptsas sym53c8xx ahci ata_piix nvme >"$1/etc/initramfs-tools/modules"
printf 'MODULES=list\nCOMPRESS=zstd\nCOMPRESSLEVEL=1\nRESUME=none\n' >"$1/etc/initramfs-tools/conf.d/drivers"
end
	cat >"$hooks/after" <<'end'
#!/bin/sh
set -e
echo debian >"$1/etc/hostname"
printf '127.0.0.1 localhost debian\n' >"$1/etc/hosts"
rm -f "$1"/etc/ssh/ssh_host_*
# Only what takes long without hardware acceleration is left out.
chroot "$1" ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/ssh_host_ed25519_key
printf 'HostKey /etc/ssh/ssh_host_ed25519_key\nUseDNS no\n' >"$1/etc/ssh/sshd_config.d/test.conf"
for unit in apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service \
	fstrim.timer systemd-timesyncd.service getty@tty1.service; do
	ln -sf /dev/null "$1/etc/systemd/system/$unit"
done
echo 'root:root' | chroot "$1" chpasswd
rm -rf "$1"/var/cache/apt/* "$1"/var/lib/apt/lists/* "$1"/usr/share/doc/* "$1"/usr/share/man/* "$1"/usr/share/locale/*
end
	chmod +x "$hooks/before" "$hooks/after"
	mmdebstrap --quiet --mode=root --variant=minbase --include="$packages" --aptopt='APT::Install-Recommends "false"' \
		--dpkgopt='force-unsafe-io' --extract-hook="$hooks/before" --customize-hook="$hooks/after" \
		"$suite" "$work/$system.tar"
	mv "$work/$system.tar" "$cache/$system.tar"
}

# build_disk FILE builds a raw disk with the firmware's boot loader and the system.
# For EFI the boot loader is only in Debian's own folder, where its installer puts it.
build_disk() {
	local root=$work/root options="root=LABEL=debian ro quiet console=tty0 console=ttyS0,115200 mitigations=off net.ifnames=1" at=2048
	rm -rf "$root"
	mkdir "$root"
	tar -C "$root" -xf "$cache/$system.tar"
	printf 'LABEL=debian / ext4 errors=remount-ro 0 1\n' >"$root/etc/fstab"
	# As the installer writes it.
	printf 'source /etc/network/interfaces.d/*\n\nauto lo\niface lo inet loopback\n' >"$root/etc/network/interfaces"
	[ "$system" = cloudinit ] ||
		printf '\nallow-hotplug %s\niface %s inet dhcp\n' "ens$slot" "ens$slot" >>"$root/etc/network/interfaces"
	cp "$root"/boot/vmlinuz-* "$root/boot/vmlinuz"
	cp "$root"/boot/initrd.img-* "$root/boot/initrd.img"
	printf 'search --no-floppy --label debian --set root\nlinux /boot/vmlinuz %s\ninitrd /boot/initrd.img\nboot\n' \
		"$options" >"$work/grub.cfg"
	rm -f "$1"
	truncate -s 2G "$1"
	if [ "$firmware" = efi ]; then
		at=67584
		printf 'label: gpt\nstart=2048, size=65536, type=uefi\nstart=67584, type=linux\n' | sfdisk -q "$1"
		grub-mkimage -d $efi -O x86_64-efi -p /EFI/debian -c "$work/grub.cfg" -o "$work/grubx64.efi" \
			part_gpt ext2 fat normal linux search search_label boot
		mformat -i "$1@@1M" -T 65536 -h 16 -s 63 -H 2048 ::
		mmd -i "$1@@1M" ::/EFI ::/EFI/debian
		mcopy -i "$1@@1M" "$work/grubx64.efi" ::/EFI/debian
	else
		printf 'label: dos\nstart=2048, type=83, bootable\n' | sfdisk -q "$1"
		grub-mkimage -d $bios -O i386-pc -p '(hd0,msdos1)/boot/grub' -c "$work/grub.cfg" -o "$work/core.img" \
			biosdisk part_msdos ext2 normal linux search search_label boot
		[ "$(stat -c %s "$work/core.img")" -le $((2047 * 512)) ] || die "GRUB is larger than the gap before the partition"
		dd if=$bios/boot.img of="$1" bs=440 count=1 conv=notrunc status=none
		dd if="$work/core.img" of="$1" bs=512 seek=1 conv=notrunc status=none
	fi
	mke2fs -q -t ext4 -L debian -d "$root" -E "offset=$((at * 512)),lazy_itable_init=1" -O ^metadata_csum \
		"$1" $(((2 * 1024 * 1024) - at / 2 - 1024))k
	rm -rf "$root"
}

# write_vmx NAME FILE writes the .vmx as Workstation's "easy install" leaves it.
write_vmx() {
	local lines=$disk'0.present = "TRUE"\n'$disk'0:0.fileName = "'$1'.vmdk"\n'$disk'0:0.present = "TRUE"'
	[ "$disk" = sata ] || [ "$disk" = nvme ] ||
		lines='scsi0.virtualDev = "'$disk'"\nscsi0.present = "TRUE"\nscsi0:0.fileName = "'$1'.vmdk"\nscsi0:0.present = "TRUE"'
	sed -e "s|@NAME@|$1|g" -e "s|@DISK@|$lines|" -e "s|@FIRMWARE@|$firmware|" -e "s|@NIC@|$nic|" -e "s|@SLOT@|$slot|" \
		"$here/debian.vmx.in" >"$2"
}

# build_variant NAME builds the archive and its checksum, unless they are fresh.
build_variant() {
	local name=$1 tree=$work/tree/$1
	if fresh "$out/$name.tar.gz" && [ -e "$out/$name.tar.gz.sha256" ]; then return; fi
	describe "$name"
	fresh "$cache/$system.tar" || build_system
	mkdir -p "$tree"
	build_disk "$work/disk.img"
	write_vmx "$name" "$tree/$name.vmx"
	qemu-img convert -f raw -O vmdk -o subformat=monolithicSparse "$work/disk.img" "$tree/$name.vmdk"
	rm "$work/disk.img"
	tar -C "$work/tree" -cf - "$name" | gzip -1n >"$work/$name.tar.gz"
	rm -rf "$tree"
	(cd "$work" && sha256sum "$name.tar.gz" >"$name.tar.gz.sha256")
	rm -f "$out/$name.tar.gz.sha256"
	[ -z "${SUDO_UID:-}" ] || chown "$SUDO_UID:$SUDO_GID" "$work/$name.tar.gz" "$work/$name.tar.gz.sha256"
	mv "$work/$name.tar.gz" "$work/$name.tar.gz.sha256" "$out"
	echo "$out/$name.tar.gz $(stat -c %s "$out/$name.tar.gz") bytes"
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
[ $# -gt 0 ] || set -- "${variants[@]}"
for name; do describe "$name"; done
cache=$out/cache
mkdir -p "$cache"
exec 9>"$cache/debian.lock"
flock 9
work=$(mktemp -d "$cache/debian.XXXXXX")
trap 'rm -rf "$work"' EXIT
for name; do build_variant "$name"; done
