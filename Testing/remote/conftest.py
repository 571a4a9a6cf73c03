"""Real servers for the tests: one sshd a test run."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from slurm_cluster import slurm, slurm_of_the_run  # noqa: F401 - fixtures
from ssh_server import HOST, SshServer, find_sshd

from medmae.jobs.target import Target


@pytest.fixture(scope="session")
def sshd_of_the_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    program = find_sshd()
    if program is None:
        pytest.skip("needs sshd; on Debian and Ubuntu: make system, as root")
    server = SshServer(tmp_path_factory.mktemp("sshd"), program)
    server.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEDMAE_SSH_CONFIG", str(server.config))
        yield server
    server.stop()


@pytest.fixture
def sshd(sshd_of_the_run: SshServer) -> Iterator[SshServer]:
    """The sshd of this test run, listening; what a test changes about it is put right afterwards."""
    keys = sshd_of_the_run.authorized_keys.read_text()
    yield sshd_of_the_run
    sshd_of_the_run.authorized_keys.write_text(keys)
    sshd_of_the_run.stop()
    sshd_of_the_run.start()


@pytest.fixture
def ssh_target(sshd: SshServer, tmp_path: Path) -> Callable[..., Target]:
    """Makes targets on the sshd of this test run that use this Python as it is."""
    def make(**changes: Any) -> Target:
        facts: dict[str, Any] = {"name": "loopback", "kind": "ssh", "host": HOST, "folder": str(tmp_path / "there"),
                                 "environment": "python", "python": sys.executable, "gpus": 0}
        return Target(**{**facts, **changes})
    return make


@pytest.fixture
def hostile() -> str:
    """A name of a file or folder that every careless shell line trips over."""
    return "-rf ; rm -rf x $(touch pwned) `touch pwned` 'one' \"two\"\nline \\ & | < > * ? ~ # % {} ä 肝"
