#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# The lab itself: two emulated hosts, their wires and faults, KVM inside them, and nothing left behind.

bats_require_minimum_version 1.5.0

setup_file() {
	cd "$BATS_TEST_DIRNAME/../.."
	export GODWIT_LAB=bats-$$
	export PATH=$PWD/tests/integration/lab:$PATH
	tests/guest/build
	lab up 2 --memory 1024 --disk 64
}

teardown_file() {
	lab down
}

pings() {
	lab run "$1" busybox ping -q -c 1 -W "${3:-2}" "$2"
}

@test "every host runs commands under its own name, and passes on output, errors and exit status" {
	run --separate-stderr lab run n1 -- sh -c 'hostname; echo trouble >&2; exit 7'
	[ "$status" -eq 7 ]
	[ "$output" = n1 ]
	[ "$stderr" = trouble ]
	run lab run n2 hostname
	[ "$output" = n2 ]
}

@test "a command that does not exist is 127, as in a shell" {
	run -127 lab run n1 no-such-program
}

@test "commands run at the same time" {
	began=$SECONDS
	for i in 1 2 3 4 5 6; do
		lab run n1 sleep 3 &
	done
	wait
	[ $((SECONDS - began)) -lt 10 ]
}

@test "standard input and output carry any bytes" {
	head -c 1000000 /dev/urandom >"$BATS_TEST_TMPDIR/bytes"
	lab run -i n1 cat <"$BATS_TEST_TMPDIR/bytes" | cmp - "$BATS_TEST_TMPDIR/bytes"
}

@test "a command whose caller leaves is ended in the host" {
	run lab run -t 1 n1 sleep 4711
	[ "$status" -eq 124 ]
	for _ in 1 2 3 4 5 6 7 8 9 10; do
		lab run n1 busybox ps >"$BATS_TEST_TMPDIR/ps"
		grep -q 'sleep 4711' "$BATS_TEST_TMPDIR/ps" || return 0
		sleep 0.5
	done
	return 1
}

@test "put copies files and folders, with their modes" {
	mkdir "$BATS_TEST_TMPDIR/folder"
	printf '#!/bin/sh\necho from the machine\n' >"$BATS_TEST_TMPDIR/folder/program"
	chmod 755 "$BATS_TEST_TMPDIR/folder/program"
	lab put n2 "$BATS_TEST_TMPDIR/folder" /opt/new/name
	run lab run n2 /opt/new/name/program
	[ "$output" = "from the machine" ]
	lab put n2 "$BATS_TEST_TMPDIR/folder/program" /usr/bin/renamed
	run lab run n2 renamed
	[ "$output" = "from the machine" ]
}

@test "a host cannot write to the machine" {
	run lab run n1 -- sh -c 'echo x >>/etc/os-release && echo written'
	[ "$output" = written ]
	run ! grep -qx x /etc/os-release
	run ! lab run n1 touch "$PWD/written-by-a-host"
	[ ! -e written-by-a-host ]
}

@test "the wire can be cut and healed" {
	pings n1 n2
	lab cut n1 n2
	lab status --json | grep -q '"state": "cut"'
	run ! pings n1 n2 1
	run ! pings n2 n1 1
	lab heal n1 n2
	pings n1 n2
	lab cut n2 all
	run ! pings n1 n2 1
	lab heal
	pings n2 n1
}

@test "a slow wire carries what it was told" {
	lab run n2 -- sh -c 'head -c 400000 /dev/zero >/tmp/file; busybox httpd -p 10.77.0.2:8000 -h /tmp'
	lab slow n1 n2 800kbit
	run lab run n1 -- /usr/bin/python3 -c '
import time, urllib.request
began = time.monotonic()
urllib.request.urlopen("http://10.77.0.2:8000/file").read()
print(int(400000 / (time.monotonic() - began)))'
	lab heal
	echo "bytes per second: $output"
	[ "$output" -gt 50000 ]
	[ "$output" -lt 110000 ]
}

@test "a guest with Debian's kernel boots under KVM inside a host" {
	lab run n1 test -w /dev/kvm
	lab run -t 60 n1 -- sh -c "
		mkfifo /tmp/say
		qemu-system-x86_64 -accel kvm -m 320 -nodefaults -display none -serial stdio -no-reboot \
			-kernel $PWD/build/guest/vmlinuz -initrd $PWD/build/guest/initramfs.cpio.gz \
			-append 'console=ttyS0 quiet panic=1 mitigations=off nokaslr godwit.fill=16' </tmp/say | tee /tmp/said &
		exec 3>/tmp/say
		until grep -q 'guest ready' /tmp/said; do sleep 0.2; done
		echo verify >&3
		until grep -q 'verify' /tmp/said; do sleep 0.2; done
		echo poweroff >&3
		wait
		grep 'verify ok pages=4096' /tmp/said"
}

@test "a guest whose QEMU aborts at its start because of the dirty ring gets a bitmap" {
	cat >"$BATS_TEST_TMPDIR/qemu" <<-'EOF'
		#!/bin/sh
		case "$*" in *dirty-ring-size*)
			echo 'qemu-system-x86_64: kvm-all.c:750: kvm_dirty_ring_reap_one: Assertion `dirty_gfns && ring_size` failed.' >&2
			kill -ABRT $$
			;;
		esac
		exec qemu-system-x86_64 "$@"
	EOF
	chmod 755 "$BATS_TEST_TMPDIR/qemu"
	echo '{"name": "g", "vcpus": 1, "memory": "128M", "kernel": "/opt/g/vmlinuz", "initrd": "/opt/g/initramfs.cpio.gz",
		"cmdline": "console=ttyS0 quiet"}' >"$BATS_TEST_TMPDIR/g.json"
	lab put n1 "$BATS_TEST_TMPDIR/qemu" /opt/g/qemu
	lab put n1 "$BATS_TEST_TMPDIR/g.json" /opt/g/g.json
	lab run n1 -- sh -c "cp $PWD/build/guest/* /opt/g/"
	lab run n1 -- "$PWD/build/dev/godwit-vm" start /opt/g/g.json --qemu /opt/g/qemu
	lab run n1 grep -q '"dirty_ring": *0' /run/godwit/g/state.json
	lab run n1 -- "$PWD/build/dev/godwit-vm" kill g
	run ! lab run n1 -- "$PWD/build/dev/godwit-vm" start /opt/g/g.json --qemu /opt/g/qemu --dirty-ring on
	[[ $output == *kvm_dirty_ring_reap_one* ]]
	lab run n1 -- "$PWD/build/dev/godwit-vm" start /opt/g/g.json
	lab run n1 grep -q '"dirty_ring": *4096' /run/godwit/g/state.json
	lab run n1 -- "$PWD/build/dev/godwit-vm" kill g
}

@test "modules of the kernel load by name" {
	lab run n2 modprobe softdog
	lab run n2 test -c /dev/watchdog
}

@test "VLANs of named networks are made, checked and taken away by the stock kernel" {
	local program=build/${V:-dev}/unit/node/network-test
	make --no-print-directory -s "$program"
	lab run n2 modprobe 8021q
	lab put n2 "$program" /tmp/network-test
	run lab run -t 60 n2 /tmp/network-test
	echo "$output"
	[ "$status" -eq 0 ]
	[[ $output == *"8 test(s)"* ]]
	[[ $output != *[Ss]kip* ]]
	[[ $output != *SKIPPED* ]]
}

fence() {
	printf '%s\n' folder=/run/lab/power plug=n2 "action=$1" | lab run -i n1 /opt/agents/fence_lab
}

@test "a host switches another one off and on, whatever wire is cut" {
	lab run n1 mkdir /opt/agents
	lab put n1 "$PWD/tests/tools/fence_lab" /opt/agents/fence_lab
	fence status
	lab cut n1 all
	fence off
	run fence status
	[ "$status" -eq 2 ]
	lab status --json | grep -q '"name": "n2", "address": "10.77.0.2", "state": "off"'
	fence on
	fence status
	lab heal
	run lab run n2 hostname
	[ "$output" = n2 ]
	pings n1 n2
}

@test "reset forgets what was in memory; kill is a power cut, and reset switches on again" {
	lab run n2 touch /tmp/mark
	lab reset n2
	run ! lab run n2 test -e /tmp/mark
	lab kill n2
	run lab run n2 true
	[ "$status" -eq 1 ]
	[[ $output == *"n2 is off"* ]]
	run ! pings n1 n2 1
	lab reset n2
	pings n1 n2
}

@test "what a host has synced to its disk outlives a power cut; what it has not is lost" {
	lab run n1 -- sh -c 'echo kept >/disk/file && sync && echo later >/disk/unsynced'
	lab run n1 -- sh -c 'echo state >/var/lib/godwit/state.db && sync /var/lib/godwit/state.db && echo x >/etc/corosync/x && sync /etc/corosync/x'
	lab kill n1
	lab reset n1
	[ "$(lab run n1 cat /disk/file)" = kept ]
	[ "$(lab run n1 cat /var/lib/godwit/state.db)" = state ]
	[ "$(lab run n1 cat /etc/corosync/x)" = x ]
	[ -z "$(lab run n1 cat /disk/unsynced 2>/dev/null)" ]
	run ! lab run n2 test -e /disk/file
}

@test "mistakes get one sentence" {
	run lab run n9 true
	[ "$status" -eq 1 ]
	[ "$output" = "lab: this lab has no host 'n9', only n1 n2" ]
	run lab slow n1 n2 fast
	[ "$status" -eq 1 ]
	[[ $output == *"'fast' is no rate"* ]]
	run lab put n1 /no/such/file /tmp/x
	[ "$status" -eq 1 ]
	[[ $output == *"does not exist"* ]]
	run lab cut n1 n1
	[ "$status" -eq 1 ]
	run lab --lab "$GODWIT_LAB-x" up 2 --disk 1
	[ "$status" -eq 1 ]
	[ "$output" = "lab: a disk has 16 to 65536 MiB, not 1" ]
	run lab up 2
	[ "$status" -eq 1 ]
	[[ $output == *"is up already"* ]]
	run lab --lab ../x status
	[ "$status" -eq 1 ]
}

@test "down leaves no process and no file, and says so twice" {
	folder=/tmp/godwit-lab-$(id -u)-$GODWIT_LAB
	[ -d "$folder" ]
	pgrep -f "$folder" >/dev/null
	lab down
	[ ! -e "$folder" ]
	run ! pgrep -r R,S,D,T -f "$folder"
	lab down
	run lab status
	[ "$status" -eq 1 ]
}
