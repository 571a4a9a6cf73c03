"""Two network namespaces as two nodes: a rendezvous over the network, a node that dies, a cable that is pulled."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from torchrun_helpers import (
    INTERRUPTED,
    SOON_SECONDS,
    STEPS,
    ended,
    last_checkpoint,
    pretraining,
    start,
    steps_reported,
    wait_for,
    write_corpus,
)

from medmae.run_folder import RunFolder

pytestmark = pytest.mark.remote


@dataclass(frozen=True)
class Node:
    """A network namespace with one interface."""

    name: str
    interface: str
    address: str

    def start(self, run: RunFolder, main: Node, **environment: str) -> subprocess.Popen[str]:
        """torchrun for one process on this node, of two nodes that meet at the main one."""
        launcher = ("--nnodes=2", "--rdzv-backend=c10d", f"--rdzv-endpoint={main.address}:29411", "--rdzv-id=two",
                    f"--rdzv-conf=is_host={int(self == main)}", f"--local-addr={self.address}")
        return start(run, 1, launcher=launcher, before=("ip", "netns", "exec", self.name),
                     GLOO_SOCKET_IFNAME=self.interface, **environment)

    def kill(self) -> None:
        """Everything that runs on this node, at once."""
        for pid in _ip("netns", "pids", self.name).split():
            os.kill(int(pid), signal.SIGKILL)

    def pull_cable(self) -> None:
        _ip("-n", self.name, "link", "set", self.interface, "down")


def _ip(*arguments: str) -> str:
    return subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True).stdout


@pytest.fixture
def nodes() -> Iterator[tuple[Node, Node]]:
    """Two connected nodes, which see nothing but each other."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("needs root and iproute2, to make network namespaces")
    mark = os.getpid() % 100_000
    pair = (Node(f"medmae{mark}a", f"mm{mark}a", "10.77.0.1"), Node(f"medmae{mark}b", f"mm{mark}b", "10.77.0.2"))
    try:
        _ip("netns", "add", pair[0].name)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"this machine allows no network namespaces: {error.stderr.strip()}")
    try:
        _ip("netns", "add", pair[1].name)
        _ip("-n", pair[0].name, "link", "add", pair[0].interface, "type", "veth", "peer", "name", pair[1].interface,
            "netns", pair[1].name)
        for node in pair:
            _ip("-n", node.name, "address", "add", f"{node.address}/24", "dev", node.interface)
            for interface in (node.interface, "lo"):
                _ip("-n", node.name, "link", "set", interface, "up")
        yield pair
    finally:
        for node in pair:
            if Path("/run/netns", node.name).exists():
                node.kill()
                _ip("netns", "delete", node.name)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


def test_a_killed_node_ends_the_run_and_two_nodes_continue_it(nodes: tuple[Node, Node], corpus: str,
                                                              tmp_path: Path) -> None:
    run = pretraining(tmp_path / "run", INTERRUPTED, STEPS, corpus=corpus)
    main, other = (node.start(run, nodes[0]) for node in nodes)
    wait_for(lambda: steps_reported(run) >= 3)
    killed = time.monotonic()
    nodes[1].kill()
    other.wait()
    code, _ = ended(main, SOON_SECONDS)
    assert code != 0
    assert time.monotonic() - killed < SOON_SECONDS
    state = run.state()
    assert state["state"] == "failed"
    assert "its node lost" in state["reason"]
    assert "--resume" in state["remedy"]

    reached, reported = last_checkpoint(run), steps_reported(run)
    again = [node.start(run, nodes[0]) for node in nodes]
    wait_for(lambda: steps_reported(run) >= reported + 2)
    run.request_stop()
    assert [ended(each)[0] for each in again] == [0, 0]
    assert run.state()["state"] == "stopped"
    assert run.state()["step"] > reached


@pytest.mark.slow
def test_a_node_that_falls_silent_ends_the_run_when_its_time_to_answer_is_over(nodes: tuple[Node, Node], corpus: str,
                                                                              tmp_path: Path) -> None:
    """A pulled cable closes no connection."""
    run = pretraining(tmp_path / "run", INTERRUPTED, STEPS, corpus=corpus)
    main, other = (node.start(run, nodes[0], ANSWER_WITHIN="15") for node in nodes)
    wait_for(lambda: steps_reported(run) >= 3)
    nodes[1].pull_cable()
    code, _ = ended(main, SOON_SECONDS)
    assert code != 0
    assert run.state()["state"] == "failed"
    assert "does not answer any more" in run.state()["reason"]
    nodes[1].kill()
    other.wait()
