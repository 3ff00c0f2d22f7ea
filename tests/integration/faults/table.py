# SPDX-License-Identifier: Apache-2.0
"""The fault table: at which point of a move, what happens to whom, and where the guest must be afterwards.

Points. "connect": the sender waits for the receiver's greeting. "prepare": the receiver waits for the description of the guest.
"copy": first pass. "later": a later pass of a guest that writes. Names of steps (migrate/handover.h) prefixed with the side:
the engine of that side has stopped itself on entering the step, before doing anything for it. "src-go held": GO was sent and
is held on the wire. "over": the move is over.

Things done, in order: "kill X", "stop X" (SIGSTOP), "cont X", "interrupt X" (SIGINT), "cut", "freeze", "lose" (close the
connections, let new ones through), "heal", "wait S", "go on" (SIGCONT to the engine that stopped itself). X is src-engine,
dst-engine, src-qemu, dst-qemu. An engine that stopped itself is let go on at the end, unless a thing says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass

KILLED = -9


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    at: str
    does: str  # things done, separated by commas
    guest: str  # where it runs afterwards: source, destination, either (exactly one, timing decides which), nowhere, stopped (undecided),
    # complete (at the destination, or nowhere where that had not all of it)
    send: tuple[int, ...]  # exit codes of the sender that are right
    receive: tuple[int, ...]  # of the receiver
    words: str = ""  # what the sender's last line must say
    within: float = 6.0  # seconds until exactly one side runs it
    settle: int = 20  # --settle of both engines

    @property
    def name(self) -> str:
        """One sentence."""
        end = {"either": "the guest runs on exactly one side", "source": "the guest runs on at the source", "destination": "the guest runs at the destination", "nowhere": "the guest is lost, and it says so", "complete": "the guest runs at the destination, or is lost if that had not all of it", "stopped": "the guest stands on both sides, and it says so"}
        return f"{self.at}: {self.does}: {end[self.guest]}"


HERE = "the guest runs on here"
THERE = "the guest runs at the destination"
LOST = "start the guest again"
UNDECIDED = "the guest is stopped here"

ROWS = [
    Row("none", "nothing", "destination", (0,), (0,), THERE),
    # ---- before the first page ----
    Row("connect", "kill src-engine, heal, wait 0.5, interrupt dst-engine", "source", (KILLED,), (3,)),
    Row("connect", "kill dst-engine, heal", "source", (1,), (KILLED,), HERE),
    Row("connect", "cut, wait 0.5, interrupt dst-engine", "source", (1,), (3,), HERE),
    Row("connect", "kill dst-qemu, heal", "source", (1,), (1,), HERE),
    Row("connect", "interrupt src-engine, wait 0.5, interrupt dst-engine", "source", (3,), (3,), HERE),
    Row("connect", "interrupt dst-engine, heal", "source", (1, 3), (3,), HERE),
    Row("connect", "stop dst-engine, heal, wait 1, cont dst-engine", "destination", (0,), (0,), THERE),
    Row("prepare", "kill src-engine, heal", "source", (KILLED,), (1,)),
    Row("prepare", "kill dst-engine", "source", (1,), (KILLED,), HERE),
    Row("prepare", "kill dst-qemu, heal", "source", (1,), (1,), HERE),
    Row("prepare", "cut", "source", (1,), (1,), HERE),
    Row("prepare", "interrupt src-engine, heal", "source", (3,), (3, 1), HERE),
    Row("prepare", "interrupt dst-engine", "source", (1, 3), (3,), HERE),
    Row("prepare", "kill src-engine, kill dst-engine", "source", (KILLED,), (KILLED,)),
    Row("prepare", "wait 1, heal", "destination", (0,), (0,), THERE),
    # ---- while the guest runs and is copied ----
    Row("copy", "kill src-engine", "source", (KILLED,), (1,)),
    Row("copy", "kill dst-engine", "source", (1,), (KILLED,), HERE),
    Row("copy", "kill dst-qemu", "source", (1,), (1,), HERE),
    Row("copy", "kill src-qemu", "nowhere", (5,), (1,), LOST),
    Row("copy", "kill src-engine, kill dst-engine", "source", (KILLED,), (KILLED,)),
    Row("copy", "cut", "source", (1,), (1,), HERE),
    Row("copy", "flip", "source", (1,), (1,), HERE),
    Row("copy", "truncate", "source", (1,), (1,), HERE),
    Row("copy", "interrupt src-engine", "source", (3,), (1, 3), HERE),
    Row("copy", "interrupt dst-engine", "source", (1, 3), (3,), HERE),
    Row("copy", "stop src-engine, wait 5, cont src-engine", "destination", (0,), (0,), THERE),
    Row("copy", "stop dst-engine, wait 5, cont dst-engine", "destination", (0,), (0,), THERE),
    Row("copy", "stop src-qemu, wait 5, cont src-qemu", "destination", (0,), (0,), THERE),
    Row("copy", "stop dst-qemu, wait 5, cont dst-qemu", "destination", (0,), (0,), THERE),
    Row("copy", "freeze, wait 5, heal", "destination", (0,), (0,), THERE),
    Row("later", "kill src-engine", "source", (KILLED,), (1,)),
    Row("later", "kill dst-engine", "source", (1,), (KILLED,), HERE),
    Row("later", "kill dst-qemu", "source", (1,), (1,), HERE),
    Row("later", "kill src-qemu", "nowhere", (5,), (1,), LOST),
    Row("later", "cut", "source", (1,), (1,), HERE),
    Row("later", "interrupt src-engine", "source", (3,), (1, 3), HERE),
    # ---- the guest is stopped, pages and device state are still on their way ----
    Row("src stopped", "kill src-engine", "source", (KILLED,), (1,)),
    Row("src stopped", "kill dst-engine", "either", (0, 1), (KILLED,)),
    Row("src stopped", "kill dst-qemu", "source", (1,), (1,), HERE),
    Row("src stopped", "kill src-qemu", "complete", (0, 5), (0, 1), within=14.0),
    Row("src stopped", "kill src-engine, kill dst-engine", "source", (KILLED,), (KILLED,)),
    # The destination may have all of it by then, and then it waits for a word of the source, as below.
    Row("src stopped", "cut", "source", (1,), (1, 4), HERE, 9, settle=3),
    Row("src stopped", "wait 1", "destination", (0,), (0,), THERE),
    Row("src stopped", "wait 5", "source", (KILLED,), (1,)),
    Row("src stopped", "interrupt src-engine", "either", (0, 3), (0, 1, 3)),
    # ---- the destination has loaded everything ----
    Row("dst loaded", "kill src-engine", "source", (KILLED,), (1,)),
    Row("dst loaded", "kill dst-engine", "source", (1,), (KILLED,), HERE),
    Row("dst loaded", "kill dst-qemu", "source", (1,), (1,), HERE),
    Row("dst loaded", "kill src-qemu", "destination", (0,), (0,), THERE),
    Row("dst loaded", "kill src-engine, kill dst-engine", "source", (KILLED,), (KILLED,)),
    Row("dst loaded", "cut", "source", (1,), (4,), HERE, 9, settle=3),
    Row("dst loaded", "lose", "source", (1,), (1,), HERE),
    Row("dst loaded", "wait 5", "destination", (0,), (0,), THERE, 9),
    Row("dst loaded", "interrupt src-engine, wait 0.3", "source", (3,), (1, 3), HERE),
    Row("dst loaded", "interrupt dst-engine", "source", (1, 3), (3,), HERE),
    # ---- its QEMU is about to be told, or has been told, that the move is complete ----
    Row("src shut", "kill src-engine", "source", (KILLED,), (1,)),
    Row("src shut", "kill dst-engine", "either", (0, 1), (KILLED,)),
    Row("src shut", "kill dst-qemu", "source", (1,), (1,), HERE),
    Row("src shut", "kill src-qemu", "destination", (0,), (0,), THERE),
    Row("src shut", "kill src-engine, kill dst-engine", "source", (KILLED,), (KILLED,)),
    Row("src shut", "lose", "source", (1,), (1,), HERE),
    Row("src shut", "wait 5", "source", (KILLED,), (1,)),
    Row("src released", "kill src-engine", "source", (KILLED,), (1,)),
    Row("src released", "kill dst-engine", "either", (0, 1), (KILLED,)),
    Row("src released", "kill dst-qemu", "source", (1,), (1,), HERE),
    Row("src released", "kill src-qemu", "destination", (0,), (0,), THERE),
    Row("src released", "kill src-qemu, kill src-engine", "destination", (KILLED,), (0,)),
    Row("src released", "kill src-engine, kill dst-engine", "source", (KILLED,), (KILLED,)),
    Row("src released", "lose", "source", (1,), (1,), HERE),
    Row("src released", "wait 1", "destination", (0,), (0,), THERE),
    Row("src released", "wait 5", "source", (KILLED,), (1,)),
    # ---- GO ----
    Row("src go", "kill src-engine", "destination", (KILLED,), (0,)),
    Row("src go", "kill dst-engine", "destination", (0,), (KILLED,), THERE),
    Row("src go", "kill dst-qemu", "source", (1,), (1,), HERE),
    Row("src go", "kill src-qemu", "destination", (0,), (0,), THERE),
    Row("src go", "kill src-engine, kill dst-engine", "destination", (KILLED,), (KILLED,)),
    Row("src go", "lose", "destination", (0,), (0,), THERE),
    Row("src go", "wait 5", "destination", (KILLED,), (0,)),
    Row("src go", "cut, go on, wait 4, heal", "destination", (0,), (0,), THERE, 9),
    Row("src go held", "lose, heal", "destination", (0,), (0,), THERE),
    Row("src go held", "wait 3, lose, heal", "destination", (0,), (0,), THERE, 9),
    Row("src go held", "wait 8, heal", "destination", (0,), (0,), THERE, 15),
    Row("src go held", "kill src-engine, wait 1, heal", "destination", (KILLED,), (0,)),
    Row("src go held", "kill dst-engine, heal", "destination", (0,), (KILLED,), THERE),
    Row("src go held", "kill dst-qemu, heal", "source", (1,), (1,), HERE),
    Row("src go held", "interrupt src-engine, heal", "destination", (0,), (0,), THERE),
    Row("src go held", "interrupt dst-engine, wait 0.3, heal", "source", (1, 3), (3,), HERE),
    Row("src go held", "cut", "stopped", (4,), (4,), UNDECIDED, 20, settle=3),
    Row("dst go", "kill src-engine", "destination", (KILLED,), (0,)),
    Row("dst go", "kill dst-engine", "destination", (0,), (KILLED,), THERE),
    Row("dst go", "kill dst-qemu", "source", (1,), (1,), HERE),
    Row("dst go", "kill src-qemu", "destination", (0,), (0,), THERE),
    Row("dst go", "kill src-engine, kill dst-engine", "destination", (KILLED,), (KILLED,)),
    Row("dst go", "lose", "destination", (0,), (0,), THERE),
    Row("dst go", "cut, go on, wait 4, heal", "destination", (0,), (0,), THERE),
    Row("dst go", "wait 5", "destination", (0,), (KILLED,), THERE),
    Row("dst go", "stop dst-qemu, go on, wait 1, cont dst-qemu", "destination", (0,), (0,), THERE),
    # ---- the guest runs at the destination, the source does not know yet ----
    Row("dst running", "kill src-engine", "destination", (KILLED,), (0,)),
    Row("dst running", "kill dst-engine", "destination", (0,), (KILLED,), THERE),
    Row("dst running", "kill src-qemu", "destination", (0,), (0,), THERE),
    Row("dst running", "kill src-engine, kill dst-engine", "destination", (KILLED,), (KILLED,)),
    Row("dst running", "lose", "destination", (0,), (0,), THERE),
    Row("dst running", "cut, go on, wait 4, heal", "destination", (0,), (0,), THERE),
    Row("dst running", "freeze, go on, wait 1, lose, heal", "destination", (0,), (0,), THERE),
    Row("dst running", "wait 5", "destination", (0,), (0, KILLED), THERE),
    Row("src moved", "kill src-engine", "destination", (KILLED,), (0,)),
    Row("src moved", "kill dst-engine", "destination", (0,), (KILLED, 0), THERE, settle=3),
]
