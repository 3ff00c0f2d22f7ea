# SPDX-License-Identifier: Apache-2.0
"""A lab on a stage: runs commands in its hosts, prints each as a person would type it, keeps logs for when it fails."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable, Sequence

ROOT = Path(__file__).resolve().parents[3]
LAB = ROOT / "tests" / "integration" / "lab" / "lab"
PROBE = ROOT / "tests" / "integration" / "lab" / "probe"
STEP_SECONDS = 60
BACKGROUND_SECONDS = 3600
GUEST_CMDLINE = "console=ttyS0 quiet panic=1 mitigations=off nokaslr"


class StageError(Exception):
    """What failed, and what to look at."""


class Screen:
    """Prints steps and commands; bold where there is a terminal."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.bold = sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"

    def step(self, text: str) -> None:
        head = f"[{time.monotonic() - self.began:5.1f} s] {text}"
        print(f"\n\033[1m{head}\033[0m" if self.bold else f"\n{head}", flush=True)

    def command(self, where: str, argv: Sequence[str]) -> None:
        print(f"  {where}$ {shlex.join(argv)}", flush=True)

    def show(self, text: str) -> None:
        for line in text.rstrip().splitlines():
            print(f"    {line}", flush=True)


class Stage:
    """The lab, and what is running in it at the moment. Logs go to build/NAME."""

    def __init__(self, name: str) -> None:
        self.screen = Screen()
        self.logs = ROOT / "build" / name
        self.env = {**os.environ, "GODWIT_LAB": f"{name}-{os.getpid()}"}
        self.background: list[subprocess.Popen[str]] = []
        shutil.rmtree(self.logs, ignore_errors=True)
        self.logs.mkdir(parents=True)

    def local(self, argv: Sequence[str], quiet: bool = False, seconds: float = 900) -> str:
        """Runs a command on this machine. Returns what it printed."""
        if not quiet:
            self.screen.command("here", [os.path.relpath(a, ROOT) if a.startswith(str(ROOT)) else a for a in argv])
        out = subprocess.run(argv, cwd=ROOT, env=self.env, capture_output=True, text=True, timeout=seconds, check=False)
        if out.returncode != 0:
            raise StageError(f"`{shlex.join(argv)}` failed with exit status {out.returncode}: {(out.stderr or out.stdout).strip()}")
        return out.stdout

    def lab_argv(self, host: str, argv: Sequence[str], seconds: float) -> list[str]:
        return [str(LAB), "run", "-t", str(seconds), host, "--", *argv]

    def host(self, host: str, argv: Sequence[str], quiet: bool = False, seconds: float = STEP_SECONDS) -> str:
        """Runs a command in a lab host. Returns what it printed."""
        if not quiet:
            self.screen.command(host, argv)
        out = subprocess.run(self.lab_argv(host, argv, seconds), env=self.env, capture_output=True, text=True, check=False)
        if out.returncode != 0:
            raise StageError(f"on {host}, `{shlex.join(argv)}` failed with exit status {out.returncode}: "
                             f"{(out.stderr or out.stdout).strip() or 'it said nothing'}")
        return out.stdout

    def host_start(self, host: str, argv: Sequence[str], log: str, quiet: bool = False) -> subprocess.Popen[str]:
        """Starts a command in a lab host and goes on. Its output and errors go to LOG.out and LOG.err among the logs."""
        if not quiet:
            self.screen.command(host, [*argv, "&"])
        with open(self.logs / f"{log}.out", "wb") as out, open(self.logs / f"{log}.err", "wb") as err:
            # pylint: disable=consider-using-with
            p = subprocess.Popen(self.lab_argv(host, argv, BACKGROUND_SECONDS), env=self.env, stdout=out, stderr=err, text=True)
        self.background.append(p)
        return p

    def wait_for(self, what: str, host: str, script: str, seconds: float) -> None:
        """Waits, inside the host, until a line of shell is true."""
        loop = f"until {script}; do sleep 0.2; done"
        try:
            self.host(host, ["sh", "-c", loop], quiet=True, seconds=seconds)
        except StageError as e:
            raise StageError(f"{what} did not come within {seconds:.0f} s on {host}; see {self.logs}") from e

    def put(self, host: str, source: Path, target: str, quiet: bool = False) -> None:
        """Copies a file or a folder into a host."""
        self.local([str(LAB), "put", host, str(source), target], quiet=quiet)

    def logs_save(self, files: str) -> None:
        """After a failure: whatever the hosts know, consoles and @files (a pattern of the shell), among the logs."""
        try:
            status = json.loads(subprocess.run([str(LAB), "status", "--json"], env=self.env, capture_output=True, text=True, check=True).stdout)
        except (OSError, subprocess.CalledProcessError, ValueError):
            return
        for host in status["hosts"]:
            shutil.copy(host["console"], self.logs / f"{host['name']}-console.log")
            if host["state"] != "up":
                continue
            script = f"for f in {files}; do echo \"== $f\"; cat $f; done; dmesg | tail -n 60"
            out = subprocess.run(self.lab_argv(host["name"], ["sh", "-c", script], 20), env=self.env, capture_output=True, check=False)
            (self.logs / f"{host['name']}-guest.log").write_bytes(out.stdout + out.stderr)

    def end(self) -> None:
        """Takes the lab down."""
        shutil.rmtree(self.logs / "tls", ignore_errors=True)  # no key stays on the machine
        subprocess.run([str(LAB), "down"], env=self.env, check=False)
        for p in self.background:
            p.terminate()
            p.wait()
        self.background = []

    def main(self, play: Callable[[], None], files: str) -> int:
        """Plays, takes everything down whatever happens, says how it went. Exit status."""
        try:
            play()
            self.end()
            print(f"\nIt took {time.monotonic() - self.screen.began:.0f} s and leaves nothing running.")
            return 0
        except (StageError, OSError, ValueError, KeyError, subprocess.SubprocessError) as e:
            self.logs_save(files)
            print(f"\nFAILED: {e}\n  Look at {self.logs}: what programs said (*.err), the hosts' consoles, the guests' QEMUs.", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print("\ninterrupted; the lab is being taken down", file=sys.stderr)
            return 130
        finally:
            self.end()


class Asker:
    """Asks a guest's TCP service every 10 ms from one host, over one connection, until it is told to stop."""

    def __init__(self, stage: Stage, host: str, address: str) -> None:
        self.stage = stage
        self.host = host
        self.process = stage.host_start(host, ["probe", "ask", address, "7", "/run/asked"], "ask")
        stage.wait_for("the service's first answer", host, "test -e /run/asked.first", 30)

    def now(self) -> float:
        """The clock of the host that asks, so that its gaps can be told apart."""
        return float(self.stage.host(self.host, ["date", "+%s.%N"], quiet=True))

    def stop(self) -> dict[str, Any]:
        """What it has seen; nothing may be lost."""
        self.stage.host(self.host, ["touch", "/run/asked.stop"], quiet=True)
        status = self.process.wait(timeout=STEP_SECONDS)
        try:
            asked = json.loads(self.stage.host(self.host, ["cat", "/run/asked"], quiet=True))
        except StageError as e:
            raise StageError(f"the client ended with {status} and left no result; see {self.stage.logs}/ask.err") from e
        if asked["lost"] or asked["restarts"] or asked["answered"] != asked["asked"]:
            raise StageError(f"the service lost something: {({**asked, 'gaps': asked['gaps'][-5:]})}")
        return dict(asked)


def longest_gap(asked: dict[str, Any], begin: float, end: float) -> float:
    """Of the service, in ms, between two moments of the asker's clock; 20 ms is two questions, no gap at all."""
    return max((ms for t, ms in asked["gaps"] if begin <= t + ms / 1000 and t <= end), default=2 * 10.0)


def table(rows: list[tuple[str, ...]]) -> str:
    widths = [max(len(r[i]) for r in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(r, widths))) for r in rows)
