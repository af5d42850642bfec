#!/bin/bash
# check.sh boots each variant of build.sh three times with QEMU's TCG and the
# devices of its .vmx. It checks what the tests rely on: the page, the marks, the
# guest agent, the consoles and every way to power off.
#
#   check.sh OUTDIR [VARIANT...]   checks these variants, by default all
#   check.sh --packages            prints the Debian packages it needs
#
# It prints a line for each variant and leaves no files.
set -euo pipefail
export LC_ALL=C

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
mac=52:54:00:74:76:6d
firmware_code=/usr/share/OVMF/OVMF_CODE_4M.fd
firmware_vars=/usr/share/OVMF/OVMF_VARS_4M.fd
pid=

if [ "${1:-}" = --packages ]; then
	echo bzip2 curl ovmf qemu-system-x86 qemu-utils unzip xz-utils
	exit
fi
if [ ! -d "${1:-}" ]; then
	echo "usage: check.sh OUTDIR [VARIANT...] | --packages" >&2
	exit 1
fi
for tool in qemu-system-x86_64:qemu-system-x86 qemu-img:qemu-utils curl:curl unzip:unzip xz:xz-utils bzip2:bzip2; do
	command -v "${tool%:*}" >/dev/null ||
		{ echo "check.sh: ${tool%:*} is missing (Debian package ${tool#*:})" >&2; exit 1; }
done

out=$(cd "$1" && pwd)
shift
work=$(mktemp -d)
trap 'power_cut; rm -rf "$work"' EXIT

fail() {
	echo "FAIL $variant: $*" >&2
	tail -n 20 "$work/console" "$work/stderr" >&2 2>/dev/null || true
	exit 1
}

# check_equal WHAT GOT WANT fails if GOT is not WANT.
check_equal() {
	[ "$2" = "$3" ] || fail "$1: got '$2', want '$3'"
}

# vmx KEY prints the value of a key of the .vmx file.
vmx() {
	sed -n "s/^$1 = \"\(.*\)\"\$/\1/p" "$work/image/$variant/$variant.vmx"
}

# unpack FILE checks the checksum of an archive, unpacks it, and checks its files.
unpack() {
	local file=$1
	(cd "$out" && sha256sum --quiet -c "$file.sha256") || fail "checksum of $file"
	rm -rf "$work/image"
	mkdir "$work/image"
	case $file in
	*.zip) unzip -q "$out/$file" -d "$work/image" ;;
	*) tar -C "$work/image" -xf "$out/$file" ;;
	esac
	check_equal ".vmx files" "$(cd "$work/image" && find . -name '*.vmx')" "./$variant/$variant.vmx"
	vmdk=$work/image/$variant/$variant.vmdk
	chmod -R a-w "$work/image/$variant"
	check_equal "create type" "$(qemu-img info "$vmdk" | sed -n 's/^ *create type: //p')" "$(subformat)"
	[ "$variant" != tinyvm-split ] ||
		check_equal "extents" "$(find "$work/image" -name '*-s00?.vmdk' | wc -l)" 3
	rm -f "$work/overlay"
	qemu-img create -q -f qcow2 -b "$vmdk" -F vmdk "$work/overlay"
}

subformat() {
	case $variant in
	tinyvm-sparse) echo monolithicSparse ;;
	tinyvm-split) echo twoGbMaxExtentSparse ;;
	tinyvm-flat) echo monolithicFlat ;;
	*) echo streamOptimized ;;
	esac
}

# set_devices sets devices, QEMU's arguments for the devices of the .vmx.
# shellcheck disable=SC2054 # the commas are part of QEMU's arguments
set_devices() {
	local nic
	case $(vmx scsi0.virtualDev)/$(vmx sata0.present)/$(vmx nvme0.present) in
	pvscsi/*) devices=(-device pvscsi,id=c -device scsi-hd,bus=c.0,drive=disk) ;;
	# Without a world wide name QEMU gives the disk the SAS address 0, which
	# the Linux driver ignores.
	lsisas1068/*) devices=(-device mptsas1068,id=c -device scsi-hd,bus=c.0,drive=disk,wwn=0x5000c29000000001) ;;
	/TRUE/) devices=(-device ich9-ahci,id=c -device ide-hd,bus=c.0,drive=disk) ;;
	//TRUE) devices=(-device nvme,serial=tinyvm,drive=disk) ;;
	*) devices=(-device ide-hd,bus=ide.0,drive=disk) ;;
	esac
	nic=$(vmx ethernet0.virtualDev)
	[ "$nic" != vlance ] || nic=pcnet
	devices+=(-device "$nic,netdev=net,mac=$mac,romfile=")
	if [ "$(vmx firmware)" = efi ]; then
		cp "$firmware_vars" "$work/vars"
		devices+=(-drive "if=pflash,format=raw,readonly=on,file=$firmware_code"
			-drive "if=pflash,format=raw,file=$work/vars")
	fi
}

# boot MIB starts the machine and waits until it is ready. It sets page to the URL of
# its page, and lease to the seconds until it had an address.
boot() {
	local start=$EPOCHREALTIME ports
	rm -f "$work"/{console,agent.in,agent.out,serial.in,serial.out}
	mkfifo "$work"/{agent.in,agent.out,serial.in,serial.out}
	touch "$work/console"
	coproc QEMU {
		exec qemu-system-x86_64 -accel tcg -machine pc -nodefaults -no-user-config -smp 2 -m "$1" \
			-display none -vga vmware -qmp stdio \
			-drive "if=none,id=disk,format=qcow2,file=$work/overlay" \
			-netdev user,id=net,hostfwd=tcp:127.0.0.1:0-:80,hostfwd=tcp:127.0.0.1:0-:22 "${devices[@]}" \
			-chardev "pipe,id=serial,path=$work/serial,logfile=$work/console" -serial chardev:serial \
			-chardev "pipe,id=agent,path=$work/agent" -device virtio-serial-pci \
			-device virtserialport,chardev=agent,name=org.qemu.guest_agent.0 2>"$work/stderr"
	}
	pid=$QEMU_PID
	exec {to_qemu}>&"${QEMU[1]}" {from_qemu}<&"${QEMU[0]}"
	qmp '{"execute":"qmp_capabilities"}' >/dev/null
	ports=$(qmp '{"execute":"human-monitor-command","arguments":{"command-line":"info usernet"}}' | sed 's/\\r\\n/\n/g')
	page=http://127.0.0.1:$(awk '$1 ~ /^TCP.HOST_FORWARD/ && $6 == 80 { print $4 }' <<<"$ports")
	ssh_port=$(awk '$1 ~ /^TCP.HOST_FORWARD/ && $6 == 22 { print $4 }' <<<"$ports")
	wait_for_console "tinyvm: lease of "
	lease=$(awk "BEGIN { printf \"%.1f\", $EPOCHREALTIME - $start }")
	wait_for_console "tinyvm: ready mac=$mac ip=10.0.2.15"
}

# wait_for_console TEXT waits until the serial console has shown the text.
wait_for_console() {
	local tries=0
	until grep -qF "$1" "$work/console"; do
		kill -0 "$pid" 2>/dev/null || fail "QEMU ended before the console showed '$1'"
		((++tries < 1200)) || fail "the console does not show '$1'"
		sleep 0.05
	done
}

# qmp COMMAND prints QEMU's response and skips events.
qmp() {
	local line
	echo "$1" >&"$to_qemu"
	while read -r -t 20 line <&"$from_qemu"; do
		case $line in
		'{"return"'*) echo "$line"; return ;;
		'{"error"'*) fail "QMP $1: $line" ;;
		esac
	done
	fail "QMP $1: no response"
}

# agent SECONDS COMMAND prints the guest agent's response, or nothing.
agent() {
	local line=
	echo "$2" >"$work/agent.in"
	read -r -t "$1" line <>"$work/agent.out" || true
	echo "$line"
}

power_cut() {
	[ -n "$pid" ] || return 0
	kill -9 "$pid" 2>/dev/null || true
	wait "$pid" 2>/dev/null || true
	pid=
}

# wait_for_power_off CAUSE waits until QEMU exits, and checks that its status is 0
# and that the guest shut down cleanly.
wait_for_power_off() {
	local tries=0
	while kill -0 "$pid" 2>/dev/null; do
		((++tries < 400)) || fail "the machine is still on 20 s after $1"
		sleep 0.05
	done
	wait "$pid" || fail "QEMU ended with status $? after $1"
	pid=
	grep -q '^tinyvm: shutting down' "$work/console" || fail "no clean shutdown after $1"
}

get() {
	curl -sS -m 10 "$page$1" || fail "GET $1"
}

# page_value KEY prints the value of a key of the page.
page_value() {
	get / | tr -d '\r' | sed -n "s/^$1: //p"
}

check_page() {
	local memory banner
	check_equal mac "$(page_value mac)" $mac
	check_equal hostname "$(page_value hostname)" tinyvm
	check_equal address "$(page_value address)" 10.0.2.15
	check_equal cpus "$(page_value cpus)" 2
	memory=$(page_value memory_kib)
	((memory > $1 * 1024 / 2 && memory <= $1 * 1024)) || fail "memory_kib: $memory with $1 MiB"
	boot_id=$(page_value boot_id)
	read -r -t 10 banner <"/dev/tcp/127.0.0.1/$ssh_port" || fail "port 22 sends no banner"
	check_equal "banner on port 22" "$banner" "tinyvm $boot_id"
}

# log_in logs in on the serial console.
log_in() {
	wait_for_console "tinyvm login: "
	printf 'root\n' >"$work/serial.in"
	wait_for_console "/root # "
}

check_consoles() {
	log_in
	# shellcheck disable=SC2016 # the guest's shell computes the sum
	printf 'echo sum $((40 + 2))\n' >"$work/serial.in"
	wait_for_console "sum 42"
	qmp '{"execute":"screendump","arguments":{"filename":"'"$work/screen"'"}}' >/dev/null
	[ "$(tail -c +16 "$work/screen" | tr -d '\0' | wc -c)" -gt 100 ] || fail "the screen is blank"
}

check_agent() {
	local answer
	if [ "$variant" = tinyvm-noagent ]; then
		check_equal "the agent's response" "$(agent 2 '{"execute":"guest-ping"}')" ""
		return
	fi
	check_equal guest-sync "$(agent 10 '{"execute":"guest-sync","arguments":{"id":4711}}')" '{"return": 4711}'
	check_equal guest-ping "$(agent 10 '{"execute":"guest-ping"}')" '{"return": {}}'
	check_equal guest-sync-delimited "$(agent 10 '{"execute":"guest-sync-delimited","arguments":{"id":42}}' | tr -d '\377')" '{"return": 42}'
	answer=$(agent 10 '{"execute":"guest-network-get-interfaces"}')
	[[ $answer == *'"ip-address": "10.0.2.15"'*"\"hardware-address\": \"$mac\""* ]] || fail "interfaces: $answer"
	answer=$(agent 10 '{"execute":"guest-exec","arguments":{"path":"/bin/true"}}')
	[[ $answer == '{"return": {"pid": '* ]] || fail "guest-exec: $answer"
}

# check FILE boots a variant three times. The first boot writes a mark and ends in a
# power cut. The second reads the mark and ends by the power button. The third reads
# the record of that clean shutdown and ends by a request inside the guest.
check() {
	local file=$1 first second sum seconds memory=128
	unpack "$file"
	set_devices
	sum=$(cat "$work/image/$variant"/* | sha256sum)

	boot 256
	seconds=$lease
	check_page 256
	check_equal "fresh mark" "$(page_value mark)" none
	check_equal "fresh last_shutdown" "$(page_value last_shutdown)" none
	check_equal "writing a mark" "$(get '/cgi-bin/mark?value=first-4711')" first-4711
	check_equal "a bad mark" "$(curl -s -o "$work/body" -w '%{http_code}' "$page/cgi-bin/mark?value=a%20b")" 400
	check_consoles
	check_agent
	first=$boot_id
	power_cut

	boot 256
	check_page 256
	[ "$boot_id" != "$first" ] || fail "two boots have the boot_id $boot_id"
	check_equal "mark after a power cut" "$(get /cgi-bin/mark)" first-4711
	check_equal "last_shutdown after a power cut" "$(page_value last_shutdown)" none
	second=$boot_id
	qmp '{"execute":"system_powerdown"}' >/dev/null
	wait_for_power_off "the power button"

	[ "$(vmx firmware)" != efi ] || memory=256
	boot $memory
	check_page $memory
	[[ $(page_value last_shutdown) == "clean "*" $second" ]] || fail "last_shutdown: $(page_value last_shutdown)"
	case $variant in
	tinyvm) agent 0.1 '{"execute":"guest-shutdown"}' >/dev/null ;;
	tinyvm-noagent) log_in && printf 'poweroff\n' >"$work/serial.in" ;;
	*) check_equal poweroff "$(get /cgi-bin/poweroff)" "powering off" ;;
	esac
	wait_for_power_off "a request inside the guest"

	check_equal "checksum of the image's files" "$(cat "$work/image/$variant"/* | sha256sum)" "$sum"
	echo "ok $variant lease=${seconds}s"
}

if [ $# -eq 0 ]; then
	mapfile -t built < <("$here/build.sh" --list | grep -v arm64)
	set -- "${built[@]}"
fi
for variant; do
	for file in "$out/$variant".{tar.gz,tar.bz2,tar.xz,tar,zip}; do
		if [ -e "$file" ]; then check "${file##*/}"; continue 2; fi
	done
	fail "there is no archive of it in $out"
done
