# SPDX-License-Identifier: Apache-2.0
"""Hosts in namespaces: each has a network, a /run, processes of its own and its own folders for what must outlive a power
cut. Real corosync, godwitd and QEMU run in them; nothing of the machine's own is touched.

A switch for each link (a bridge in one more network namespace) joins them. A cable is cut at the switch's end, as a host cannot see that.
Needs root.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Optional

ROOT = Path(__file__).resolve().parent.parent.parent
BUILD = ROOT / "build" / os.environ.get("V", "dev")

# The first process of a host: whoever loses its parent becomes its child, and is reaped by the kernel.
INIT = "import signal; signal.signal(signal.SIGCHLD, signal.SIG_IGN)\nwhile True: signal.pause()"

# Folders of a host that are its own: what is on disk, and what a power cut loses.
DISKS = {"/var/lib/godwit": "state", "/etc/godwit": "etc", "/etc/corosync": "corosync", "/var/lib/corosync": "corosync-lib"}
MEMORY = ["/run", "/dev/shm"]

# The folder that all of them see, for disks of guests. They share a kernel, so QEMU's image locks hold across hosts, as they do on NFS.
SHARED = "/srv/godwit"


class HostError(Exception):
    """Something that a test needs does not work."""


def run(*argv: str, check: bool = True) -> str:
    """What a command says; its own words when it fails."""
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False)
    if check and done.returncode != 0:
        raise HostError(f"{' '.join(argv)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def switch_device(link: int) -> str:
    """The bridge that joins the cables of this link."""
    return f"sw{link or ''}"


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Host:
    """One host. Off until power_on()."""

    def __init__(self, cluster: "Hosts", number: int) -> None:
        self.cluster = cluster
        self.number = number
        self.name = f"n{number}"
        self.address = f"10.77.0.{number}"
        self.net = f"{cluster.prefix}h{number}"
        self.port = f"p{number}"
        self.addresses = [f"10.{77 + link}.0.{number}" for link in range(cluster.links)]
        self.folder = cluster.folder / self.name
        self.init: Optional[subprocess.Popen[bytes]] = None
        self.inner = 0
        self.daemon: Optional[subprocess.Popen[bytes]] = None
        self.watchdog, self.device = "run", "none"  # --watchdog and --watchdog-device of godwitd
        self.options: list[str] = []  # more for godwitd
        self.one_way = False
        self.lost: list[float] = []  # wall-clock times at which it was cut off or switched off
        for name in DISKS.values():
            (self.folder / name).mkdir(parents=True)
        run("ip", "netns", "add", self.net)
        run("ip", "-n", self.net, "link", "set", "lo", "up")
        for link, address in enumerate(self.addresses):
            port, device = self.port_of(link), f"eth{link}"
            run("ip", "-n", cluster.switch, "link", "add", port, "type", "veth", "peer", "name", device, "netns", self.net)
            run("ip", "-n", cluster.switch, "link", "set", port, "master", switch_device(link), "up")
            run("ip", "-n", self.net, "address", "add", f"{address}/24", "dev", device)
            run("ip", "-n", self.net, "link", "set", device, "up")

    # ---- power ----

    def power_on(self) -> None:
        """Start its first process, with its folders in place."""
        mounts = [f"mount --bind {self.folder / name} {path}" for path, name in DISKS.items()]
        mounts += [f"mount -t tmpfs tmpfs {path}" for path in MEMORY]
        mounts += [f"mount --bind {self.cluster.shared} {SHARED}"]
        mounts += [f"mount -t overlay overlay -o lowerdir={upper}:{path} {path}" for path, upper in self.cluster.layers.items()]
        script = "mount --make-rprivate / && " + " && ".join(mounts) + f" && mkdir -p /run/lock && exec /usr/bin/python3 -c '{INIT}'"
        for path in [*DISKS, SHARED]:
            os.makedirs(path, exist_ok=True)
        self.init = subprocess.Popen(
            ["ip", "netns", "exec", self.net, "unshare", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child", "sh", "-c", script],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,  # unshare complains when its child is killed
        )
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            children = Path(f"/proc/{self.init.pid}/task/{self.init.pid}/children").read_text(encoding="ascii").split()
            # Until its folders are in place it is a shell.
            if children and Path(f"/proc/{children[0]}/cmdline").read_bytes().startswith(b"/usr/bin/python3\0"):
                self.inner = int(children[0])
                return
            time.sleep(0.02)
        raise HostError(f"{self.name} did not start")

    def power_off(self) -> None:
        """A power cut: everything in it is gone at once."""
        if not self.init:
            return
        self.lost.append(time.time())
        try:
            os.kill(self.inner, signal.SIGKILL)
            if self.daemon:
                self.daemon.send_signal(signal.SIGCONT)  # see hang_daemon()
        except ProcessLookupError:
            pass
        self.init.wait(20)
        self.init = self.daemon = None

    # ---- cables ----

    def port_of(self, link: int) -> str:
        """The switch's end of its cable of this link."""
        return self.port if link == 0 else f"{self.port}-{link}"

    def cut(self, *links: int) -> None:
        """Pull its cables out of the switch: those of these links, or all."""
        self.lost.append(time.time())
        for link in links or range(self.cluster.links):
            run("ip", "-n", self.cluster.switch, "link", "set", self.port_of(link), "down")

    def cut_one_way(self, hears: bool) -> None:
        """Its first cable carries one direction only, and it cannot see that: the switch drops what it sends, or what is for it."""
        self.lost.append(time.time())
        drop = f'{"iifname" if hears else "oifname"} "{self.port}" drop;'
        # Forwarded is what comes from others, output what the switch itself has to say.
        chains = [f"chain {hook} {{ type filter hook {hook} priority 0; {drop} }};" for hook in ("forward", "output")]
        run("ip", "netns", "exec", self.cluster.switch, "nft", f"table bridge {self.port} {{ {' '.join(chains)} }}")
        self.one_way = True

    def heal(self) -> None:
        """Put all of them back."""
        for link in range(self.cluster.links):
            run("ip", "-n", self.cluster.switch, "link", "set", self.port_of(link), "up")
        if self.one_way:
            run("ip", "netns", "exec", self.cluster.switch, "nft", "delete", "table", "bridge", self.port)
        self.one_way = False

    def received(self) -> int:
        """Packets that have come to it over its first cable."""
        said = json.loads(run("ip", "-n", self.net, "-json", "-stats", "link", "show", "eth0"))
        return int(said[0]["stats64"]["rx"]["packets"])

    # ---- storage ----

    def lose_storage(self) -> None:
        """The folder of guests' disks is there no more, as if its server were. A file that a QEMU has open stays open."""
        self.run("mount", "-t", "tmpfs", "-o", "ro", "nothing", SHARED)

    def find_storage(self) -> None:
        """It is there again."""
        self.run("umount", SHARED)

    # ---- processes ----

    def inside(self, *argv: str) -> list[str]:
        """The command that runs @argv in it."""
        return ["nsenter", "--target", str(self.inner), "--mount", "--net", "--pid", "--", *argv]

    def run(self, *argv: str, check: bool = True, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """Run a command in it to its end."""
        done = subprocess.run(self.inside(*argv), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout, check=False)
        if check and done.returncode != 0:
            raise HostError(f"{self.name}: {' '.join(argv)}: exit {done.returncode}: {done.stderr.strip() or done.stdout.strip()}")
        return done

    def godwit(self, *argv: str, check: bool = True, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """The command line, as a person at this host would use it."""
        return self.run(str(BUILD / "godwit"), *argv, check=check, timeout=timeout)

    def godwit_json(self, *argv: str) -> Any:
        """What it says with --json."""
        return json.loads(self.godwit(*argv, "--json").stdout)

    def start(self, *wrapper: str) -> None:
        """Start godwitd, as the last words of the command @wrapper if there is one."""
        if not self.init:
            self.power_on()
        with (self.folder / "godwitd.log").open("ab") as log:
            self.daemon = subprocess.Popen(
                self.inside(*wrapper, str(BUILD / "godwitd"), "--corosync", "run", "--accel", "tcg", "--watchdog", self.watchdog, "--watchdog-device", self.device, *self.options),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )
        wait_for(lambda: self.api("GET", "/openapi.json", timeout=2)[0] == 200, 15, f"{self.name}: godwitd answers")

    def daemon_pid(self) -> int:
        """Of godwitd itself, as this machine numbers it."""
        assert self.daemon
        return int(Path(f"/proc/{self.daemon.pid}/task/{self.daemon.pid}/children").read_text(encoding="ascii").split()[0])

    def kill_daemon(self) -> None:
        """kill -9; guests, corosync and engines go on."""
        assert self.daemon
        os.kill(self.daemon_pid(), signal.SIGKILL)
        self.daemon.wait(10)
        self.daemon = None

    def hang_daemon(self) -> None:
        """It stands still, guests, corosync and engines go on. nsenter, its parent, stops when it does, and reaps nobody then."""
        os.kill(self.daemon_pid(), signal.SIGSTOP)

    def go_on_daemon(self) -> None:
        """It goes on."""
        assert self.daemon
        os.kill(self.daemon_pid(), signal.SIGCONT)
        self.daemon.send_signal(signal.SIGCONT)

    def log(self) -> str:
        """What godwitd has said."""
        return (self.folder / "godwitd.log").read_text(encoding="utf-8", errors="replace")

    # ---- API ----

    def api(self, method: str, target: str, body: Any = None, timeout: float = 30, headers: Optional[dict[str, str]] = None) -> tuple[int, Any]:
        """Status and JSON (or text) of an answer; (0, reason) when there is none. Over its unix socket, from outside."""
        connection = UnixConnection(f"/proc/{self.inner}/root/run/godwit/godwitd.sock", timeout)
        try:
            text = None if body is None else json.dumps(body)
            connection.request(method, target, text, {"Content-Type": "application/json", **(headers or {})} if text else (headers or {}))
            answer = connection.getresponse()
            data = answer.read().decode()
            try:
                return answer.status, json.loads(data)
            except ValueError:
                return answer.status, data
        except (OSError, http.client.HTTPException) as error:
            return 0, str(error)
        finally:
            connection.close()

    def ask(self, method: str, target: str, body: Any = None, timeout: float = 60) -> Any:
        """The answer; an error is an exception in the daemon's words."""
        status, answer = self.api(method, target, body, timeout)
        if not 200 <= status < 300:
            said = answer["error"]["message"] if isinstance(answer, dict) and "error" in answer else answer
            raise HostError(f"{self.name}: {method} {target}: {status}: {said}")
        return answer

    def task(self, method: str, target: str, body: Any = None, seconds: float = 120) -> dict[str, Any]:
        """Begin a long action and wait for its end."""
        task = self.ask(method, target, body)["task"]
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            status, now = self.api("GET", f"/v1/tasks/{task['id']}", timeout=5)
            if status == 200 and now["state"] in ("done", "failed", "cancelled"):
                return dict(now)
            time.sleep(0.1)
        raise HostError(f"{self.name}: {method} {target}: no end within {seconds:g} s")

    def state(self) -> str:
        """Of its replica: "synced", ..."""
        status, answer = self.api("GET", "/v1/cluster", timeout=3)
        return str(answer.get("state")) if status == 200 and isinstance(answer, dict) else f"no answer ({answer})"


class Hosts:
    """A few hosts and their switch; everything is gone with close().

    layers: folders whose files appear in folders of all hosts, and on no account in those of this machine ({"/usr/sbin": agents}).
    links: cables of each host, each to a switch of its own.
    """

    def __init__(self, count: int, layers: Optional[dict[str, Path]] = None, links: int = 1) -> None:
        self.links = links
        self.prefix = f"gw{os.getpid()}-"
        self.switch = f"{self.prefix}sw"
        self.folder = Path(tempfile.mkdtemp(prefix="godwit-hosts-"))
        self.folder.chmod(0o755)
        self.shared = self.folder / "shared"
        self.shared.mkdir()
        self.layers = layers or {}
        self.hosts: list[Host] = []
        try:
            run("ip", "netns", "add", self.switch)
            for link in range(links):
                run("ip", "-n", self.switch, "link", "add", switch_device(link), "type", "bridge", "forward_delay", "0")
                run("ip", "-n", self.switch, "link", "set", switch_device(link), "up")
            for number in range(1, count + 1):
                self.hosts.append(Host(self, number))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Hosts":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getitem__(self, number: int) -> Host:
        """Hosts are counted from 1."""
        return self.hosts[number - 1]

    def form(self) -> None:
        """Start all, make the first the founder, let the others join and report."""
        for host in self.hosts:
            host.start()
        first = self.hosts[0]
        first.ask("POST", "/v1/cluster/init", {"name": "test", "node": first.name, "addresses": first.addresses})
        wait_for(lambda: first.state() == "synced", 30, "the founder is synced")
        for host in self.hosts[1:]:
            self.join(host, first)
        # Before, there is no memory to promise to guests.
        wait_for(lambda: all(n["report"] for n in first.ask("GET", "/v1/nodes")), 30, "all have reported what they have")

    def join(self, host: Host, member: Host) -> None:
        """Let a host in that runs godwitd and is in no cluster yet."""
        token = member.ask("POST", "/v1/cluster/tokens", {})["token"]
        host.ask("POST", "/v1/cluster/join", {"token": token, "node": host.name, "addresses": host.addresses})
        wait_for(lambda: host.state() == "synced" and member.state() == "synced", 60, f"{host.name} is in")

    def close(self) -> None:
        """End what runs in them, take the namespaces away."""
        for host in self.hosts:
            host.power_off()
        for name in [*(h.net for h in self.hosts), self.switch]:
            run("ip", "netns", "del", name, check=False)
        shutil.rmtree(self.folder, ignore_errors=True)


def wait_for(condition: Any, seconds: float, what: str) -> None:
    """Poll until it holds."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return
        time.sleep(0.1)
    raise HostError(f"not within {seconds:g} s: {what}")
