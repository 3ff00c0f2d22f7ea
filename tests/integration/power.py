# SPDX-License-Identifier: Apache-2.0
"""The power switch that tests/tools/fence_lab asks: it switches hosts of tests, and can have every fault that a switch has."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Optional

AGENT = Path(__file__).resolve().parent.parent / "tools" / "fence_lab"
POLL_SECONDS = 0.02


@dataclass
class Outlet:
    """How one host is switched. fault: None, or one of

    fail: says so, does nothing. lie: says that it has done it, and has not. deaf: never answers. slow: answers after `delay`
    seconds. mute: switches, but does not know the state. dead: as fail, once the host is off (a BMC that lives on its power).
    """

    off: Callable[[], object]
    on: Callable[[], object]
    is_on: Callable[[], bool]
    fault: Optional[str] = None
    delay: float = 0.0


@dataclass
class Done:
    """One request, as it was answered."""

    action: str
    plug: str
    status: int
    at: float = field(default_factory=time.monotonic)


class PowerSwitch:
    """Serves the requests in a folder, one after the other, in a thread of its own. Who also switches the hosts by hand holds `lock`."""

    def __init__(self, folder: Path, outlets: dict[str, Outlet], password: str = "") -> None:
        self.folder = folder
        self.outlets = outlets
        self.password = password
        self.lock = threading.RLock()
        self.done: list[Done] = []
        self.errors: list[BaseException] = []
        self.stopping = threading.Event()
        folder.mkdir(exist_ok=True)
        for old in folder.iterdir():
            old.unlink()
        self.thread = threading.Thread(target=self.serve, daemon=True)

    def __enter__(self) -> "PowerSwitch":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """After it nothing is switched any more."""
        self.stopping.set()
        if self.thread.is_alive():
            self.thread.join()

    @staticmethod
    def install(folder: Path) -> Path:
        """Put the agent into a folder that belongs to this user alone, as a daemon runs no other; the folder."""
        folder.mkdir(mode=0o755, exist_ok=True)
        shutil.copy(AGENT, folder / AGENT.name)
        (folder / AGENT.name).chmod(0o755)
        return folder

    def actions(self, plug: str) -> list[str]:
        """What was asked for one host, in order."""
        return [d.action for d in self.done if d.plug == plug]

    def serve(self) -> None:
        """Until close()."""
        while not self.stopping.wait(POLL_SECONDS):
            try:
                self.serve_once()
            except Exception as e:  # pylint: disable=broad-exception-caught
                self.errors.append(e)  # the test that owns it looks at them

    def serve_once(self) -> None:
        """Answer what is there."""
        for path in sorted(self.folder.glob("*.request")):
            try:
                request = json.loads(path.read_text(encoding="utf-8"))
                path.unlink()
            except FileNotFoundError:
                continue  # taken back
            answer = self.answer(request)
            if answer is None:
                continue
            self.done.append(Done(request["action"], request["plug"], answer["status"]))
            new = path.with_suffix(".part")
            new.write_text(json.dumps(answer), encoding="utf-8")
            os.replace(new, path.with_suffix(".answer"))

    def answer(self, request: dict[str, str]) -> Optional[dict[str, Any]]:
        """None: there is none."""
        action, plug = request["action"], request["plug"]
        if self.password and request.get("password") != self.password:
            return {"status": 1, "text": "the password is wrong"}
        if action == "monitor":
            return {"status": 0}
        if action == "list":
            return {"status": 0, "list": [f"{name}," for name in self.outlets]}
        if plug not in self.outlets:
            return {"status": 1, "text": f"there is no plug {plug}"}
        with self.lock:
            return self.switch(self.outlets[plug], action, plug)

    @staticmethod
    def switch(outlet: Outlet, action: str, plug: str) -> Optional[dict[str, Any]]:
        """Do it, or what the fault does."""
        if outlet.fault == "deaf":
            return None
        if outlet.fault == "fail" or (outlet.fault == "dead" and not outlet.is_on()):
            return {"status": 1, "text": f"plug {plug} does not answer"}
        if outlet.fault == "slow":
            time.sleep(outlet.delay)
        if action == "status":
            if outlet.fault == "mute":
                return {"status": 1, "text": f"the state of plug {plug} is not known"}
            return {"status": 0 if outlet.is_on() else 2}
        if outlet.fault == "lie":
            return {"status": 0}
        if action in ("off", "reboot") and outlet.is_on():
            outlet.off()
        if action in ("on", "reboot") and not outlet.is_on():
            outlet.on()
        return {"status": 0}


def outlets_of(hosts: Any) -> dict[str, Outlet]:
    """One for each of the hosts in namespaces (hosts.py)."""
    return {h.name: Outlet(h.power_off, h.power_on, lambda h=h: h.init is not None) for h in hosts.hosts}  # type: ignore[misc]


def switch_of(hosts: Any, password: str = "") -> PowerSwitch:
    """The switch of hosts in namespaces: its folder is FOLDER/power, where each of them sees it too."""
    return PowerSwitch(hosts.folder / "power", outlets_of(hosts), password)
