"""A target: a computer, or a cluster, that runs jobs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

TargetKind = Literal["local", "ssh", "slurm"]
NAME = re.compile(r"\w[\w.+-]{0,63}")


@dataclass(frozen=True)
class Target:
    """Where and how jobs run.

    Args:
        name: what the user calls it.
        kind: this computer, a computer over SSH, or a Slurm cluster (over SSH where `host` is given).
        host: as one would give it to ``ssh``: a name in ``~/.ssh/config``, or ``user@address``.
        folder: for everything of MedMAE there; relative to the home folder there, or absolute.
        environment: "venv" makes a virtual environment with the pinned packages; "python" uses `python` as it is.
        python: an interpreter there (3.11 or later): the environment itself, or what it is made from.
        preamble: lines of ``sh`` before everything, such as ``module load python/3.11``.
        container: words put before `python` when a job runs, such as ``apptainer exec --nv image.sif``.
        wheelhouse: a folder there with wheels; packages are then installed from it alone.
        gpus: graphics cards of one node that a job uses; 0: none.
        nodes: computers of a cluster that a job uses.
        cpus: processor cores on each node; None: what the cluster gives.
        partition: of the cluster.
        account: to charge on the cluster.
        time: limit of one go, as Slurm writes it (``1-12:00:00``); the job is requeued and goes on until it is done.
        sbatch: further lines for Slurm, such as ``--mem=64G``.
    """

    name: str
    kind: TargetKind = "local"
    host: str | None = None
    folder: str = "medmae"
    environment: Literal["venv", "python"] = "venv"
    python: str = "python3"
    preamble: tuple[str, ...] = ()
    container: tuple[str, ...] = ()
    wheelhouse: str | None = None
    gpus: int = 1
    nodes: int = 1
    cpus: int | None = None
    partition: str | None = None
    account: str | None = None
    time: str | None = None
    sbatch: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise ValueError(f"{self.name!r} cannot be the name of a target; use letters, digits and . + - _")
        if (self.host is None) != (self.kind == "local") and self.kind != "slurm":
            raise ValueError(f"a target of kind {self.kind} {'needs a' if self.kind == 'ssh' else 'has no'} host")
        if self.host is not None and (not self.host or self.host.startswith("-") or not self.host.isprintable()
                                      or any(letter.isspace() for letter in self.host)):
            raise ValueError(f"{self.host!r} cannot be a host; give it as to ssh: a name or user@address")
        for text in (self.folder, self.python, *self.preamble, *self.container, self.wheelhouse, self.partition,
                     self.account, self.time, *self.sbatch):
            if text is not None and (not text or "\n" in text or "\0" in text):
                raise ValueError(f"{text!r} is empty or holds a line break")
        if self.gpus < 0 or self.nodes < 1 or (self.cpus is not None and self.cpus < 1):
            raise ValueError("gpus must be at least 0, nodes and cpus at least 1")
        if self.nodes > 1 and self.kind != "slurm":
            raise ValueError("only Slurm targets have more than one node")

    @property
    def is_remote(self) -> bool:
        """Whether it is another computer, so that data must travel there."""
        return self.host is not None
