# SPDX-License-Identifier: Apache-2.0
"""Runs scenarios one after the other, each on a stage of its own that is judged at the end. Prints TAP."""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import Any, Callable

from ha_seconds import lines
from ha_stage import Stage

Scenario = Callable[[Stage], None]
SCENARIOS: list[tuple[str, dict[str, Any], Scenario]] = []


def scenario(**stage: Any) -> Callable[[Scenario], Scenario]:
    """With the arguments of Stage."""

    def add(f: Scenario) -> Scenario:
        SCENARIOS.append((f.__name__.replace("_", " "), stage, f))
        return f

    return add


def run_scenarios() -> int:
    """Those whose name contains what is on the command line; the exit status."""
    words = sys.argv[1] if len(sys.argv) > 1 else ""
    chosen = [s for s in SCENARIOS if words in s[0]]
    print(f"1..{len(chosen)}", flush=True)
    failed = 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what runs in the hosts must not outlive this
    for number, (text, arguments, f) in enumerate(chosen, 1):
        if os.geteuid() != 0:
            print(f"ok {number} {text} # skip: namespaces need root", flush=True)
            continue
        began = time.monotonic()
        try:
            with Stage(**arguments) as stage:
                try:
                    f(stage)
                    stage.judge()
                    losses = stage.alive().ask("GET", "/v1/fencings")
                except BaseException:
                    for host in stage.hosts.hosts:
                        print("".join(f"# {host.name}: {line}\n" for line in host.log().splitlines()[-12:]), end="")
                    raise
            seconds = lines(stage.hosts.hosts, losses, list(stage.watch.begun.values()))
            print("".join(f"# {line}\n" for line in seconds), end="")
            print(f"ok {number} {text} ({time.monotonic() - began:.0f} s)", flush=True)
        except Exception as error:  # pylint: disable=broad-exception-caught
            failed += 1
            print(f"not ok {number} {text}\n# {type(error).__name__}: {error}", flush=True)
    return 1 if failed else 0
