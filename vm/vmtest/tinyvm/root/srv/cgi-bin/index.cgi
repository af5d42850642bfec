#!/bin/sh
# GET / : facts about the machine, one "key: value" on each line.
. /etc/lib

read -r uptime rest </proc/uptime
printf 'Content-Type: text/plain\r\nCache-Control: no-store\r\n\r\n'
cat <<end
mac: $(mac)
hostname: $(hostname)
address: $(address)
slot: $(slot)
memory_kib: $(awk '/^MemTotal:/ { print $2 }' /proc/meminfo)
cpus: $(nproc)
boot_id: $(cat /proc/sys/kernel/random/boot_id)
mark: $(read_block $MARK)
last_shutdown: $(read_block $LAST_SHUTDOWN)
kernel: $(uname -r)
uptime: $uptime
end
