# SPDX-License-Identifier: Apache-2.0
"""What is measured, each on three fresh hosts in namespaces.

With a power switch: Godwit, and pacemaker with a plain QEMU. Without one: Godwit with nothing but watchdogs, or with a shared disk as well.
"""

from __future__ import annotations

import secrets
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Optional

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tests/integration"))

# pylint: disable=wrong-import-position
from ha_guests import CMDLINE, FIRST_WORDS as FIRST_WORDS, INIT_WORDS, KERNEL, console_path, qemus  # noqa: E402
from hosts import SHARED, Host, HostError, Hosts, wait_for  # noqa: E402
from power import PowerSwitch, switch_of  # noqa: E402
from watchdog_double import arm, resets_of  # noqa: E402

PARTS = Path(__file__).resolve().parent
TOKEN_MS = 1000
VICTIM = 3
FENCE_DISK = f"{SHARED}/fence/disk"  # a file that all hosts see


class System:
    """Three hosts, guests on the third of them."""

    name = ""
    proof = "power"

    def __init__(self, guests: int, memory_mib: int) -> None:
        self.guests = [f"g{n}" for n in range(1, guests + 1)]
        self.memory_mib = memory_mib
        self.parts = Path(tempfile.mkdtemp(prefix="godwit-ha-bench-"))
        self.parts.chmod(0o755)
        self.hosts: Optional[Hosts] = None
        self.switch: Optional[PowerSwitch] = None

    def __enter__(self) -> "System":
        try:
            self.hosts = Hosts(3, self.layers())
            self.switch = switch_of(self.hosts)
            self.switch.__enter__()
            self.form(self.hosts)
            wait_for(self.stands, 120, f"{self.name}: all guests run on n{VICTIM}")
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self.switch:
            self.switch.close()
        if self.hosts:
            self.hosts.close()
        shutil.rmtree(self.parts, ignore_errors=True)

    def layers(self) -> dict[str, Path]:
        """What its hosts have besides what this machine has: the power switch's agent."""
        return {"/usr/sbin": PowerSwitch.install(self.parts / "agents")}

    def victim(self) -> Host:
        assert self.hosts
        return self.hosts[VICTIM]

    def lose(self) -> None:
        """What happens to the host with the guests."""
        self.victim().power_off()

    def proved(self, began: float, wall: float) -> float:
        """Seconds from lose(), which was at these times (monotonic, wall clock), to the proof that the host was dead."""
        assert self.switch and wall
        asked = [d.at - began for d in self.switch.done if d.action in ("off", "reboot") and d.plug == self.victim().name]
        if not asked:
            raise SystemExit(f"{self.name}: started its guests again without asking the switch")
        return asked[0]

    def form(self, hosts: Hosts) -> None:
        """Start everything."""
        raise NotImplementedError

    def console(self, host: Host, guest: str) -> Path:
        """The log of a guest's console on a host, as seen from outside."""
        raise NotImplementedError

    def stands(self) -> bool:
        """All guests have booted on the host that will die."""
        assert self.hosts
        here = {q.guest for q in qemus(self.hosts) if q.host == self.victim().name}
        return here == set(self.guests) and all(INIT_WORDS in read(self.console(self.victim(), g)) for g in self.guests)


def read(path: Path) -> bytes:
    """Nothing where there is nothing yet."""
    try:
        return path.read_bytes()
    except OSError:
        return b""


class Godwit(System):
    """As its documentation says that it is set up."""

    name = "godwit"

    def form(self, hosts: Hosts) -> None:
        hosts.form()
        self.prepare(hosts)
        for guest in self.guests:
            definition = {"name": guest, "vcpus": 1, "memory": f"{self.memory_mib}M", "machine": "pc", "cpu": "qemu64", **KERNEL, "cmdline": CMDLINE}
            task = hosts[1].task("POST", "/v1/vms", {"definition": definition, "placement": {"node": self.victim().name}, "start": True})
            if task["state"] != "done":
                raise HostError(f"godwit: guest {guest}: {task}")

    def prepare(self, hosts: Hosts) -> None:
        """What is to prove deaths."""
        first = hosts[1]
        names = [h.name for h in hosts.hosts]
        first.ask("POST", "/v1/fence-devices", {"name": "pdu", "agent": "fence_lab", "options": {"folder": str(hosts.folder / "power")},
                                                "nodes": {n: n for n in names}})
        for n in names:
            first.ask("PUT", f"/v1/fence-levels/{n}/1", {"devices": ["pdu"]})

    def console(self, host: Host, guest: str) -> Path:
        return console_path(host, guest)


class GodwitByExpiry(Godwit):
    """No power switch; every host has a watchdog. The host loses its power, and time alone proves that it is dead."""

    proof = "expiry"
    resets: Optional[PowerSwitch] = None  # what an expired watchdog asks

    def form(self, hosts: Hosts) -> None:
        self.resets = resets_of(hosts)
        self.resets.__enter__()
        for host in hosts.hosts:
            host.power_on()
            arm(host, self.resets)
        super().form(hosts)

    def close(self) -> None:
        if self.resets:
            self.resets.close()
        super().close()

    def prepare(self, hosts: Hosts) -> None:
        for host in hosts.hosts:
            wait_for(lambda h=host: self.report(h)["watchdog"]["armed"], 20, f"{host.name} says that its watchdog is armed")

    def report(self, host: Host) -> dict[str, Any]:
        """What a host says of itself."""
        assert self.hosts
        return dict(self.hosts[1].ask("GET", f"/v1/nodes/{host.name}")["report"] or {"watchdog": {"armed": False}})

    def proved(self, began: float, wall: float) -> float:
        assert self.hosts and self.resets
        last = max(self.hosts[1].ask("GET", "/v1/fencings"), key=lambda f: int(f["number"]))
        if last["node"] != self.victim().name or last["proof"] != self.proof or self.resets.done:
            raise SystemExit(f"{self.name}: the proof was to be {self.proof}, with no host reset: {last}, {self.resets.done}")
        return float(last["fenced"]) / 1000 - wall


class GodwitByDisk(GodwitByExpiry):
    """As that, with a small shared disk. The host loses its network, is told on the disk to end its guests, and answers there."""

    proof = "disk"

    def prepare(self, hosts: Hosts) -> None:
        super().prepare(hosts)
        (hosts.shared / "fence").mkdir()
        with (hosts.shared / "fence" / "disk").open("xb") as f:
            f.truncate(8 << 20)
        hosts[1].godwit("fence", "disk-format", FENCE_DISK)
        hosts[1].ask("PUT", "/v1/settings/fence.disks", {"value": [FENCE_DISK]})
        for host in hosts.hosts:
            wait_for(lambda h=host: self.beats(h), 30, f"{host.name} says that its disk works, and the state knows its life")

    def beats(self, host: Host) -> bool:
        assert self.hosts
        works = self.report(host).get("disks", {}).get(FENCE_DISK, {}).get("link") == "working"
        return works and ":" in str(self.hosts[1].ask("GET", f"/v1/nodes/{host.name}")["incarnation"])

    def lose(self) -> None:
        self.victim().cut()


COROSYNC = """totem {{
	version: 2
	cluster_name: bench
	transport: knet
	link_mode: passive
	crypto_cipher: aes256
	crypto_hash: sha256
	token: {token}
	token_coefficient: 0
	seqno_unchanged_const: 1
	consensus: {consensus}
}}
nodelist {{
{nodes}}}
quorum {{
	provider: corosync_votequorum
}}
logging {{
	to_logfile: yes
	logfile: /var/log/pacemaker/corosync.log
	to_syslog: no
}}
"""


def nvpairs(prefix: str, values: dict[str, str]) -> str:
    return "".join(f'<nvpair id="{prefix}-{k}" name="{k}" value="{v}"/>' for k, v in values.items())


class Pacemaker(System):
    """Debian's package at its defaults, but for what has to be set: fencing by the switch, one resource per guest, the preferred host."""

    name = "pacemaker"

    def layers(self) -> dict[str, Path]:
        bench = self.parts / "ocf" / "bench"
        bench.mkdir(parents=True)
        shutil.copy(PARTS / "qemu", bench / "qemu")
        return {**super().layers(), "/usr/lib/ocf/resource.d": self.parts / "ocf"}

    def cib(self, hosts: Hosts) -> str:
        """Its whole configuration."""
        options = nvpairs("o", {"stonith-enabled": "true", "stonith-action": "off", "cluster-name": "bench", "dc-deadtime": "5s"})
        nodes = "".join(f'<node id="{h.number}" uname="{h.name}"/>' for h in hosts.hosts)
        fence = nvpairs("f", {"folder": str(hosts.folder / "power"), "pcmk_host_check": "static-list",
                              "pcmk_host_list": " ".join(h.name for h in hosts.hosts)})
        resources = (f'<primitive id="fence" class="stonith" type="fence_lab"><instance_attributes id="fa">{fence}</instance_attributes>'
                     '<operations><op id="fm" name="monitor" interval="60s"/></operations></primitive>')
        constraints = ""
        for g in self.guests:
            values = nvpairs(g, {"name": g, "command": str(hosts.folder / "shared" / f"{g}.command"), "folder": "/run"})
            resources += (f'<primitive id="{g}" class="ocf" provider="bench" type="qemu"><instance_attributes id="{g}-a">{values}'
                          f'</instance_attributes><operations><op id="{g}-m" name="monitor" interval="10s"/></operations></primitive>')
            constraints += f'<rsc_location id="{g}-l" rsc="{g}" node="{self.victim().name}" score="100"/>'
        return (f'<cib crm_feature_set="3.16.1" validate-with="pacemaker-3.9" epoch="1" num_updates="0" admin_epoch="1"><configuration>'
                f'<crm_config><cluster_property_set id="cib-bootstrap-options">{options}</cluster_property_set></crm_config>'
                f"<nodes>{nodes}</nodes><resources>{resources}</resources><constraints>{constraints}</constraints>"
                "</configuration><status/></cib>")

    def form(self, hosts: Hosts) -> None:
        for g in self.guests:
            command = ["qemu-system-x86_64", "-name", f"guest={g}", "-accel", "tcg", "-machine", "pc", "-cpu", "qemu64", "-m", str(self.memory_mib),
                       "-nodefaults", "-no-user-config", "-display", "none", "-serial", f"file:/run/{g}.console", "-kernel", KERNEL["kernel"],
                       "-initrd", KERNEL["initrd"], "-append", CMDLINE, "-nic", "none"]
            (hosts.shared / f"{g}.command").write_text("\n".join(command) + "\n", encoding="utf-8")
        nodes = "".join(f"\tnode {{\n\t\tring0_addr: {h.address}\n\t\tname: {h.name}\n\t\tnodeid: {h.number}\n\t}}\n" for h in hosts.hosts)
        key = secrets.token_bytes(256)
        (self.parts / "cib.xml").write_text(self.cib(hosts), encoding="utf-8")
        for host in hosts.hosts:
            host.power_on()
            folder = host.folder / "corosync"
            (folder / "corosync.conf").write_text(COROSYNC.format(token=TOKEN_MS, consensus=TOKEN_MS * 6 // 5, nodes=nodes), encoding="utf-8")
            (folder / "authkey").write_bytes(key)
            (folder / "authkey").chmod(0o400)
            self.start(host)

    def start(self, host: Host) -> None:
        """corosync and pacemakerd, in folders of their own."""
        prepare = "\n".join([
            "set -e",
            "mount -t tmpfs tmpfs /var/lib/pacemaker; mount -t tmpfs tmpfs /var/log/pacemaker; mkdir -p /run/crm",
            "for d in cib pengine blackbox cores; do mkdir /var/lib/pacemaker/$d; done",
            f"cp {self.parts}/cib.xml /var/lib/pacemaker/cib/cib.xml; chmod 600 /var/lib/pacemaker/cib/cib.xml",
            "chown -R hacluster:haclient /var/lib/pacemaker /var/log/pacemaker /run/crm; chmod -R g+w /var/log/pacemaker",
        ])
        # The mounts are those of its first process, so that whoever enters the host sees them too.
        host.run("sh", "-c", prepare)
        script = f"hostname {host.name}; corosync -f & until corosync-cmapctl totem.token >/dev/null 2>&1; do sleep 0.1; done; exec pacemakerd"
        with (host.folder / "pacemaker.log").open("ab") as log:
            subprocess.Popen(host.inside("unshare", "--uts", "sh", "-c", script), stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def console(self, host: Host, guest: str) -> Path:
        return Path(f"/proc/{host.inner}/root/run/{guest}.console")


# By the proof that a host is dead.
SYSTEMS: dict[str, tuple[type[System], ...]] = {"power": (Godwit, Pacemaker), "disk": (GodwitByDisk,), "expiry": (GodwitByExpiry,)}
