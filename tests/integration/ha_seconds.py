# SPDX-License-Identifier: Apache-2.0
"""How long the losses of a scenario took: until the state counted a host as lost, until a proof, until its guests had their next QEMUs."""

from __future__ import annotations

from typing import Any

from ha_guests import Begun
from hosts import Host


def of_loss(host: Host, loss: dict[str, Any], begun: list[Begun]) -> str:
    """One line. The loss counts from what the test last did to the host before the state noticed."""
    noticed, proved = loss["began"] / 1000, loss["fenced"] / 1000
    done = [t for t in host.lost if t <= noticed]
    since = done[-1] if done else noticed
    text = f"{host.name}: " + (f"noticed after {noticed - since:.2f} s, " if done else "seconds since it was noticed: ")
    text += f"proof {loss['proof']} after {proved - since:.2f} s"
    for new in begun:
        before = [b for b in begun if b.guest == new.guest and b.at < new.at]
        if new.at > proved and before and before[-1].host == host.name != new.host:
            text += f", {new.guest} on {new.host} after {new.at - since:.2f} s"
    return text


def lines(hosts: list[Host], losses: list[dict[str, Any]], begun: list[Begun]) -> list[str]:
    """One for each loss (/v1/fencings) that had a proof, in order. Wall-clock times, as hosts in namespaces share the clock."""
    by_name = {h.name: h for h in hosts}
    return [of_loss(by_name[f["node"]], f, begun) for f in sorted(losses, key=lambda f: int(f["number"])) if f["proof"]]
