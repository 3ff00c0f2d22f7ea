#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# godwit-vm with real QEMUs (TCG): a guest's life, the stop ladder, the console, bad definitions, and no leftovers.

bats_require_minimum_version 1.5.0

setup_file() {
	cd "$BATS_TEST_DIRNAME/../.."
	export VM=$PWD/build/dev/godwit-vm
	make -s build/dev/godwit-vm
	export XDG_RUNTIME_DIR=
}

setup() {
	T=$(mktemp -d /tmp/godwit-vm-test.XXXXXX)
	chmod 755 "$T"
	R=$T/run
	define plain
	boot_sector
}

# Whatever a test did, its guests end with it; a guest that outlives `kill` fails the test.
teardown() {
	local pids name
	pids=$("$VM" list --run-dir "$R" --json 2>/dev/null | jq_pids)
	for name in "$R"/*/; do
		[ -d "$name" ] && "$VM" kill "$(basename "$name")" --run-dir "$R" >/dev/null 2>&1
	done
	rm -rf "$T"
	for pid in $pids; do
		qemu_dead "$pid"
	done
}

jq_pids() {
	/usr/bin/python3 -c 'import json,sys; print(*[g["pid"] for g in json.load(sys.stdin)])'
}

# field FILE-OF-JSON-ON-STDIN: one member of it
field() {
	/usr/bin/python3 -c 'import json,sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"
}

# A process that is there and no zombie (nobody may be reaping orphans in a container).
qemu_alive() {
	[ -e "/proc/$1/stat" ] && ! grep -q ') Z ' "/proc/$1/stat"
}

# Its own function: "! command" never fails a test.
qemu_dead() {
	if qemu_alive "$1"; then
		echo "QEMU $1 is still there" >&2
		return 1
	fi
}

# define NAME [MORE]: a definition $T/NAME.json
define() {
	printf '{"name": "%s", "vcpus": 1, "memory": "64M"%s}\n' "$1" "${2:-}" > "$T/$1.json"
}

# A guest in 512 bytes: says G on its serial console, echoes what is typed there, and powers itself off when its power
# button is pressed (PM1 registers of q35 as SeaBIOS places them: enable 0x602, status 0x600, control 0x604).
boot_sector() {
	{
		printf '\xfa\xb0\x47\xba\xf8\x03\xee'             # cli; out 0x3f8, 'G'
		printf '\xba\x02\x06\xb8\x00\x01\xef'             # out 0x602, PWRBTN_EN
		printf '\xba\xfd\x03\xec\xa8\x01\x74\x05'         # L: a character waiting?
		printf '\xba\xf8\x03\xec\xee'                     # echo it
		printf '\xba\x00\x06\xed\xf6\xc4\x01\x74\xea'     # power button? no: L
		printf '\xba\x04\x06\xb8\x00\x20\xef\xeb\xfe'     # out 0x604, SLP_EN; for ever
		head -c $((510 - 45)) /dev/zero
		printf '\x55\xaa'
		head -c $((1024 * 1024 - 512)) /dev/zero
	} > "$T/boot.raw"
	define button ", \"disks\": [{\"file\": \"boot.raw\", \"format\": \"raw\"}]"
}

start() {
	timeout 60 "$VM" start "$T/$1.json" --accel tcg --run-dir "$R" "${@:2}" 2>/dev/null
}

vm() {
	timeout 60 "$VM" "$1" --run-dir "$R" "${@:2}" 2>/dev/null
}

status_of() {
	vm show "$1" --json | field status
}

wait_for() {
	for _ in $(seq 200); do
		if "$@"; then return 0; fi
		sleep 0.1
	done
	return 1
}

# wait_status NAME STATUS
wait_status() {
	for _ in $(seq 100); do
		[ "$(status_of "$1")" != "$2" ] || return 0
		sleep 0.1
	done
	return 1
}

@test "a started guest runs, is listed and shown, and a second start is refused" {
	start plain
	[ "$(status_of plain)" = running ]
	vm list | grep -q '^plain  *running '
	vm show plain | grep -q '^machine  *pc-q35-'
	run --separate-stderr "$VM" start "$T/plain.json" --accel tcg --run-dir "$R"
	[ "$status" -eq 5 ]
	[[ "$stderr" == *"guest plain is there already"* ]]
	[ "$(status_of plain)" = running ]
}

@test "an incoming guest waits, stopped" {
	start plain --incoming
	[ "$(status_of plain)" = incoming ]
}

@test "a destination started from show --definition is the same machine" {
	start plain
	vm show plain --definition > "$T/copy.json"
	timeout 60 "$VM" start "$T/copy.json" --accel tcg --run-dir "$T/run2" --incoming 2>/dev/null
	vm show plain --definition > "$T/a"
	timeout 9 "$VM" show plain --run-dir "$T/run2" --definition > "$T/b"
	timeout 9 "$VM" kill plain --run-dir "$T/run2" 2>/dev/null
	cmp "$T/a" "$T/b"
	grep -q '"machine": "pc-q35-' "$T/b"
}

@test "stop, first step: the guest hears the power button" {
	start button
	wait_for grep -q G "$R/button/console.log"
	run --separate-stderr "$VM" stop button --run-dir "$R" --timeout 20 --json
	[ "$status" -eq 0 ]
	[ "$(field step <<< "$output")" = acpi ]
	[ ! -e "$R/button" ]
}

@test "a guest that powered itself off is seen as such, and stop tidies up" {
	start button
	wait_for grep -q G "$R/button/console.log"
	/usr/bin/python3 - "$R/button/qmp.sock" <<-'END'
		import socket, sys
		s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); s.settimeout(10)
		s.sendall(b'{"execute":"qmp_capabilities"}{"execute":"system_powerdown"}')
		seen = b''
		while b'SHUTDOWN' not in seen:
		    seen += s.recv(4096)
	END
	wait_status button shutdown
	vm stop button --json | grep -q '"step":"acpi"'
}

@test "stop, second step: a guest that does not listen; stop, third step: a QEMU that does not" {
	start plain
	vm stop plain --timeout 1 --json | grep -q '"step":"quit"'
	start plain
	pid=$(vm show plain --json | field pid)
	kill -STOP "$pid"
	[ "$(status_of plain)" = silent ]
	vm stop plain --timeout 0 --json | grep -q '"step":"kill"'
	qemu_dead "$pid"
}

@test "kill ends QEMU at once and leaves no file" {
	start plain
	pid=$(vm show plain --json | field pid)
	vm kill plain
	qemu_dead "$pid"
	[ -z "$(ls "$R")" ]
}

@test "resume lets a paused guest run, a running one be, and an incoming one wait" {
	start plain
	/usr/bin/python3 - "$R/plain/qmp.sock" <<-'END'
		import socket, sys
		s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); s.settimeout(10)
		s.sendall(b'{"execute":"qmp_capabilities"}{"execute":"stop"}')
		seen = b''
		while b'"STOP"' not in seen:
		    seen += s.recv(4096)
	END
	wait_status plain paused
	vm resume plain --json | grep -q '"result":"running"'
	[ "$(status_of plain)" = running ]
	vm resume plain
	vm stop plain --timeout 0
	start plain --incoming
	run --separate-stderr "$VM" resume plain --run-dir "$R"
	[ "$status" -eq 1 ]
	[[ "$stderr" == *"its status is incoming; only a paused guest can be resumed"* ]]
	[ "$(status_of plain)" = incoming ]
}

@test "a crash of QEMU is seen, and the name can be used again" {
	start plain
	kill -ABRT "$(vm show plain --json | field pid)"
	wait_status plain gone
	vm list | grep -q '^plain  *gone '
	echo stale > "$R/plain/uefi-vars.fd"
	start plain
	[ ! -e "$R/plain/uefi-vars.fd" ]
	[ "$(status_of plain)" = running ]
}

@test "a starter that is killed loses no guest: either nothing runs or it is listed" {
	"$VM" start "$T/plain.json" --accel tcg --run-dir "$R" 2>/dev/null &
	local starter=$!
	wait_for test -s "$R/plain/state.json"
	kill -KILL "$starter" 2>/dev/null || true
	wait "$starter" 2>/dev/null || true
	pid=$(vm show plain --json | field pid)
	if wait_status plain running; then
		qemu_alive "$pid"
	else
		[ "$(status_of plain)" = gone ]
		qemu_dead "$pid"
	fi
}

@test "the console carries both directions and Ctrl-] leaves" {
	start button
	wait_for grep -q G "$R/button/console.log"
	(printf 'hello'; sleep 1; printf '\035'; sleep 20) | timeout 15 "$VM" console button --run-dir "$R" > "$T/out"
	grep -q hello "$T/out"
	grep -q hello "$R/button/console.log"
}

@test "the console gives the terminal back as it was, after Ctrl-] and after a signal" {
	start button
	wait_for grep -q G "$R/button/console.log"
	timeout 60 /usr/bin/python3 - "$VM" "$R" <<-'END'
		import os, pty, signal, subprocess, sys, termios, time
		vm, run_dir = sys.argv[1:]
		for way in ("escape", signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
		    ours, theirs = pty.openpty()
		    before = termios.tcgetattr(theirs)
		    p = subprocess.Popen([vm, "console", "button", "--run-dir", run_dir], stdin=theirs, stdout=theirs,
		                         stderr=subprocess.DEVNULL)
		    end = time.time() + 10
		    while termios.tcgetattr(theirs)[3] & termios.ICANON and time.time() < end:
		        time.sleep(0.02)
		    assert not termios.tcgetattr(theirs)[3] & termios.ICANON, "terminal was never raw"
		    os.write(ours, b"\x1d") if way == "escape" else p.send_signal(way)
		    assert p.wait(10) == 0
		    assert termios.tcgetattr(theirs) == before, f"terminal not restored after {way}"
		    os.close(ours), os.close(theirs)
	END
}

@test "as root, QEMU is another user, sandboxed, in its own cgroup, and holds nothing of ours" {
	[ "$(id -u)" -eq 0 ] || skip "needs root"
	start plain
	pid=$(vm show plain --json | field pid)
	[ "$(awk '/^Uid:/ {print $2, $3, $4}' "/proc/$pid/status")" != "0 0 0" ]
	grep -q '^NoNewPrivs:	1' "/proc/$pid/status"
	grep -q '^Seccomp:	2' "/proc/$pid/status"
	grep -q '^CapEff:	0000000000000000' "/proc/$pid/status"
	if grep -q cgroup2 /proc/self/mounts; then
		grep -q '^0::.*/vm-plain-' "/proc/$pid/cgroup"
	fi
	run ls -l "/proc/$pid/fd"
	[[ "$output" == *memfd:godwit-ram-plain* ]]
	[[ "$output" != *"$VM"* && "$output" != *state.json* && "$output" != *lock* ]]
}

@test "the user QEMU runs as can open the guest's RAM through /proc" {
	[ "$(id -u)" -eq 0 ] || skip "needs root to become that user"
	start plain --user nobody
	pid=$(vm show plain --json | field pid)
	fd=$(tr '\0' '\n' < "/proc/$pid/cmdline" | sed -n 's|.*mem-path=/proc/self/fd/\([0-9]*\).*|\1|p')
	setpriv --reuid nobody --regid nogroup --clear-groups /usr/bin/python3 -c \
		'import os,sys; assert 64 << 20 <= os.fstat(os.open(sys.argv[1], os.O_RDWR)).st_size < 65 << 20' "/proc/$pid/fd/$fd"
}

@test "a user without rights runs guests in a run directory of its own" {
	[ "$(id -u)" -eq 0 ] || skip "needs root to become somebody else"
	mkdir "$T/nobody"
	cp "$VM" "$T/godwit-vm"
	chown nobody "$T/nobody"
	as_nobody() {
		timeout 60 setpriv --reuid nobody --regid nogroup --clear-groups "$T/godwit-vm" "$@" \
			--run-dir "$T/nobody/run" 2>&1
	}
	as_nobody start "$T/plain.json" --accel tcg
	as_nobody list | grep -q '^plain  *running '
	as_nobody kill plain
	mkdir -p "$R"
	chmod 755 "$R"
	run setpriv --reuid nobody --regid nogroup --clear-groups "$T/godwit-vm" list --run-dir "$R"
	[ "$status" -eq 1 ]
	[[ "$output" == *"belongs to user 0, not to you"* ]]
	define tapped ', "nics": [{"type": "tap", "bridge": "br0"}]'
	run as_nobody start "$T/tapped.json" --accel tcg
	[ "$status" -eq 1 ]
	[[ "$output" == *"nics[0]: a tap on bridge br0 needs root or CAP_NET_ADMIN; a NIC of type user needs neither"* ]]
}

@test "a tap joins its bridge and goes away with the guest" {
	[ "$(id -u)" -eq 0 ] || skip "needs root"
	unshare -n true 2>/dev/null || skip "needs network namespaces"
	[ -c /dev/net/tun ] || skip "needs /dev/net/tun"
	define tapped ', "nics": [{"type": "tap", "bridge": "br7"}]'
	timeout 60 unshare -n bash -e -c '
		ip link add br7 type bridge
		"$0" start "$1/tapped.json" --accel tcg --run-dir "$2" 2>/dev/null
		tap=$(ip -o link show master br7 | sed "s/^[0-9]*: \(gw[0-9]*\).*/\1/")
		[ -n "$tap" ]
		ip link show "$tap" | grep -q UP
		"$0" kill tapped --run-dir "$2" 2>/dev/null
		if ip link show "$tap" 2>/dev/null; then exit 1; fi' "$VM" "$T" "$R"
}

@test "UEFI, disks of both formats that only root may read, a seed and a user network" {
	[ -e /usr/share/OVMF/OVMF_VARS_4M.fd ] || skip "needs the package ovmf"
	truncate -s 16M "$T/a.raw"
	qemu-img create -q -f qcow2 "$T/b.qcow2" 16M
	chmod 600 "$T"/a.raw "$T"/b.qcow2
	define full ', "firmware": "uefi", "uefi-vars": "vars.fd", "disks": [{"file": "a.raw", "format": "raw"},
		{"file": "b.qcow2", "format": "qcow2", "readonly": true}], "nics": [{"type": "user", "restrict": true}],
		"seed": {"hostname": "h1"}'
	sed -i 's/64M/256M/' "$T/full.json"
	start full
	wait_for grep -q -a UEFI "$R/full/console.log"
	[ "$(stat -c %s "$T/vars.fd")" -gt 100000 ]
	vm kill full
	[ -e "$T/vars.fd" ]
}

@test "a stock kernel boots with its own command line" {
	local kernel
	kernel=$(ls .cache/kernel/boot/vmlinuz-* build/guest/vmlinuz 2>/dev/null | head -1)
	[ -n "$kernel" ] || skip "no kernel was fetched yet (make guest)"
	cp "$kernel" "$T/vmlinuz"
	define linux ', "kernel": "vmlinuz", "cmdline": "console=ttyS0 panic=-1 godwit_was_here"'
	sed -i 's/64M/256M/' "$T/linux.json"
	start linux
	wait_for grep -q -a 'Command line: .*godwit_was_here' "$R/linux/console.log"
}

@test "a definition with a wrong field is refused with file, field and reason" {
	local more sentence
	while IFS='|' read -r more sentence; do
		define bad "$more"
		run --separate-stderr "$VM" check "$T/bad.json"
		[ "$status" -eq 3 ]
		[ "$stderr" = "godwit-vm: bad.json: $sentence" ]
		run --separate-stderr "$VM" start "$T/bad.json" --run-dir "$R"
		[ "$status" -eq 3 ]
		[ ! -e "$R" ]
	done <<-'END'
		, "disk": []|disk: no such field; did you mean "disks"?
		, "disks": [{"file": "x", "format": "qcow3"}]|disks[0].format: "qcow3" is not one of raw, qcow2
		, "nics": [{"type": "tap"}]|nics[0].bridge: is missing; a NIC of type tap needs the bridge it joins
		, "uuid": 5|uuid: must be a string, not a whole number
		, "firmware": "efi"|firmware: "efi" is not one of bios, uefi
		, "initrd": "i"|initrd: needs a kernel
		, "seed": {"hostname": "a b"}|seed.hostname: "a b" holds the character ' '; letters, digits and .- are possible
	END
}

@test "a start that QEMU refuses ends with QEMU's own last line and leaves nothing" {
	define bad ', "cpu": "nosuch"'
	run --separate-stderr "$VM" start "$T/bad.json" --accel tcg --run-dir "$R"
	[ "$status" -eq 1 ]
	[[ "$stderr" == *"guest bad: QEMU exited with status 1: qemu-system-x86_64: unable to find CPU model 'nosuch'" ]]
	[ -z "$(ls "$R")" ]
}

@test "a wrong command line is exit 2, an unknown guest exit 4" {
	local words
	while read -r words; do
		# shellcheck disable=SC2086
		run "$VM" $words
		[ "$status" -eq 2 ]
	done <<-'END'

		dance
		start
		stop a b
		list a
		stop a --incoming
		stop a --timeout -1
		start a.json --accel xen
		list --run-dir relative
		--nosuch
	END
	mkdir "$R"
	run "$VM" show nobody --run-dir "$R"
	[ "$status" -eq 4 ]
	[ "$output" = "godwit-vm: there is no guest nobody in $R" ]
	run "$VM" stop ../plain --run-dir "$R"
	[ "$status" -eq 4 ]
	run --separate-stderr "$VM" show nobody --run-dir "$R" --json
	[ "$(field exit <<< "$output")" = 4 ]
}
