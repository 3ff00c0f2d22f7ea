#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# The systemd files say what systemd understands, and keep the promises that guests live by.

setup() {
	cd "$BATS_TEST_DIRNAME/../.."
	P=packaging/systemd
	T=$(mktemp -d /tmp/godwit-packaging.XXXXXX)
	command -v systemd-analyze >/dev/null || skip "systemd is not installed"
}

teardown() {
	rm -rf "$T"
}

@test "systemd-analyze finds nothing wrong with godwitd.service" {
	# The program it starts need not be installed here.
	sed 's|^ExecStart=godwitd$|ExecStart=/bin/true|' $P/godwitd.service >"$T/godwitd.service"
	grep -qx 'ExecStart=/bin/true' "$T/godwitd.service"
	run systemd-analyze verify --man=no "$T/godwitd.service"
	[ "$status" -eq 0 ]
	[ "$output" = "" ]
}

@test "systemd-analyze finds nothing wrong with godwit-watchdog.service" {
	sed 's|^ExecStart=godwit-watchdog$|ExecStart=/bin/true|' $P/godwit-watchdog.service >"$T/godwit-watchdog.service"
	grep -qx 'ExecStart=/bin/true' "$T/godwit-watchdog.service"
	run systemd-analyze verify --man=no "$T/godwit-watchdog.service"
	[ "$status" -eq 0 ]
	[ "$output" = "" ]
}

@test "systemd neither stops the watchdog under guests nor kills it, and starts it before godwitd" {
	grep -qx 'RefuseManualStop=yes' $P/godwit-watchdog.service
	grep -qx 'SendSIGKILL=no' $P/godwit-watchdog.service
	grep -qx 'Before=godwitd.service' $P/godwit-watchdog.service
	grep -qx 'ExecReload=kill -HUP $MAINPID' $P/godwit-watchdog.service
}

@test "godwitd starts when what guests need is there, and stops while it still is" {
	after=" $(sed -n 's/^After=//p' $P/godwitd.service) "
	for unit in godwit-watchdog.service corosync.service network-online.target remote-fs.target; do
		[[ $after == *" $unit "* ]]
	done
	# Without godwit-watchdog it runs all the same: not Requires= or BindsTo=, which would stop it with the other.
	grep -q '^Wants=.*godwit-watchdog.service' $P/godwitd.service
	run grep -E '^(Requires|BindsTo|PartOf|Requisite)=' $P/godwitd.service $P/godwit-watchdog.service
	[ "$status" -eq 1 ]
}

@test "the check sees a misspelt option" {
	sed 's|^ExecStart=godwitd$|ExecStart=/bin/true|; s|^KillMode=|KilMode=|' $P/godwitd.service >"$T/godwitd.service"
	run systemd-analyze verify --man=no "$T/godwitd.service"
	[[ $output == *"Unknown key 'KilMode'"* ]]
}

@test "stopping the daemon spares the guests: no option of the unit ends or hides them" {
	grep -qx 'KillMode=process' $P/godwitd.service
	grep -qx 'Delegate=yes' $P/godwitd.service
	grep -qx 'OOMPolicy=continue' $P/godwitd.service
	grep -qx 'Restart=always' $P/godwitd.service
	# Each of these removes /run/godwit at a stop, or gives the daemon a mount namespace that guests would stay in.
	run grep -E '^(RuntimeDirectory|Private(Tmp|Devices|Mounts|Network)|Protect(System|Home|Kernel.*|ControlGroups|Clock|Proc)|(ReadWrite|ReadOnly|Inaccessible|Bind).*)=' $P/godwitd.service
	[ "$status" -eq 1 ]
}

@test "sysusers makes the guests' user, which cannot log in" {
	mkdir -p "$T/etc" "$T/usr/lib/sysusers.d"
	cp $P/sysusers.conf "$T/usr/lib/sysusers.d/godwit.conf"
	systemd-sysusers --root="$T"
	grep -q '^godwit-qemu:.*:/nonexistent:/usr/sbin/nologin$' "$T/etc/passwd"
}

@test "tmpfiles makes /run/godwit" {
	[ "$(id -u)" -eq 0 ] || skip "making a folder of root's needs root"
	mkdir -p "$T/usr/lib/tmpfiles.d"
	cp $P/tmpfiles.conf "$T/usr/lib/tmpfiles.d/godwit.conf"
	systemd-tmpfiles --root="$T" --create
	[ "$(stat -c '%a %U' "$T/run/godwit")" = "755 root" ]
}
