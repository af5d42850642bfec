#!/bin/bash
# systemd.sh PROGRAM DIR runs the unit that PROGRAM prints under systemd, as process 1 of namespaces of its own, in the
# network of its caller. DIR, which is empty, gets what systemd and the daemon write. On SIGTERM all of it ends.
set -e
program=$1 dir=$2 group=$3

if [ -z "$group" ]; then
  # A control group of its own is the root of what systemd sees.
  mkdir "$dir/cgroup" "$dir/units" "$dir/lib"
  mount -t cgroup2 none "$dir/cgroup"
  group=$dir/cgroup$(sed -n 's/^0:://p' /proc/self/cgroup)/osxb-test-$$
  mkdir "$group"
  unshare --fork --pid --kill-child --mount --uts --ipc -- "$0" "$program" "$dir" "$group" &
  trap 'kill -KILL $!' TERM
  wait $! || true
  wait $! || true # the trap ends the first one
  until find "$group" -depth -type d -exec rmdir {} + 2>/dev/null; do sleep 0.1; done
  umount "$dir/cgroup"
  exit
fi

echo 0 >"$group/cgroup.procs"
exec unshare --cgroup -- /bin/bash -ec '
  program=$1 dir=$2
  mount --make-rprivate /
  mount -t proc proc /proc
  umount -R /sys/fs/cgroup 2>/dev/null || true
  mount -t cgroup2 none /sys/fs/cgroup
  mount -t tmpfs -o mode=755 tmpfs /run
  mount --bind "$dir/units" /etc/systemd/system
  mount --bind "$dir/lib" /var/lib
  "$program" -print-unit systemd | sed "s|^\[Unit\]|&\nDefaultDependencies=no|; /^Wants=/d; /^After=/d" \
    >/etc/systemd/system/osx-builder.service
  exec env -i container=osx-builder PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    /lib/systemd/systemd --system --unit=osx-builder.service --log-target=console
' bash "$program" "$dir"
