# SPDX-License-Identifier: Apache-2.0
"""Three lab hosts that are one platform: what the demo and the tests of the platform do on them."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Sequence

from stage import GUEST_CMDLINE, PROBE, ROOT, Stage, StageError

HOSTS = {"n1": "10.77.0.1", "n2": "10.77.0.2", "n3": "10.77.0.3"}
GUESTS = {"web1": "10.77.0.100", "db1": "10.77.0.101"}
PROGRAMS = ("godwit", "godwitd", "godwit-vm", "godwit-migrate")
AGENTS = "/usr/local/sbin"  # where fence agents are looked for; they must belong to root
SYNC_SECONDS = 90
TOKEN_MS = 5000  # of corosync: emulated hosts that share two cores are late now and then


class PlatformStage(Stage):
    """Three hosts and what a person does on them."""

    def fill(self, host: str) -> None:
        """Copies into a host what an installation would; hosts see the checkout at its own path."""
        quiet = host != "n1"
        built = [str(ROOT / "build" / "dev" / name) for name in PROGRAMS]
        guest = [str(ROOT / "build" / "guest" / name) for name in ("vmlinuz", "initramfs.cpio.gz")]
        self.host(host, ["install", "-t", "/usr/local/bin", *built, str(PROBE)], quiet=quiet)
        self.host(host, ["install", "-D", "-t", "/opt/guest", *guest], quiet=quiet)
        self.host(host, ["install", "-D", "-t", AGENTS, str(ROOT / "tests" / "tools" / "fence_lab")], quiet=quiet)

    def daemons(self, hosts: Sequence[str], when: str = "") -> None:
        """Starts godwitd, as systemd would, and waits until it listens. Its log has @when in its name."""
        for host in hosts:
            self.host_start(host, ["godwitd", "--listen", f"{HOSTS[host]}:7443", "--fence-agents", AGENTS], f"{host}-godwitd{when}")
        for host in hosts:
            self.wait_for("godwitd", host, "test -S /run/godwit/godwitd.sock && pgrep -x godwitd >/dev/null", 60)

    def godwit(self, host: str, *argv: str, quiet: bool = False, seconds: float = 60) -> str:
        """The command line, typed on @host; its output is shown."""
        said = self.host(host, ["godwit", *argv], quiet=quiet, seconds=seconds)
        if not quiet:
            self.screen.show(said)
        return said

    def ask(self, host: str, *argv: str) -> Any:
        """What it says with --json, not shown."""
        return json.loads(self.godwit(host, *argv, "--json", quiet=True))

    def synced(self, hosts: list[str]) -> None:
        """Waits until these are members that are up to date."""
        end = time.monotonic() + SYNC_SECONDS
        for host in hosts:
            while True:
                try:
                    if self.ask(host, "cluster", "status")["state"] == "synced":
                        break
                except (StageError, ValueError):
                    pass
                if time.monotonic() > end:
                    raise StageError(f"{host} is not in sync after {SYNC_SECONDS} s; see {self.logs}/{host}-godwitd*.err")
                time.sleep(0.2)

    def power_switch(self) -> None:
        """The switch of the lab becomes a fence device, as a switched outlet would."""
        plugs = [word for host in HOSTS for word in ("--node", f"{host}={host}")]
        self.godwit("n1", "fence", "add", "switch", "--agent", "fence_lab", "--option", "folder=/run/lab/power", *plugs)
        self.godwit("n1", "fence", "test")

    def create(self, host: str, name: str, on: str, rate: int, *more: str) -> None:
        """A guest that knows what its memory must hold, writes @rate MB/s of it, and answers on TCP."""
        cmdline = f"{GUEST_CMDLINE} godwit.fill=8 godwit.hot=1 godwit.rate={rate} godwit.ip={GUESTS[name]}/24"
        self.godwit(host, "vm", "create", name, "--memory", "192M", "--vcpus", "1", "--machine", "pc", "--kernel", "/opt/guest/vmlinuz",
                    "--initrd", "/opt/guest/initramfs.cpio.gz", "--append", cmdline, "--network", "lan", "--node", on, *more, seconds=90)

    def owner(self, name: str) -> str:
        """Where a guest is."""
        return str(self.ask("n1", "vm", "show", name)["owner"])

    def verify(self, name: str) -> None:
        """The guest looks at every page of its memory."""
        answer = self.host(self.owner(name), ["probe", "say", f"/run/godwit/{name}/console.sock", "verify", "verify"]).strip()
        self.screen.show(answer)
        if not answer.startswith("verify ok"):
            raise StageError(f"the memory of {name} is not what it must be: {answer}")

    def ready(self, name: str, seconds: float = 240) -> None:
        """Waits until the guest has booted."""
        self.wait_for(f"{name}'s `guest ready`", self.owner(name), f"grep -q 'guest ready' /run/godwit/{name}/console.log", seconds)

    def qemu(self, host: str, name: str) -> str:
        """The process of a guest's QEMU."""
        return self.host(host, ["pgrep", "-f", f"qemu-system.*{name}"], quiet=True).strip()

    def fill_all(self) -> None:
        """Fills all hosts at once."""
        with ThreadPoolExecutor(len(HOSTS)) as pool:
            for done in [pool.submit(self.fill, host) for host in HOSTS]:
                done.result()

    def found(self) -> None:
        """Makes a cluster on n1 and lets the others join."""
        self.daemons(list(HOSTS))
        self.godwit("n1", "cluster", "init", "demo", "--node", "n1", "--address", HOSTS["n1"], "--token-ms", str(TOKEN_MS))
        self.synced(["n1"])
        for number, host in enumerate(("n2", "n3"), 2):
            token = self.ask("n1", "cluster", "token")["token"]
            self.screen.command("n1", ["godwit", "cluster", "token"])
            self.screen.command(host, ["godwit", "cluster", "join", token[:24] + "...", "--node", host, "--address", HOSTS[host]])
            self.screen.show(self.host(host, ["godwit", "cluster", "join", token, "--node", host, "--address", HOSTS[host]], quiet=True))
            self.synced(list(HOSTS)[:number])
        self.godwit("n3", "cluster", "status")
        self.godwit("n3", "node", "list")
