"""The plain OpenSSH client, so that everything in the user's own configuration works."""

from __future__ import annotations

import os
import shlex
import subprocess

from medmae.jobs.problems import ConnectionLost, TargetProblem
from medmae.jobs.target import Target


def ssh_command(target: Target) -> list[str]:
    """``ssh`` with our options, up to and including the host."""
    assert target.host is not None
    own = os.environ.get("MEDMAE_SSH_CONFIG")  # instead of the user's
    return ["ssh", *(("-F", own) if own else ()), "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes", "-T", "--",
            target.host]


def begin_over_ssh(target: Target, script: str) -> subprocess.Popen[bytes]:
    """Start a line of ``sh`` on the target, whatever the login shell there is."""
    command = [*ssh_command(target), f"exec sh -c {shlex.quote(script)}"]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            start_new_session=True)


def problem_of_failure(target: Target, code: int, said: str, reason: str) -> TargetProblem:
    """What is wrong, from the exit code of a call and what it said on stderr."""
    return ConnectionLost("connection lost", f"No answer from {target.name} ({reason}, exit code {code}): {said}", "")
