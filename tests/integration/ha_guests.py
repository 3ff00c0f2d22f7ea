# SPDX-License-Identifier: Apache-2.0
"""Guests whose disks tell what happened to them, on hosts in namespaces; and who watches that none of them ever runs twice."""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

from hosts import ROOT, SHARED, Host, HostError, Hosts

CHECKER = ROOT / "tests/tools/disk-check"
GUEST_MIB = 128
DISK_MIB = 16
FIRST_WORDS = b"early console in setup code"  # what the kernel says before anything else
INIT_WORDS = b"guest init uptime_ms="
KERNEL = {"kernel": str(ROOT / "build/guest/vmlinuz"), "initrd": str(ROOT / "build/guest/initramfs.cpio.gz")}
CMDLINE = "console=ttyS0 earlyprintk=ttyS0 debug panic=1 mitigations=off nokaslr"
SAMPLE_SECONDS = 0.03
EXEC_SECONDS = 5.0  # a process that has become no QEMU by then will not become one


def make_disk(cluster: Hosts, name: str) -> str:
    """A new, empty disk in the folder that all hosts see; its path there."""
    with (cluster.shared / f"{name}.raw").open("xb") as f:
        f.truncate(DISK_MIB << 20)
    return f"{SHARED}/{name}.raw"


def definition(cluster: Hosts, name: str, memory_mib: int = GUEST_MIB, vcpus: int = 1) -> dict[str, Any]:
    """A guest that writes to a disk of its own."""
    return {
        "name": name, "vcpus": vcpus, "memory": f"{memory_mib}M", "machine": "pc", "cpu": "qemu64", **KERNEL,
        "cmdline": f"{CMDLINE} godwit.disk=1", "disks": [{"file": make_disk(cluster, name), "format": "raw"}],
    }


@dataclass(frozen=True)
class Qemu:
    """A QEMU that lives."""

    pid: int
    guest: str
    host: str


@dataclass(frozen=True)
class Begun:
    """A QEMU, when it was seen first, by the wall clock."""

    at: float
    guest: str
    host: str


class Watch(threading.Thread):
    """Looks all the while which QEMUs live on which host, in all of them at once and from outside.

    doubles: every moment at which a guest had two. A guest that is moved has two by right; it has to be in moves.
    A QEMU that has been killed and not yet reaped (a zombie) has no memory and no threads any more; it does not count.
    """

    def __init__(self, cluster: Hosts) -> None:
        super().__init__(daemon=True)
        self.cluster = cluster
        self.ending = threading.Event()
        self.doubles: list[str] = []
        self.moves: set[str] = set()
        self.samples = 0
        self.longest = 0.0  # seconds between two looks
        self.begun: dict[int, Begun] = {}
        self.known: dict[int, tuple[float, Optional[str]]] = {}  # pid: seen first, and its guest; None: no QEMU so far

    def __enter__(self) -> "Watch":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ending.set()
        self.join()

    def run(self) -> None:
        # Nothing may hold it up while it looks for what must not be: not its niceness, nor whatever else this machine does.
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
        last = time.monotonic()
        while not self.ending.wait(SAMPLE_SECONDS):
            guests: dict[str, list[Qemu]] = {}
            for qemu in self.look():
                guests.setdefault(qemu.guest, []).append(qemu)
            self.doubles += [f"{name} on {' and '.join(q.host for q in found)}" for name, found in guests.items() if len(found) > 1 and name not in self.moves]
            self.samples += 1
            now = time.monotonic()
            self.longest, last = max(self.longest, now - last), now

    def look(self) -> list[Qemu]:
        """Now."""
        spaces = {}
        for host in self.cluster.hosts:
            if host.init:
                try:
                    spaces[os.readlink(f"/proc/{host.inner}/ns/net")] = host.name
                except OSError:
                    pass  # it is being switched off
        pids = [int(n) for n in os.listdir("/proc") if n.isdigit()]
        self.known = {pid: self.known[pid] for pid in pids if pid in self.known}
        found = []
        for pid in pids:
            try:
                guest = self.remembered(pid)
                if guest is None:
                    continue
                state = Path(f"/proc/{pid}/stat").read_bytes().rsplit(b") ", 1)[1][:1]
                host_name = spaces.get(os.readlink(f"/proc/{pid}/ns/net"))
                if state not in (b"Z", b"X") and host_name:
                    found.append(Qemu(pid, guest, host_name))
                    self.begun.setdefault(pid, Begun(time.time(), guest, host_name))
            except OSError:
                continue  # it has just ended
        return found

    def remembered(self, pid: int) -> Optional[str]:
        """As guest_of(), without asking the kernel about what is known for long."""
        now = time.monotonic()
        since, guest = self.known.get(pid, (now, None))
        if guest is None and now - since < EXEC_SECONDS:
            guest = self.guest_of(pid)
        self.known[pid] = since, guest
        return guest

    @staticmethod
    def guest_of(pid: int) -> Optional[str]:
        """The name that a QEMU was given; None: it is something else, or is not yet what it will be."""
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        if b"qemu-system" not in words[0] or b"-name" not in words:
            return None
        found = re.match(r"(?:guest=)?([\w.-]+)", words[words.index(b"-name") + 1].decode())
        return found[1] if found else None


def qemus(cluster: Hosts) -> list[Qemu]:
    """All that live now."""
    return Watch(cluster).look()


def where(cluster: Hosts, name: str) -> list[str]:
    """Hosts with a QEMU of this guest."""
    return [q.host for q in qemus(cluster) if q.guest == name]


@dataclass
class DiskReport:
    """What the disk of a guest says."""

    right: bool
    runs: int
    records: int
    text: str
    wrong: list[str] = field(default_factory=list)


def read_disk(cluster: Hosts, name: str, holds: Optional[list[tuple[int, int]]] = None) -> DiskReport:
    """Let the checker judge it. holds: (run, sequence) that the guest has acknowledged."""
    options = [word for run, sequence in holds or [] for word in ("--holds", f"{run}:{sequence}")]
    done = subprocess.run([str(CHECKER), "--json", *options, str(cluster.shared / f"{name}.raw")], capture_output=True, text=True, timeout=60, check=False)
    if done.returncode not in (0, 1):
        raise HostError(f"disk-check: {done.stderr.strip()}")
    said = json.loads(done.stdout)
    return DiskReport(done.returncode == 0, len(said["runs"]), said["records"], "; ".join(said["wrong"][:3]), said["wrong"])


def console_path(host: Host, name: str) -> Path:
    """Where Godwit lets QEMU log the console of a guest on a host, as seen from outside."""
    return Path(f"/proc/{host.inner}/root/run/godwit/{name}/console.log")
