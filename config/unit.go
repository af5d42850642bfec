package config

import (
	"encoding/xml"
	"fmt"
	"strings"
)

// Unit returns the unit with which a service manager runs the daemon. program is the path of its binary; kind is
// systemd, launchd or windows.
func Unit(kind, program string) (string, error) {
	switch kind {
	case "systemd":
		quoted := `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "%", "%%", "$", "$$").Replace(program) + `"`
		return strings.ReplaceAll(systemdUnit, "PROGRAM", quoted), nil
	case "launchd":
		var escaped strings.Builder
		if err := xml.EscapeText(&escaped, []byte(program)); err != nil {
			return "", err
		}
		return strings.ReplaceAll(launchdPlist, "PROGRAM", escaped.String()), nil
	case "windows":
		if strings.ContainsAny(program, "&^") {
			return "", fmt.Errorf("the path %s has a character that means something else in a script; move the program", program)
		}
		return strings.ReplaceAll(strings.ReplaceAll(windowsService, "\n", "\r\n"), "PROGRAM", strings.ReplaceAll(program, "%", "%%")), nil
	default:
		return "", fmt.Errorf("there is no unit for %q; the available kinds are systemd, launchd and windows", kind)
	}
}

// systemdUnit keeps machines running while the daemon restarts (KillMode), or if one of them is killed because memory
// is short (OOMPolicy). It leaves open what machines need: QEMU's emulation runs code that it writes, machines have
// users and network devices of their own, and the daemon switches IPv4 forwarding on.
const systemdUnit = `# osx-builder -print-unit systemd > /etc/systemd/system/osx-builder.service
# systemctl daemon-reload && systemctl enable --now osx-builder
#
# Put settings into /etc/osx-builder.env as variables, one per line, such as
# OSX_BUILDER_LISTEN=...; osx-builder -help lists them all.

[Unit]
Description=OSX Builder, virtual machines from image URLs
Wants=network-online.target
After=network-online.target

[Service]
Type=notify
NotifyAccess=main
ExecStart=PROGRAM
ExecReload=/bin/kill -HUP $MAINPID
Environment=OSX_BUILDER_DATA=/var/lib/osx-builder
EnvironmentFile=-/etc/osx-builder.env
StateDirectory=osx-builder
StateDirectoryMode=0700
RuntimeDirectory=osx-builder
UMask=0077
Restart=on-failure
RestartSec=2
TimeoutStartSec=5min
TimeoutStopSec=15

# Machines outlive the daemon.
KillMode=process
OOMPolicy=continue
TasksMax=infinity
LimitNOFILE=65536

# Each machine gets a control group of its own, beside the daemon's. systemd before
# 254 does not know the second line, and says so; machines then stay in one group.
Delegate=memory pids cpu io
DelegateSubgroup=daemon

NoNewPrivileges=yes
CapabilityBoundingSet=CAP_NET_ADMIN CAP_NET_RAW CAP_NET_BIND_SERVICE CAP_SETUID CAP_SETGID CAP_CHOWN CAP_KILL
ProtectSystem=strict
# dnsmasq runs as a user of its own and reads its files in a folder in /run. The
# other folder is the unit's own control group.
ReadWritePaths=/run -/sys/fs/cgroup/system.slice/%n
ProtectHome=yes
PrivateTmp=yes
PrivateMounts=yes
# Of the devices only these two are there, if the host has them.
PrivateDevices=yes
BindPaths=-/dev/kvm -/dev/net/tun
DevicePolicy=closed
DeviceAllow=/dev/kvm rw
DeviceAllow=/dev/net/tun rw
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectClock=yes
ProtectHostname=yes
RemoveIPC=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service landlock_create_ruleset landlock_add_rule landlock_restrict_self seccomp unshare
SystemCallFilter=~@resources
SystemCallErrorNumber=EPERM

[Install]
WantedBy=multi-user.target
`

// launchdPlist keeps machines running while the daemon restarts (AbandonProcessGroup).
const launchdPlist = `<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
<!-- osx-builder -print-unit launchd > ~/Library/LaunchAgents/osx-builder.plist
     launchctl bootstrap gui/$(id -u) ~/Library/LaunchAgents/osx-builder.plist -->
<plist version="1.0">
<dict>
	<key>Label</key>
	<string>osx-builder</string>
	<key>ProgramArguments</key>
	<array>
		<string>PROGRAM</string>
		<string>-log-file</string>
		<string>~/Library/Logs/osx-builder.log</string>
	</array>
	<key>EnvironmentVariables</key>
	<dict>
		<key>PATH</key>
		<string>/opt/homebrew/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin</string>
	</dict>
	<key>RunAtLoad</key>
	<true/>
	<key>KeepAlive</key>
	<dict>
		<key>SuccessfulExit</key>
		<false/>
	</dict>
	<key>AbandonProcessGroup</key>
	<true/>
	<key>ExitTimeOut</key>
	<integer>15</integer>
	<key>Umask</key>
	<integer>63</integer>
</dict>
</plist>
`

// windowsService runs the daemon as SYSTEM, which has no desktop: launch_gui shows nothing then. The data and the log
// are below ProgramData, because SYSTEM's own home folder is below that of Windows.
const windowsService = `@echo off
rem osx-builder -print-unit windows > install-service.cmd
rem Run the file as administrator, once. Settings follow the program as flags, or
rem are in the file that -config names; osx-builder -help lists them all.
rem
rem sc.exe stop osx-builder                  stops it; machines keep running
rem sc.exe control osx-builder paramchange   reads files of secrets and certificates again
rem sc.exe delete osx-builder                removes it; machines and images are kept

if not exist "%ProgramData%\osx-builder" mkdir "%ProgramData%\osx-builder"
sc.exe create osx-builder start= auto displayname= "OSX Builder" binpath= "\"PROGRAM\" -data \"%ProgramData%\osx-builder\data\" -log-file \"%ProgramData%\osx-builder\osx-builder.log\"" || exit /b 1
sc.exe description osx-builder "Virtual machines from image URLs"
sc.exe failure osx-builder reset= 86400 actions= restart/2000/restart/10000/restart/60000
sc.exe failureflag osx-builder 1
sc.exe start osx-builder
`
