"""Judging a Slurm cluster: is it there, and does it have what a target asks for."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from medmae.errors import BadInput
from medmae.jobs.check import Check
from medmae.jobs.slurm import seconds_of
from medmae.jobs.target import Target


def slurm_checks(target: Target, facts: dict[str, Any]) -> Iterator[Check]:
    """Version, partition, cards, time limit and account, as far as the cluster tells."""
    if facts["version"] is None:
        yield Check("Slurm", "failed", f"Slurm is not there, or does not answer: {facts['problem']}",
                    "The host must be a login node of the cluster. If Slurm's commands must be loaded first, do so in "
                    "the --preamble (module load slurm). A computer without Slurm is a target of --kind ssh.",
                    "no Slurm")
        return
    yield Check("Slurm", "ok", facts["version"])
    names = sorted({partition["name"] for partition in facts["partitions"]})
    change = f"Change it: medmae target add {target.name} --replace, with "
    wanted = [partition for partition in facts["partitions"]
              if (partition["name"] == target.partition if target.partition else partition["is_default"])]
    if not wanted:
        finding = (f"there is no partition {target.partition}" if target.partition else
                   "the target names no partition, and the cluster has none by default")
        yield Check("partition", "failed", f"{finding}; there are: {', '.join(names) or 'none that you may see'}",
                    f"{change}--partition.", "unknown partition")
        return
    name = wanted[0]["name"]
    if all(partition["state"].rstrip("*") not in ("up", "") for partition in wanted):
        yield Check("partition", "warning", f"{name} is {wanted[0]['state']}; jobs wait until it is up",
                    f"Ask the cluster's support, or choose another of {', '.join(names)}.")
    else:
        yield Check("partition", "ok", name)
    yield from _cards(target, facts["partitions"], wanted, change)
    yield from _time(target, wanted, change)
    if target.account and facts["accounts"] and target.account not in facts["accounts"]:
        yield Check("account", "warning", f"{target.account} is not among yours: {', '.join(facts['accounts'])}",
                    f"{change}--account.")


def _cards(target: Target, partitions: list[dict[str, Any]], wanted: list[dict[str, Any]],
           change: str) -> Iterator[Check]:
    if target.gpus == 0:
        return
    most = max(map(_cards_of, wanted))
    if most >= target.gpus:
        yield Check("GPU", "ok", "; ".join(sorted({row["gres"] for row in wanted if _cards_of(row)})))
        return
    enough = sorted({row["name"] for row in partitions if _cards_of(row) >= target.gpus})
    yield Check("GPU", "failed", f"{target.gpus} on each node are asked for; nodes of {wanted[0]['name']} have "
                f"{most or 'none'}", change + (f"--partition (enough have: {', '.join(enough)})." if enough else
                                               "a smaller --gpus (0: computes without)."), "no GPU")


def _cards_of(partition: dict[str, Any]) -> int:
    """How many a node has: 4 of "gpu:a100:4(S:0-1),mps:400"."""
    entries = (entry.split(":") for entry in re.sub(r"\(.*?\)", "", partition["gres"]).split(","))
    return sum(int(entry[-1]) if entry[-1].isdigit() else 1 for entry in entries if entry[0] == "gpu")


def _time(target: Target, wanted: list[dict[str, Any]], change: str) -> Iterator[Check]:
    """A job that asks for more than the partition allows waits for ever, or is refused."""
    if target.time is None:
        return
    try:
        asked = seconds_of(target.time)
        limits = [seconds_of(row["time_limit"]) for row in wanted]
    except BadInput as error:
        yield Check("time", "failed", str(error), f"{change}--time.")
        return
    if None not in limits and (asked is None or asked > max(filter(None, limits), default=0)):
        yield Check("time", "failed", f"{target.time} is asked for; {wanted[0]['name']} allows "
                    f"{wanted[0]['time_limit']}", f"{change}--time: a job that needs longer is requeued and goes on.")
