# SPDX-License-Identifier: Apache-2.0
"""A watchdog for each host in a namespace, where the machine has none to give: real godwit-watchdog on a double of the device.

The double (tests/tools/watchdog-preload.c) is a file that takes what /dev/watchdog takes, with a timer that is a process of its own. When
it is not petted in time its host is reset: whoever serves resets_of() switches it off.
"""

from __future__ import annotations

import subprocess
from typing import Any

from hosts import BUILD, Host
from power import AGENT, PowerSwitch, outlets_of

DEVICE = "/run/watchdog-double"


def resets_of(hosts: Any) -> PowerSwitch:
    """What an expired watchdog asks to reset its own host; it has none of the faults of a power switch."""
    return PowerSwitch(hosts.folder / "resets", outlets_of(hosts))


def start(host: Host, expired: str) -> subprocess.Popen[bytes]:
    """godwit-watchdog in a host that is on, before its godwitd, which gives its children no environment. expired: what a bite runs."""
    host.watchdog = "auto"
    variables = [f"LD_PRELOAD={BUILD}/tools/watchdog-preload.so", f"WATCHDOG_DOUBLE={DEVICE}", f"WATCHDOG_DOUBLE_EXPIRED={expired}",
                 "ASAN_OPTIONS=verify_asan_link_order=0"]  # where the double is not the first library
    with (host.folder / "watchdog.log").open("ab") as log:
        words = host.inside("env", *variables, str(BUILD / "godwit-watchdog"), "--device", DEVICE)
        return subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log)  # ends with its host


def arm(host: Host, resets: PowerSwitch) -> None:
    """The same; a bite switches the host off."""
    start(host, f"printf 'action=off\\nplug={host.name}\\nfolder={resets.folder}\\n' | {AGENT}")
