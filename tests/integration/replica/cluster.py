# SPDX-License-Identifier: Apache-2.0
"""Hosts in namespaces of their own, each with a real corosync and one member of a replicated table.

A host has its own network and its own mounts of /run, /dev/shm and /var/lib/corosync; its cable is a veth whose other end is on a
bridge in a namespace that stands for the switch. Nothing of it touches the machine's network. A host that dies is SIGKILL to
everything on it; a cable is cut at the switch, because a host whose own link goes down is a host that knows.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any, Callable

ROOT = Path(__file__).resolve().parents[3]
MEMBER = ROOT / "build/dev/tools/replica-member"
PR_SET_PDEATHSIG = 1
HISTORY = 4711

Answer = dict[str, Any]


class Wrong(Exception):
    """Not as it must be."""


def check(right: bool, text: str) -> None:
    if not right:
        raise Wrong(text)


def die_with_parent() -> None:
    """In the child: nothing of ours outlives this script."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def run(*argv: str) -> None:
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    check(done.returncode == 0, f"{' '.join(argv)}: {done.stdout.strip()}")


def missing() -> str | None:
    """Why this machine cannot; None when it can."""
    if not shutil.which("corosync"):
        return "corosync is not installed"
    if os.geteuid() != 0:
        return "making network namespaces needs root"
    return None


class Member:
    """A replica-member process, asked by lines."""

    def __init__(self, argv: list[str], log: Path) -> None:
        with log.open("ab") as f:
            self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=f, preexec_fn=die_with_parent)
        assert self.process.stdin and self.process.stdout
        self.stdin, self.stdout = self.process.stdin, self.process.stdout
        self.buffer = b""

    def tell(self, line: str) -> None:
        self.stdin.write(line.encode() + b"\n")
        self.stdin.flush()

    def hear(self, verb: str, seconds: float = 20) -> Answer:
        """Its next answer to @verb; others are dropped."""
        deadline = time.monotonic() + seconds
        while True:
            while b"\n" in self.buffer:
                line, self.buffer = self.buffer.split(b"\n", 1)
                answer: Answer = json.loads(line)
                if answer["answer"] == verb:
                    return answer
            left = deadline - time.monotonic()
            check(left > 0, f"no answer to {verb} in {seconds} s")
            if select.select([self.stdout], [], [], left)[0]:
                data = os.read(self.stdout.fileno(), 1 << 16)
                check(data != b"", f"the member ended instead of answering {verb}")
                self.buffer += data

    def ask(self, line: str, seconds: float = 20) -> Answer:
        self.tell(line)
        return self.hear(line.split()[0], seconds)

    def kill(self) -> None:
        self.process.kill()
        self.close()

    def close(self) -> None:
        self.process.wait(30)
        self.stdin.close()
        self.stdout.close()


class Host:
    """One host; `up` while its cable is plugged in."""

    def __init__(self, cluster: Cluster, number: int) -> None:
        self.cluster, self.id = cluster, number
        self.folder = cluster.folder / f"n{number}"
        self.folder.mkdir()
        self.holder = holder("mount -t tmpfs run /run && mount -t tmpfs shm /dev/shm && mount -t tmpfs lib /var/lib/corosync")
        self.member: Member | None = None
        self.corosync: subprocess.Popen[bytes] | None = None
        self.acked = self.folder / "acked"
        cable, pid = f"h{number}", str(self.holder.pid)
        run(*cluster.switch("ip", "link", "add", cable, "mtu", "1500", "type", "veth", "peer", "name", "eth0", "netns", pid))
        run(*cluster.switch("ip", "link", "set", cable, "master", "br0", "up"))
        for argv in (("address", "add", f"10.78.0.{number}/24", "dev", "eth0"), ("link", "set", "eth0", "up"), ("link", "set", "lo", "up")):
            run(*self.inside("ip", *argv))

    def inside(self, *argv: str) -> list[str]:
        return ["nsenter", "--target", str(self.holder.pid), "--net", "--mount", f"--wd={self.folder}", "--", *argv]

    def write_conf(self) -> None:
        (self.folder / "corosync.conf").write_text(self.cluster.conf(self.folder / "authkey"), encoding="ascii")
        (self.folder / "authkey").write_bytes(self.cluster.key)

    def start_corosync(self) -> None:
        self.write_conf()
        with (self.folder / "corosync.log").open("ab") as log:
            self.corosync = subprocess.Popen(self.inside("corosync", "-f", "-c", str(self.folder / "corosync.conf")), stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=die_with_parent)

    def run(self, *argv: str) -> None:
        run(*self.inside(*argv))

    def start_member(self, empty: bool = False, folder: Path | None = None) -> Member:
        """A new database belongs to the cluster from its first day on; @empty: it is that of a host that knows nothing."""
        argv = [str(MEMBER), "--db", str((folder or self.folder) / "state.db"), "--acked", str(self.acked)]
        self.member = Member(self.inside(*argv, *([] if empty else ["--history", str(HISTORY)])), self.folder / "member.log")
        started = self.member.hear("start")
        check(started["ok"], f"n{self.id} does not start: {started.get('error')}")
        return self.member

    def kill_member(self) -> None:
        if self.member:
            self.member.kill()
        self.member = None

    def kill_corosync(self, sig: int = signal.SIGKILL) -> None:
        if self.corosync:
            self.corosync.send_signal(sig)
            self.corosync.wait(30)
        self.corosync = None

    def power_off(self) -> None:
        """All at once, as when the power goes; what was not written is lost with the process."""
        for p in (self.corosync, self.member and self.member.process):
            if p:
                p.kill()
        self.kill_corosync()
        self.kill_member()

    def cut(self) -> None:
        run(*self.cluster.switch("ip", "link", "set", f"h{self.id}", "down"))

    def plug(self) -> None:
        run(*self.cluster.switch("ip", "link", "set", f"h{self.id}", "up"))

    def status(self) -> Answer:
        assert self.member
        return self.member.ask("status")

    def put(self, key: str, value: str) -> Answer:
        assert self.member
        return self.member.ask(f"put {key} {value}")

    def close(self) -> None:
        self.power_off()
        self.holder.kill()
        self.holder.wait()


def holder(mounts: str = "true") -> subprocess.Popen[str]:
    """A process that waits in namespaces of its own; entered by its pid."""
    script = f"mount --make-rprivate / && {mounts} && echo ready && exec sleep infinity"
    p = subprocess.Popen(["unshare", "--net", "--mount", "sh", "-c", script], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, preexec_fn=die_with_parent)
    assert p.stdout
    check(p.stdout.readline() == "ready\n", "no namespaces")
    p.stdout.close()
    return p


class Cluster:
    """Some hosts on one switch. Use it in a `with`."""

    def __init__(self, folder: Path, hosts: int, token_ms: int = 1000) -> None:
        self.folder, self.token_ms, self.number = folder, token_ms, hosts
        self.key = os.urandom(128)
        self.switch_holder = holder()
        run(*self.switch("ip", "link", "add", "br0", "type", "bridge"))
        run(*self.switch("ip", "link", "set", "br0", "up"))
        self.hosts = [Host(self, i + 1) for i in range(hosts)]

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        for h in self.hosts:
            h.close()
        self.switch_holder.kill()
        self.switch_holder.wait()

    def switch(self, *argv: str) -> list[str]:
        return ["nsenter", "--target", str(self.switch_holder.pid), "--net", "--", *argv]

    def conf(self, key: Path) -> str:
        """As godwitd writes it."""
        nodes = "".join(f"node {{\n ring0_addr: 10.78.0.{i}\n name: n{i}\n nodeid: {i}\n}}\n" for i in range(1, self.number + 1))
        totem = f"version: 2\n cluster_name: test\n transport: knet\n crypto_cipher: aes256\n crypto_hash: sha256\n keyfile: {key}\n token: {self.token_ms}\n token_coefficient: 0\n seqno_unchanged_const: 1"
        return f"totem {{\n {totem}\n}}\nquorum {{\n provider: corosync_votequorum\n}}\nnodelist {{\n{nodes}}}\nlogging {{\n to_syslog: no\n to_stderr: yes\n}}\n"

    def reload(self, number: int) -> None:
        """Every running corosync reads a list of @number nodes."""
        self.number = number
        for h in self.hosts:
            h.write_conf()
        self.hosts[0].run("corosync-cfgtool", "-R")

    def start(self) -> None:
        """All hosts."""
        for h in self.hosts:
            h.start_corosync()
        for h in self.hosts:
            h.start_member()

    def status(self) -> list[Answer]:
        """Of all members that run."""
        return [h.status() for h in self.hosts if h.member]

    def until(self, what: str, right: Callable[[list[Answer]], bool], seconds: float = 30) -> list[Answer]:
        """Ask until it is so."""
        deadline = time.monotonic() + seconds
        while True:
            answers = self.status()
            if right(answers):
                return answers
            if time.monotonic() > deadline:
                raise Wrong(f"not in {seconds} s: {what}: " + " ".join(json.dumps(a) for a in answers))
            time.sleep(0.02)

    def until_agreed(self, n: int, seconds: float = 30) -> list[Answer]:
        """@n members are in sync, at the same entry, with the same state and the same chain of commands and answers."""

        def agreed(a: list[Answer]) -> bool:
            return len(a) == n and all(x["synced"] for x in a) and all(len({x[k] for x in a}) == 1 for k in ("index", "digest", "digest_kv", "epoch"))

        return self.until(f"{n} members agree", agreed, seconds)
