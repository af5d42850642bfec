// Package cgroup gives each machine a control group of its own (cgroup v2), if the service manager has given the daemon
// a part of the hierarchy to manage.
//
// The daemon's own group is then the group daemon in the delegated one, and machines are beside it, because a group with
// limits for its children has no processes (https://systemd.io/CGROUP_DELEGATION,
// https://docs.kernel.org/admin-guide/cgroup-v2.html). systemd puts the daemon there from version 254 on
// (DelegateSubgroup=daemon). Earlier versions cannot start a service again whose group has both processes and limits for
// its children, as it has while machines run, so nothing is done there.
package cgroup
