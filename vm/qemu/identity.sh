# This script gives a Linux guest an identity of its own. The guest's agent runs it as root by /bin/sh, which may be
# BusyBox's. It may run again after an interruption. The daemon puts the values of these variables before it:
#
#   name                    the host name
#   id                      the machine-id
#   seed                    random digits
#   key_TYPE, public_TYPE   SSH host keys; TYPE is rsa, ecdsa or ed25519
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

if [ -n "$ssh" ]; then
	tries=0
	until listening || [ $tries -ge 100 ]; do
		sleep 0.1
		tries=$((tries + 1))
	done
fi
sync
