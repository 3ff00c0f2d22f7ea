# SPDX-License-Identifier: Apache-2.0
"""A cluster with guests on the hosts of hosts.py, the devices that can fence them, and the judgement at the end of each scenario."""

from __future__ import annotations

import os
import re
import shutil
import socket
import tempfile
import time
from pathlib import Path
from typing import Any, Optional

from ha_guests import Qemu, Watch, console_path, definition, qemus, read_disk, where
from hosts import Host, Hosts, wait_for
from power import PowerSwitch, switch_of
from watchdog_double import arm, resets_of

BOOT_SECONDS = 90
WATCH_GAP_SECONDS = 1.0  # a double that is shorter than the time between two looks could be missed: how long that may be
SYNC_SECONDS = 15
FAKETIME = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1"
LEASE_SECONDS = 4.0
STOP_SECONDS = 1.0
EXPIRY_SECONDS = 7.5  # from the view without a host to the proof by its watchdog (docs/timing.md)


class Wrong(Exception):
    """Not as it must be."""


def check(right: bool, text: str) -> None:
    if not right:
        raise Wrong(text)


class Stage:
    """power: every host hangs on a switch that the cluster knows. watchdog: every host has a watchdog, which resets it.

    links: cables of each host. clock: the wall clocks of all daemons can be put forward (libfaketime); nothing else of time changes.
    """

    def __init__(self, count: int = 3, power: bool = True, watchdog: bool = False, links: int = 1, clock: bool = False) -> None:
        self.parts = Path(tempfile.mkdtemp(prefix="godwit-ha-"))
        self.parts.chmod(0o755)
        self.power = power
        self.watchdog = watchdog
        self.acknowledged: dict[str, list[tuple[int, int]]] = {}
        self.armed: set[int] = set()  # first processes of hosts whose watchdog runs
        self.hosts = Hosts(count, {"/usr/sbin": PowerSwitch.install(self.parts / "agents")}, links)
        self.wrapper: list[str] = []
        if clock:
            self.put_forward(0)
            self.wrapper = ["env", f"LD_PRELOAD={FAKETIME}", f"FAKETIME_TIMESTAMP_FILE={self.parts / 'clock'}", "FAKETIME_CACHE_DURATION=1",
                            "FAKETIME_DONT_FAKE_MONOTONIC=1"]
        self.switch = switch_of(self.hosts)
        self.resets = resets_of(self.hosts)
        self.watch = Watch(self.hosts)

    def __enter__(self) -> "Stage":
        try:
            self.switch.__enter__()
            self.resets.__enter__()
            self.watch.__enter__()
            self.form()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self.watch.is_alive():
            self.watch.__exit__()
        self.switch.close()
        self.resets.close()
        self.hosts.close()
        shutil.rmtree(self.parts, ignore_errors=True)

    # ---- hosts ----

    def start(self, host: Host) -> None:
        """Start godwitd in it, with the watchdog that it has."""
        with self.switch.lock:  # whoever has it switched off may have it switched on again, too
            if not host.init:
                host.power_on()
        if self.watchdog and host.inner not in self.armed:
            self.armed.add(host.inner)
            arm(host, self.resets)
        host.start(*self.wrapper)

    def put_forward(self, seconds: int) -> None:
        """The clocks of all daemons are that much ahead from now on."""
        (self.parts / "clock").write_text(f"+{seconds}\n", encoding="ascii")

    def form(self) -> None:
        """All hosts in one cluster, and the switch known to it."""
        for host in self.hosts.hosts:
            self.start(host)
        first = self.hosts[1]
        first.ask("POST", "/v1/cluster/init", {"name": "test", "node": first.name, "addresses": first.addresses})
        wait_for(lambda: first.state() == "synced", 30, "the founder is synced")
        for host in self.hosts.hosts[1:]:
            self.hosts.join(host, first)
        self.set("ha.wish", 0)  # the tests of admission are elsewhere; here hosts are short of room on purpose
        if self.power:
            names = {h.name: h.name for h in self.hosts.hosts}
            first.ask("POST", "/v1/fence-devices", {"name": "pdu", "agent": "fence_lab", "options": {"folder": str(self.switch.folder), "power_timeout": "3"}, "nodes": names})
            for name in names:
                first.ask("PUT", f"/v1/fence-levels/{name}/1", {"devices": ["pdu"]})

    def alive(self, *but: Host) -> Host:
        """A host that answers and is synced, none of these. While the ring forms anew there is none for a moment."""
        deadline = time.monotonic() + SYNC_SECONDS
        while time.monotonic() < deadline:
            for host in self.hosts.hosts:
                if host not in but and host.init and host.state() == "synced":
                    return host
            time.sleep(0.1)
        raise Wrong(f"no host was synced for {SYNC_SECONDS:g} s")

    def set(self, key: str, value: Any) -> None:
        self.alive().ask("PUT", f"/v1/settings/{key}", {"value": value})

    def fencing(self, host: Host) -> Optional[dict[str, Any]]:
        """The newest loss of a host, by the state; None: it was never lost."""
        found = [f for f in self.alive(host).ask("GET", "/v1/fencings") if f["node"] == host.name]
        return max(found, key=lambda f: f["number"]) if found else None

    def proof(self, host: Host) -> Optional[str]:
        """What proved that it was dead; None: nothing so far."""
        last = self.fencing(host)
        return last["proof"] if last else None

    def wait_proof(self, host: Host, proof: str, seconds: float) -> None:
        """It must be this one, and no other."""
        wait_for(lambda: self.proof(host), seconds, f"{host.name} is proven to be dead; its loss: {self.fencing(host)}")
        check(self.proof(host) == proof, f"the proof is {self.proof(host)}, not {proof}: {self.fencing(host)}")

    def bring_back(self, host: Host) -> None:
        """Power, cable and daemon; it must come back with nothing that it ran before, unless it is given it anew."""
        host.heal()
        if not host.daemon:
            self.start(host)
        wait_for(lambda: host.state() == "synced", 60, f"{host.name} is synced")
        wait_for(lambda: (self.fencing(host) or {"alive": 1})["alive"] is not None, 30, f"{host.name} counts again")

    # ---- guests ----

    def guest(self, name: str, host: Host, priority: int = 100, vcpus: int = 1) -> None:
        """Create one there, and wait until it has written."""
        asked = self.alive()
        task = asked.task("POST", "/v1/vms", {"definition": definition(self.hosts, name, vcpus=vcpus), "placement": {"node": host.name}, "start": True})
        check(task["state"] == "done", f"guest {name}: {task}")
        if priority != 100:
            asked.ask("PUT", f"/v1/vms/{name}/ha", {"priority": priority})
        self.acknowledged[name] = []
        self.wait_written(name, host)

    def qemu(self, name: str) -> Qemu:
        """The one that it must have."""
        found = [q for q in qemus(self.hosts) if q.guest == name]
        check(len(found) == 1, f"guest {name} has {len(found)} QEMUs: {found}")
        return found[0]

    def host_of(self, name: str) -> Host:
        """The host with its QEMU."""
        return next(h for h in self.hosts.hosts if h.name == self.qemu(name).host)

    def note(self, name: str, host: Host) -> tuple[int, int]:
        """Ask the guest which of its records are on the disk; from here on they must stay there. (run, records)."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as s:
            s.settimeout(5)
            s.connect(str(console_path(host, name).with_name("console.sock")))
            s.sendall(b"disk\n")
            got = b""
            while not (found := re.search(rb"disk run=(\d+) boot=\w+ records=(\d+) position=\d+ foreign=\d+\r?\n", got)):
                data = s.recv(4096)
                check(data != b"", f"guest {name}: its console is closed")
                got += data
        run, records = int(found[1]), int(found[2])
        if records:
            self.acknowledged[name].append((run, records - 1))
        return run, records

    def wait_written(self, name: str, host: Host, run: int = 1, at_most: bool = False) -> None:
        """Until it has written ten records in this run of its disk, or in one after the first up to this."""

        def written() -> bool:
            try:
                now = self.note(name, host)
            except (OSError, Wrong):
                return False  # it boots
            check(now[0] <= run, f"guest {name} is in run {now[0]} of its disk, not {run}")
            return now[1] >= 10 and (now[0] == run or (at_most and now[0] > 1))

        wait_for(written, BOOT_SECONDS, f"guest {name} writes on {host.name} in run {run}")

    def wait_restarted(self, name: str, *, not_on: Optional[Host] = None, on: Optional[Host] = None, seconds: float = 40, run: int = 2) -> Host:
        """It runs again, there, and goes on behind what it had written; the host."""

        def again() -> bool:
            found = where(self.hosts, name)
            return len(found) == 1 and (not not_on or found[0] != not_on.name) and (not on or found[0] == on.name)

        wait_for(again, seconds, f"guest {name} runs again")
        host = self.host_of(name)
        self.wait_written(name, host, run)
        other = self.alive()
        wait_for(lambda: other.ask("GET", f"/v1/vms/{name}")["owner"] == host.name and other.ask("GET", f"/v1/vms/{name}")["status"] == "running",
                 20, f"the state knows that {name} runs on {host.name}")
        return host

    def stays_down(self, name: str, seconds: float, why: str) -> None:
        """No QEMU of it begins within this time."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            check(not where(self.hosts, name), f"guest {name} runs on {where(self.hosts, name)} although {why}")
            time.sleep(0.1)

    def wait_down(self, name: str, seconds: float, why: str) -> float:
        """Its QEMU ends; how many seconds that took."""
        began = time.monotonic()
        wait_for(lambda: not where(self.hosts, name), seconds, f"guest {name} is ended: {why}")
        return time.monotonic() - began

    # ---- processes ----

    def corosync(self, host: Host) -> int:
        """Its pid, as this machine numbers it."""
        for path in Path("/proc").glob("[0-9]*"):
            try:
                if os.readlink(path / "ns/pid") == os.readlink(f"/proc/{host.inner}/ns/pid") and (path / "comm").read_text(encoding="ascii") == "corosync\n":
                    return int(path.name)
            except OSError:
                continue
        raise Wrong(f"{host.name} has no corosync")

    def asked_off(self, host: Host) -> list[float]:
        """When the switch switched it off."""
        return [d.at for d in self.switch.done if d.plug == host.name and d.action in ("off", "reboot") and d.status == 0]

    # ---- the end ----

    def judge(self) -> None:
        """At no moment a guest ran twice (S1), no disk was written by two (S2), and nothing that a guest had on its disk is lost."""
        for name in self.acknowledged:
            if where(self.hosts, name):
                self.note(name, self.host_of(name))
        self.watch.__exit__()
        check(not self.watch.doubles, f"a guest ran twice: {self.watch.doubles[:3]}")
        check(self.watch.longest < WATCH_GAP_SECONDS, f"nobody looked for {self.watch.longest:.1f} s: this run proves nothing, the machine is too busy")
        check(not self.switch.errors and not self.resets.errors, f"the switch: {self.switch.errors + self.resets.errors}")
        for name, holds in self.acknowledged.items():
            said = read_disk(self.hosts, name, holds)
            check(said.right, f"the disk of {name}: {said.text}")

