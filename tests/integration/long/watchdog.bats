#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# godwit-watchdog with a real driver (softdog) in an emulated host with a real kernel: what resets the host, and what does not.
# check: alone
# check: timeout=900

bats_require_minimum_version 1.5.0

RUN=/run/godwit
MARK=godwit:lab:

setup_file() {
	cd "$BATS_TEST_DIRNAME/../../.."
	export GODWIT_LAB=watchdog-$$
	export PATH=$PWD/tests/integration/lab:$PATH
	tests/guest/build
	make -s build/dev/godwit-watchdog build/dev/godwit-vm build/dev/tools/keeper-ask
	lab up 1 --memory 1024
}

teardown_file() {
	lab down
}

setup() {
	BUILT=$PWD/build/dev
	# Whatever the last test did to the host.
	lab reset n1
	lab run n1 modprobe softdog soft_margin=60
	lab run n1 -- sh -c "$BUILT/godwit-watchdog --run-dir $RUN >/tmp/dog.log 2>&1 & echo \$! >/tmp/dog.pid"
	lab run n1 touch /tmp/same-boot
	guest
}

# A guest in 64 MiB that does nothing: what it runs does not matter here.
guest() {
	lab run n1 -- sh -c "echo '{\"name\": \"g\", \"vcpus\": 1, \"memory\": \"64M\"}' >/tmp/g.json
		$BUILT/godwit-vm start /tmp/g.json --run-dir $RUN --mark ${MARK}1 --accel tcg"
}

ask() {
	lab run -t 60 n1 "$BUILT/tools/keeper-ask" $RUN configure $MARK 4000 1000 3 "$@"
}

same_boot() {
	lab run -t 20 n1 test -e /tmp/same-boot
}

# The host's own kernel starts again within so many seconds.
boots_within() {
	local end=$((SECONDS + $1))
	while [ $SECONDS -lt $end ]; do
		# A host that is starting does not answer; one that has says whether it is another life.
		if lab run -t 5 n1 true 2>/dev/null && ! lab run -t 5 n1 test -e /tmp/same-boot 2>/dev/null; then
			return 0
		fi
		sleep 1
	done
	return 1
}

guest_lives() {
	lab run n1 -- sh -c "$BUILT/godwit-vm list --run-dir $RUN" | grep -q '^g .*running'
}

@test "while the lease is renewed the guest runs, and the host lives longer than the watchdog's time" {
	ask renew 2000 8 release
	sleep 6
	same_boot
	guest_lives
}

@test "at the end of the lease the guest ends, and the host lives on" {
	run ask until 1500 state stopped
	[ "$status" -eq 0 ]
	[[ "$output" == *"device armed 3 s Software Watchdog"* ]]
	[[ "$output" == *"1 guests stopped"* ]]
	sleep 6
	same_boot
	run ! guest_lives
}

@test "a godwit-watchdog that is stopped has the host reset" {
	ask until 4000
	lab run n1 -- sh -c 'kill -STOP $(cat /tmp/dog.pid)'
	boots_within 60
}

@test "a guest that does not end has the host reset, although godwit-watchdog lives" {
	# A process that cannot be killed, under a record as godwit-vm writes it: the first of a process namespace, whose child is
	# held by a tracer outside.
	lab put n1 tests/integration/long/unkillable /tmp/unkillable
	lab run -t 60 n1 -- sh -c "setsid /tmp/unkillable $RUN/stuck ${MARK}1 >/tmp/unkillable.log 2>&1 &
		until [ -s $RUN/stuck/state.json ]; do sleep 0.2; done"
	ask until 1500
	boots_within 60
}

@test "a killed godwit-watchdog that is not started again has the host reset" {
	ask until 4000
	lab run n1 -- sh -c 'kill -KILL $(cat /tmp/dog.pid)'
	boots_within 60
}

@test "an upgrade under the real driver keeps the device armed" {
	# In one go: on a busy machine a command in the host takes seconds.
	lab run -t 60 n1 -- sh -c "$BUILT/tools/keeper-ask $RUN configure $MARK 60000 1000 3 until 60000
		kill -HUP \$(cat /tmp/dog.pid)"
	ask renew 2000 6 release
	lab run n1 grep -q 'event=resumed state=armed.*device=inherited' /tmp/dog.log
	same_boot
	guest_lives
}

@test "a device that is held is told with the holder's name, and guests end all the same" {
	lab run n1 -- sh -c 'kill -TERM $(cat /tmp/dog.pid); sleep 1; exec 3>/dev/watchdog; (while :; do echo >&3; sleep 1; done) & echo $! >/tmp/holder'
	lab run n1 -- sh -c "$BUILT/godwit-watchdog --run-dir $RUN >/tmp/dog.log 2>&1 & sleep 1"
	run ask until 1500 state stopped
	[[ "$output" == *"device failed"*"/dev/watchdog is held by "*"(process "* ]]
	[[ "$output" == *"1 guests stopped"* ]]
}
