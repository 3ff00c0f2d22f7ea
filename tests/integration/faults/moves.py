# SPDX-License-Identifier: Apache-2.0
"""One move with one fault: bring both engines to the point, do the things, look who runs the guest, judge the end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from pathlib import Path

from guest import ROOT, Qemu, strays, tick_numbers
from proxy import Plan, Wire
from table import Row

GODWIT_MIGRATE = ROOT / "build/dev/godwit-migrate"
HELLO_BYTES = 60  # of the control connection, before the description of the guest
COPY_BYTES = 4_000_000
EXIT_SECONDS = 25.0
LOOK_SECONDS = 0.2


class Wrong(Exception):
    """The row did not end as the table says."""


class Engine:
    """godwit-migrate, its lines of JSON and its log."""

    def __init__(self, verb: str, folder: Path, qemu: Qemu, args: list[str], step: str) -> None:
        self.verb = verb
        self.lines: list[dict[str, object]] = []
        self.log = folder / f"{verb}.log"
        env = dict(os.environ, GODWIT_FAULT_STEP=step)
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [str(folder / GODWIT_MIGRATE.name), verb, "--qmp", str(qemu.engine_socket), "--plaintext", "--json", *args],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, env=env,
            )  # fmt: skip
        self.new = threading.Condition()
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self) -> None:
        assert self.process.stdout
        for text in self.process.stdout:
            with self.new:
                self.lines.append(json.loads(text))
                self.new.notify_all()

    def wait_line(self, wanted, seconds: float, what: str) -> dict[str, object]:  # type: ignore[no-untyped-def]
        """The first line for which @wanted is true."""
        deadline = time.monotonic() + seconds
        seen = 0
        with self.new:
            while True:
                for line in self.lines[seen:]:
                    if wanted(line):
                        return line
                seen = len(self.lines)
                left = deadline - time.monotonic()
                if left <= 0 or (self.process.poll() is not None and not self.thread.is_alive()):
                    raise Wrong(f"{self.verb} did not come to {what}: {self.lines[-1:]}")
                self.new.wait(min(left, 0.2))

    def wait_stopped(self, seconds: float) -> None:
        """Until it has stopped itself at its step."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                state = Path(f"/proc/{self.process.pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()[0]
            except OSError:
                state = "gone"
            if state == "T":
                return
            if state in ("gone", "Z") or time.monotonic() > deadline:
                raise Wrong(f"{self.verb} did not come to its step: {self.lines[-1:]}")
            time.sleep(0.002)

    def close(self) -> None:
        """Kill if need be, reap."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.thread.join(5)
        if self.process.stdout:
            self.process.stdout.close()

    def last(self) -> dict[str, object]:
        """Its last line."""
        return self.lines[-1] if self.lines else {}


class Move:
    """A row at work."""

    def __init__(self, row: Row, folder: Path, src: Qemu, dst: Qemu) -> None:
        self.row, self.folder, self.src, self.dst = row, folder, src, dst
        self.side, _, rest = row.at.partition(" ")
        self.step = rest.split(" ")[0] if self.side in ("src", "dst") else ""
        self.tick_start = len(src.ticks.data)
        self.token = folder / "token"
        self.token.unlink(missing_ok=True)
        self.engines: dict[str, Engine] = {}
        self.wire: Wire | None = None
        self.both = False  # seen running on both sides
        self.paused = True
        self.guest = ""  # where it ended

    # ---- to the point ----

    def start(self) -> None:
        """Both engines and the wire between them."""
        settle = ["--settle", str(self.row.settle)]
        args = ["--listen", "127.0.0.1:0", "--token-file", str(self.token), *settle]
        receive = Engine("receive", self.folder, self.dst, args, self.step if self.side == "dst" else "")
        self.engines["dst-engine"] = receive
        port = receive.wait_line(lambda x: "port" in x, 10, "listening")["port"]
        assert isinstance(port, int)
        self.wire = Wire(port, self.plan())
        if self.row.at == "connect":
            self.wire.freeze()
        args = ["--to", f"127.0.0.1:{self.wire.port}", "--token-file", str(self.token), "--channels", "2", *settle]
        if self.row.at == "copy":
            args += ["--bandwidth", "40"]
        if self.row.at == "later":
            self.src.ask("load 20 12", "load ok")
            args += ["--bandwidth", "60", "--max-pause", "1"]
        self.engines["src-engine"] = Engine("send", self.folder, self.src, args, self.step if self.side == "src" else "")

    def plan(self) -> Plan | None:
        """What the wire does by itself."""
        if self.row.at == "prepare":
            return Plan(0, HELLO_BYTES, "hold")
        if self.row.does in ("flip", "truncate"):
            return Plan(1, COPY_BYTES, "flip" if self.row.does == "flip" else "cut")
        return None

    def reach(self) -> None:
        """Wait until the move is at the row's point."""
        send, receive = self.engines["src-engine"], self.engines["dst-engine"]
        at = self.row.at
        assert self.wire
        if at == "connect":
            send.wait_line(lambda x: x.get("phase") == "connecting", 10, at)
            time.sleep(0.2)
        elif at == "prepare":
            receive.wait_line(lambda x: x.get("phase") == "preparing", 10, at)
            if not self.wire.happened.wait(10):
                raise Wrong("the wire held nothing")
        elif at in ("copy", "later"):
            first = 2 if at == "later" else 1
            send.wait_line(lambda x: x.get("event") == "progress" and int(x["pass"]) >= first and int(x["sent_bytes"]) > COPY_BYTES, 30, at)
        elif self.side in ("src", "dst"):
            self.engines[f"{self.side}-engine"].wait_stopped(30)
            if at == "src go held":
                self.wire.freeze(to_receiver=True, to_sender=False)
                os.kill(send.process.pid, signal.SIGCONT)
                time.sleep(0.2)

    # ---- the things ----

    def process(self, who: str) -> subprocess.Popen[bytes]:
        """The process of that name."""
        if who in self.engines:
            return self.engines[who].process
        return {"src-qemu": self.src, "dst-qemu": self.dst}[who].process

    def stopped_engine(self) -> Engine | None:
        """The engine that has stopped itself."""
        return self.engines[f"{self.side}-engine"] if self.side in ("src", "dst") and self.row.at != "src go held" else None

    def do(self, thing: str) -> None:
        """One thing of the row."""
        assert self.wire
        verb, _, who = thing.partition(" ")
        signals = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP, "cont": signal.SIGCONT, "interrupt": signal.SIGINT}
        wires = {"cut": self.wire.cut, "freeze": self.wire.freeze, "lose": self.wire.lose_connections, "heal": self.wire.heal}
        if verb in signals:
            self.process(who).send_signal(signals[verb])
        elif verb in wires:
            wires[verb]()
        elif verb == "wait":
            self.watch_for(float(who))
        elif thing == "go on":
            self.go_on()
        elif thing not in ("nothing", "flip", "truncate"):
            raise AssertionError(f"the table says \"{thing}\", which is nothing known")

    def go_on(self) -> None:
        """Let the engine that stopped itself go on."""
        engine = self.stopped_engine()
        if engine and engine.process.poll() is None:
            engine.process.send_signal(signal.SIGCONT)

    # ---- who runs it ----

    def look(self) -> tuple[bool, bool]:
        """Which sides run the guest at this moment; a QEMU that is stopped by us runs nothing and is not asked."""
        states = []
        for who, q in (("src-qemu", self.src), ("dst-qemu", self.dst)):
            frozen = f"stop {who}" in self.row.does and self.paused
            states.append(not frozen and q.state(LOOK_SECONDS) == "running")
        if all(states):
            self.both = True
        return states[0], states[1]

    def watch_for(self, seconds: float) -> None:
        """Look for so long."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.look()
            time.sleep(0.03)

    def wait_runs(self) -> None:
        """Until exactly the right side runs, within the time of the row."""
        here, there = (True, False), (False, True)
        want = {"source": [here], "destination": [there], "nowhere": [(False, False)], "stopped": [(False, False)], "complete": [there, (False, False)], "either": [here, there]}[self.row.guest]
        end = time.monotonic() + self.row.within
        states = self.look()
        while states not in want or (self.row.guest in ("source", "either", "complete") and not self.decided()):
            if time.monotonic() > end:
                raise Wrong(f"after {self.row.within} s: source {self.src.state()}, destination {self.dst.state()}, wanted {self.row.guest}")
            time.sleep(0.03)
            states = self.look()

    def decided(self) -> bool:
        """A guest that stays runs at the source at the start too: wait for the engines' word."""
        return all(e.process.poll() is not None for e in self.engines.values())

    def wait_exits(self) -> None:
        """Engines and guards, all gone. Says where the guest is."""
        end = time.monotonic() + max(EXIT_SECONDS, self.row.settle + 5)
        known = {e.process.pid for e in self.engines.values()} | {self.src.process.pid, self.dst.process.pid}
        while any(e.process.poll() is None for e in self.engines.values()) or strays(known):
            if time.monotonic() > end:
                raise Wrong(f"still there: {[n for n, e in self.engines.items() if e.process.poll() is None]}, guards {strays(known)}")
            self.look()
            time.sleep(0.03)
        names = {(True, False): "source", (False, True): "destination", (False, False): "nowhere"}
        self.guest = names[self.look()] if self.row.guest in ("either", "complete") else self.row.guest

    # ---- judgement ----

    def judge_exits(self) -> None:
        """Exit codes and last words."""
        for engine, right in ((self.engines["src-engine"], self.row.send), (self.engines["dst-engine"], self.row.receive)):
            engine.thread.join(5)
            code = engine.process.wait(1)
            if code not in right:
                raise Wrong(f"{engine.verb} ended with {code}, wanted {right}: {engine.last()}")
            last = engine.last()
            if code >= 0 and (last.get("event") != "result" or not last.get("guest")):
                raise Wrong(f"{engine.verb} ended with {code} without saying where the guest is: {last}")
            if engine.verb == "send" and code >= 0 and self.row.words not in str(last.get("guest")):
                raise Wrong(f"send says {last.get('guest')!r}, wanted {self.row.words!r}")
            error = last.get("error")
            if code > 0 and not (isinstance(error, dict) and error.get("text")):
                raise Wrong(f"{engine.verb} ended with {code} and gave no reason: {last}")

    def judge_ticks(self) -> None:
        """No number twice, none from the other side, none after the other side began."""
        source, destination = bytes(self.src.ticks.data[self.tick_start :]), bytes(self.dst.ticks.data)
        if self.guest != "destination" and destination:
            raise Wrong(f"the guest ran at the destination: {len(destination)} bytes of ticks")
        numbers = tick_numbers(source + destination)
        for a, b in zip(numbers, numbers[1:]):
            if b <= a:
                raise Wrong(f"the guest ran twice: tick {b} after {a}")
        if self.guest in ("source", "destination") and not numbers:
            raise Wrong("the guest did not tick at all")

    def judge_guest(self) -> None:
        """It answers on the right side, and its memory is what it must be."""
        q = {"source": self.src, "destination": self.dst}.get(self.guest)
        if not q:
            return
        if self.row.at == "later":
            q.ask("idle", "load ok")
        q.ask("ping", "pong")
        answer = q.ask("verify", "verify")
        if not answer.startswith("verify ok"):
            raise Wrong(answer)

    def run(self) -> None:
        """All of it."""
        self.start()
        self.reach()
        for thing in self.row.does.split(","):
            if thing.strip().startswith("cont "):
                self.paused = False
            self.do(thing.strip())
        self.go_on()
        self.paused = False
        self.wait_runs()
        self.wait_exits()
        self.wait_runs()
        self.judge_exits()
        self.judge_guest()
        self.judge_ticks()
        if self.both:
            raise Wrong("the guest was seen running on both sides")

    def close(self) -> None:
        """End what is left of it."""
        for e in self.engines.values():
            e.close()
        if self.wire:
            self.wire.close()
        known = {self.src.process.pid, self.dst.process.pid}
        for pid in strays(known):
            os.kill(pid, signal.SIGKILL)
        end = time.monotonic() + 5
        while strays(known) and time.monotonic() < end:
            time.sleep(0.01)

    def story(self) -> str:
        """For the reader of a failure: what the engines said."""
        out = []
        for e in self.engines.values():
            out += [f"{e.verb}: {x}" for x in e.lines if x.get("event") != "progress"]
            out += [f"{e.verb}: {x}" for x in e.log.read_text(encoding="utf-8", errors="replace").splitlines()]
        for q in (self.src, self.dst):
            out += [f"{q.name}: {x}" for x in q.files[-1].read_text(encoding="utf-8", errors="replace").splitlines()]
        return "\n".join(f"#   {x[:1500]}" for x in out)
