"""Calls over a real SSH server."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from medmae.jobs.target import Target
from medmae.jobs.transport import connect

pytestmark = pytest.mark.remote


def test_a_call_is_answered_by_the_other_side(ssh_target: Callable[..., Target], sshd) -> None:
    assert connect(ssh_target()).call("probe.describe")["home"] == str(sshd.home)
