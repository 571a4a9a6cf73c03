"""Host keys: asked for, shown, and written down once the user has said yes to their fingerprints."""

from __future__ import annotations

import base64
import binascii
import hashlib
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from medmae.files import write_text
from medmae.jobs import diagnosis, ssh
from medmae.jobs.problems import TargetProblem
from medmae.jobs.target import Target

WAIT_S = 10


@dataclass(frozen=True)
class HostKey:
    """A key that proves a host to be itself.

    Args:
        type: such as "ssh-ed25519".
        fingerprint: SHA-256, as ssh shows it.
        line: for a file of known hosts.
    """

    type: str
    fingerprint: str
    line: str


def scan(target: Target) -> list[HostKey]:
    """The keys that the host shows now. Whether it is the right host, only its administrator can tell.

    Raises:
        TargetProblem: it cannot be asked, or shows none of the keys that were accepted before ("changed host key").
    """
    settings = ssh.settings_of(target)
    for way in ("proxyjump", "proxycommand"):
        if way in settings:
            raise TargetProblem(
                "unknown host key", f"{target.host} is reached through another computer ({settings[way]}), so MedMAE "
                "cannot ask for its key.", f"Connect by hand once: ssh {target.host} Compare the fingerprint with the "
                "one that its administrator tells you, and say yes. MedMAE uses what your own ssh knows.")
    command = ["ssh-keyscan", "-T", str(WAIT_S), "-p", settings["port"], "--", settings["hostname"]]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
                              timeout=6 * WAIT_S, creationflags=ssh.NO_CONSOLE)
    except FileNotFoundError:
        raise ssh.no_client() from None
    except subprocess.TimeoutExpired:
        raise diagnosis.problem_of_ssh(target, "ssh-keyscan timed out") from None
    keys = _parse(done.stdout, ssh.host_key_name(target))
    if not keys:
        raise diagnosis.problem_of_ssh(target, done.stderr.replace("getaddrinfo", "Could not resolve hostname"))
    accepted = _accepted(target)
    if accepted and not accepted & set(keys):
        raise _changed(target)
    return keys


def accept(target: Target, keys: Sequence[HostKey]) -> None:
    """Remember that these keys are the host's, in our own file. Only ever to be called after the user's yes.

    Raises:
        TargetProblem: another key of the same type was accepted before ("changed host key").
    """
    accepted = _accepted(target)
    types = {key.type for key in accepted}
    new = [key for key in keys if key not in accepted]
    if any(key.type in types for key in new):
        raise _changed(target)
    if new:
        file = ssh.known_hosts_file()
        before = file.read_text(encoding="utf-8") if file.exists() else ""
        separator = "\n" if before and not before.endswith("\n") else ""
        write_text(file, before + separator + "".join(f"{key.line}\n" for key in new), private=True)


def _accepted(target: Target) -> set[HostKey]:
    file = ssh.known_hosts_file()
    name = ssh.host_key_name(target)
    return set(_parse(file.read_text(encoding="utf-8"), name, of=name)) if file.exists() else set()


def _parse(text: str, name: str, of: str | None = None) -> list[HostKey]:
    """The keys in lines "host type key", written down for `name`; only those lines whose host is `of`, if given."""
    keys = set()
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 3 and not words[0].startswith(("#", "@")) and of in (None, words[0]):
            try:
                blob = base64.b64decode(words[2], validate=True)
            except binascii.Error:
                continue
            digest = base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")
            keys.add(HostKey(words[1], f"SHA256:{digest}", f"{name} {words[1]} {words[2]}"))
    return sorted(keys, key=lambda key: key.type)


def _changed(target: Target) -> TargetProblem:
    said = (f"REMOTE HOST IDENTIFICATION HAS CHANGED\nOffending key in {ssh.known_hosts_file()}:1")
    return diagnosis.problem_of_ssh(target, said)
