"""A discrete-event simulation of training on N devices: loaders that prefetch, steps, and a ring all-reduce.

What it knows of the engine: a process prepares the next `threads + 1` batches in `threads` threads
(medmae/training/prefetch.py); a batch is read from storage and then prepared by a core; the processes exchange
gradients in the backward of every step, so that the slowest one sets the pace. Cores and storage are shared: k users of
a resource get an equal part of it, none more than one user can use.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Machine:
    """N devices in nodes, and what they share. Rates in bytes a second, times in seconds."""

    devices: int = 1
    devices_a_node: int = 8
    cores_a_node: int = 128
    threads: int = 8
    storage: float = float("inf")
    storage_a_reader: float = float("inf")
    computes_on_cores: bool = False


@dataclass(frozen=True)
class Work:
    """A step of one device: what its batch costs to read, prepare and compute, and how much these times vary.

    `jitter` is the deviation of the logarithm of a time; a share `stragglers` of the computations takes twice as long.
    `exchange_s` is the all-reduce; `hidden` of it lies under the backward.
    """

    bytes_read: float
    prepare_s: float
    compute_s: float
    exchange_s: float = 0.0
    hidden: float = 0.0
    jitter: float = 0.05
    stragglers: float = 0.0


@dataclass(frozen=True)
class Pace:
    """What came out, after the first steps: seconds a step, and the share of them that devices waited for data."""

    step_s: float
    waiting: float


def ring_all_reduce_s(gradient_bytes: float, devices: int, bandwidth: float, latency_s: float) -> float:
    """The time of a ring all-reduce: every device sends 2 (N - 1) / N of the bytes, in 2 (N - 1) messages."""
    return 2 * (devices - 1) * (gradient_bytes / devices / bandwidth + latency_s)


class _Clock:
    """Events in order of time."""

    def __init__(self) -> None:
        self.now = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._events, (self.now + seconds, self._count, action))

    def run(self) -> None:
        while self._events:
            self.now, _, action = heapq.heappop(self._events)
            action()


class _Shared:
    """A resource of `capacity` units a second whose users get equal parts, at most `of_one` each."""

    def __init__(self, clock: _Clock, capacity: float, of_one: float) -> None:
        self._clock, self._capacity, self._of_one = clock, capacity, of_one
        self._left: dict[int, float] = {}
        self._then: dict[int, Callable[[], None]] = {}
        self._since, self._version, self._count = 0.0, 0, 0

    def use(self, units: float, then: Callable[[], None]) -> None:
        """Call `then` when `units` were got."""
        if units == 0 or min(self._capacity, self._of_one) == float("inf"):
            self._clock.after(0.0, then)
            return
        self._advance()
        self._count += 1
        self._left[self._count], self._then[self._count] = units, then
        self._plan()

    def _rate(self) -> float:
        return min(self._of_one, self._capacity / len(self._left))

    def _advance(self) -> None:
        if self._left:
            got = self._rate() * (self._clock.now - self._since)
            self._left = {user: left - got for user, left in self._left.items()}
        self._since = self._clock.now

    def _plan(self) -> None:
        self._version += 1
        if self._left:
            version = self._version
            soonest = max(0.0, min(self._left.values()) / self._rate())
            self._clock.after(soonest, lambda: self._finish(version))

    def _finish(self, version: int) -> None:
        if version != self._version:  # users came or went since this was planned
            return
        self._advance()
        first = min(self._left, key=self._left.__getitem__)
        del self._left[first]
        then = self._then.pop(first)
        self._plan()
        then()


class _Device:
    """One process: its loaders, and its place in the step."""

    def __init__(self, run: _Run, node: _Shared) -> None:
        self._run, self._node = run, node
        self.ready, self._begun, self._is_idle, self._idle_since, self.waited = 0, 0, False, 0.0, 0.0
        self._waiting_for_thread, self._free = 0, run.machine.threads

    def start(self) -> None:
        for _ in range(self._run.machine.threads + 1):
            self._ask()
        self.next_step()

    def _ask(self) -> None:
        if self._begun == self._run.steps:
            return
        self._begun += 1
        if self._free:
            self._free -= 1
            self._load()
        else:
            self._waiting_for_thread += 1

    def _load(self) -> None:
        work = self._run.work
        self._run.storage.use(work.bytes_read, lambda: self._node.use(
            work.prepare_s * self._run.varied(), self._loaded))

    def _loaded(self) -> None:
        if self._waiting_for_thread:
            self._waiting_for_thread -= 1
            self._load()
        else:
            self._free += 1
        self.ready += 1
        if self._is_idle:
            self._is_idle = False
            self.waited += self._run.clock.now - self._idle_since
            self._compute()

    def next_step(self) -> None:
        if self.ready:
            self._compute()
        else:
            self._is_idle, self._idle_since = True, self._run.clock.now

    def _compute(self) -> None:
        self.ready -= 1
        self._ask()
        seconds = self._run.work.compute_s * self._run.varied() * (2 if self._run.straggles() else 1)
        if self._run.machine.computes_on_cores:
            self._node.use(seconds, self._run.computed)
        else:
            self._run.clock.after(seconds, self._run.computed)


class _Run:
    """All devices, step after step."""

    def __init__(self, machine: Machine, work: Work, steps: int, seed: int) -> None:
        self.machine, self.work, self.steps = machine, work, steps
        self.clock = _Clock()
        self._generator = np.random.default_rng(seed)
        self.storage = _Shared(self.clock, machine.storage, machine.storage_a_reader)
        nodes = [_Shared(self.clock, machine.cores_a_node, 1.0)
                 for _ in range(-(-machine.devices // machine.devices_a_node))]
        self.devices = [_Device(self, nodes[number // machine.devices_a_node]) for number in range(machine.devices)]
        self._missing = machine.devices
        self.ends: list[float] = []
        self.waited: list[float] = []

    def varied(self) -> float:
        """A factor of mean 1."""
        jitter = self.work.jitter
        return float(np.exp(self._generator.normal(-jitter**2 / 2, jitter)))

    def straggles(self) -> bool:
        return bool(self._generator.random() < self.work.stragglers)

    def computed(self) -> None:
        self._missing -= 1
        if not self._missing:
            self._missing = self.machine.devices
            self.clock.after(self.work.exchange_s * (1 - self.work.hidden), self._exchanged)

    def _exchanged(self) -> None:
        self.ends.append(self.clock.now)
        self.waited.append(sum(device.waited for device in self.devices) / len(self.devices))
        if len(self.ends) < self.steps:
            for device in self.devices:
                device.next_step()


def simulate(machine: Machine, work: Work, steps: int = 200, seed: int = 0) -> Pace:
    """The pace of training once it runs: without the first quarter of the steps, which finds batches in advance, and
    without the last ones, for which there are none left to load.
    """
    run = _Run(machine, work, steps, seed)
    for device in run.devices:
        device.start()
    run.clock.run()
    first, last = steps // 4, steps - machine.threads - 2
    seconds = run.ends[last] - run.ends[first]
    return Pace(seconds / (last - first), (run.waited[last] - run.waited[first]) / seconds)
