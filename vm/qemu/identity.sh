# This script gives a Linux guest an identity of its own. The guest's agent runs it as root by /bin/sh, which may be
# BusyBox's. It may run again after an interruption. The daemon puts the values of these variables before it:
#
#   name                    the host name
#   id                      the machine-id
#   seed                    random digits
#   key_TYPE, public_TYPE   SSH host keys; TYPE is rsa, ecdsa or ed25519
#   old, mac, address       the MAC address of the template's card, and those that the card must have;
#                           mac is empty if the card is to stay as it is
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH
umask 022

fail() {
	echo "$*" >&2
	exit 1
}

# An earlier run may have outlived the daemon that began it.
until [ ! -e /run/identity.pid ] || ! kill -0 "$(cat /run/identity.pid)" 2>/dev/null; do sleep 0.1; done
echo $$ >/run/identity.pid
trap 'rm -f /run/identity.pid' EXIT

# active UNIT succeeds if systemd runs the unit.
active() { systemctl is-active --quiet "$1" 2>/dev/null; }

# listening succeeds if a program listens at the TCP port 22, which is 0016 in hex.
listening() { grep -qi ':0016 0*:0000 0A ' /proc/net/tcp /proc/net/tcp6 2>/dev/null; }

# Kernels with CONFIG_VMGENID have drawn new random numbers already. Others take this in within minutes.
echo "$seed" >/dev/urandom

if [ -e /etc/machine-id ]; then
	echo "$id" >/etc/machine-id || fail "cannot write /etc/machine-id"
	if [ -f /var/lib/dbus/machine-id ] && [ ! -L /var/lib/dbus/machine-id ]; then
		echo "$id" >/var/lib/dbus/machine-id || fail "cannot write /var/lib/dbus/machine-id"
	fi
fi

echo "$name" >/proc/sys/kernel/hostname || fail "cannot set the host name"
echo "$name" >/etc/hostname || fail "cannot write /etc/hostname"
if [ -e /etc/hosts ]; then
	grep -qwF -- "$name" /etc/hosts || echo "127.0.1.1 $name" >>/etc/hosts || fail "cannot write /etc/hosts"
fi

# install_key TYPE PRIVATE PUBLIC replaces a key of the SSH server, if it has one of the type. The files keep their
# owners and modes.
install_key() {
	file=/etc/ssh/ssh_host_$1_key
	[ -e "$file" ] || return 0
	printf '%s\n' "$2" >"$file" && printf '%s root@%s\n' "$3" "$name" >"$file.pub" || fail "cannot write $file"
	renewed=yes
}

renewed=
ssh=
install_key rsa "$key_rsa" "$public_rsa"
install_key ecdsa "$key_ecdsa" "$public_ecdsa"
install_key ed25519 "$key_ed25519" "$public_ed25519"
rm -f /etc/ssh/ssh_host_dsa_key /etc/ssh/ssh_host_dsa_key.pub
if [ -n "$renewed" ]; then
	listening && ssh=listens
	if [ -s /run/sshd.pid ]; then
		kill -HUP "$(cat /run/sshd.pid)"
	elif command -v systemctl >/dev/null; then
		systemctl try-restart ssh.service sshd.service 2>/dev/null
	else
		pkill -HUP -o -x sshd
	fi
fi

# has_address succeeds if the card has the address.
has_address() { ip -4 addr show dev "$card" | grep -qF "inet $address/"; }

# change_card gives the card its own MAC address while it is down.
change_card() {
	ip link set dev "$card" down &&
		ip addr flush dev "$card" &&
		ip link set dev "$card" address "$mac" &&
		ip link set dev "$card" up ||
		fail "cannot change the MAC address of $card"
}

# launch COMMAND runs a command that leaves a DHCP client behind, which is not to end with the guest's agent.
launch() { if command -v systemd-run >/dev/null; then systemd-run --quiet --scope "$@"; else "$@"; fi; }

# restart_client starts the card's DHCP client again, which a script of the image has started.
restart_client() {
	for process in /proc/[0-9]*; do
		[ -r "$process/cmdline" ] || continue
		line=$(tr '\0' ' ' <"$process/cmdline" 2>/dev/null)
		case $line in
		*udhcpc*" $card "* | *dhclient*" $card "*) ;;
		*) continue ;;
		esac
		tr '\0' '\n' <"$process/cmdline" >/run/identity.client || fail "cannot write to /run"
		kill "${process#/proc/}"
	done
	change_card
	if [ -s /run/identity.client ]; then
		set --
		while IFS= read -r argument; do set -- "$@" "$argument"; done </run/identity.client
		launch "$@" </dev/null >/dev/null 2>&1 &
	fi
	rm -f /run/identity.client
}

# renew_card lets whatever configures the card ask for its new address. It is the same that the guest uses after it has
# booted, so the card needs no configuration besides that of the image.
renew_card() {
	if active NetworkManager && nmcli -g GENERAL.STATE device show "$card" 2>/dev/null | grep -q ^100; then
		nmcli device disconnect "$card" >/dev/null
		change_card
		nmcli device connect "$card" >/dev/null
	elif active systemd-networkd && grep -q ^ADMIN_STATE=configur "/run/systemd/netif/links/$(cat "/sys/class/net/$card/ifindex")" 2>/dev/null; then
		change_card
		networkctl reconfigure "$card" 2>/dev/null
	elif command -v ifup >/dev/null && grep -q "^$card=" /run/network/ifstate 2>/dev/null; then
		ifdown --force "$card" >/dev/null 2>&1
		change_card
		launch ifup --force "$card" >/dev/null 2>&1
	else
		restart_client
	fi
}

if [ -n "$mac" ]; then
	card=
	for device in /sys/class/net/*; do
		[ -e "$device/device" ] && read -r at <"$device/address" || continue
		[ "$at" != "$old" ] && [ "$at" != "$mac" ] || card=${device##*/}
	done
	[ -n "$card" ] || fail "no network card has the MAC address $old"
	read -r at <"/sys/class/net/$card/address"
	[ "$at" = "$mac" ] && has_address || renew_card
	tries=0
	until has_address; do
		[ $tries -lt 600 ] || fail "$card did not get the address $address by DHCP within a minute"
		sleep 0.1
		tries=$((tries + 1))
	done
fi

if [ -n "$ssh" ]; then
	tries=0
	until listening || [ $tries -ge 100 ]; do
		sleep 0.1
		tries=$((tries + 1))
	done
fi
sync
