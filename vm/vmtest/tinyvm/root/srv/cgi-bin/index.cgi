#!/bin/sh
# GET / : what the machine knows of itself, one "key: value" a line.
. /etc/lib

read -r uptime rest </proc/uptime
printf 'Content-Type: text/plain\r\nCache-Control: no-store\r\n\r\n'
cat <<end
mac: $(mac)
hostname: $(hostname)
address: $(address)
memory_kib: $(awk '/^MemTotal:/ { print $2 }' /proc/meminfo)
cpus: $(nproc)
boot_id: $(cat /proc/sys/kernel/random/boot_id)
mark: $(recall $MARK)
last_shutdown: $(recall $LAST_SHUTDOWN)
kernel: $(uname -r)
uptime: $uptime
end
