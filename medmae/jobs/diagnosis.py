"""Why a call had no answer, from what ssh and the other side left behind."""

from __future__ import annotations

import re

from medmae.jobs import ssh
from medmae.jobs.problems import ConnectionLost, TargetProblem, odd_answer
from medmae.jobs.target import Target

NOT_FOUND, NOT_A_PROGRAM, FAILED_SSH, OLD_PYTHON = 127, 126, 255, 86
OLD = "MEDMAE-PYTHON-TOO-OLD"
OLDER_STILL = ("no attribute 'buffer'", "nknown option: -I")  # how Python 2 takes our call
FAILURES = {  # in what ssh says: what it means; ssh does not translate its messages
    r"REMOTE HOST IDENTIFICATION HAS CHANGED|REVOKED HOST KEY": "changed host key",
    r"host key is known for|Host key verification failed": "unknown host key",
    r"Could not resolve hostname": "name not resolved",
    r"Permission denied \([\w,@.-]+\)|Too many authentication failures": "key refused",
    r"No route to host|Network is unreachable|Host is down": "no route",
    r"Connection refused": "refused",
    r"timed out": "timed out",
}


def problem_of_failure(target: Target, code: int, said: str, reason: str) -> TargetProblem:
    """What is wrong, after a call that ended without an answer.

    Args:
        target: where the call went.
        code: exit code of ``ssh``, or on this computer of the shell.
        said: all that came on stderr.
        reason: "before" the other side began to answer, "amid" its answer, "silence", or "odd": no answer of ours.
    """
    where = target.host or "this computer"
    last = said.strip().splitlines()[-1].strip(" .\r") if said.strip() else f"exit code {code}"
    if reason == "odd":
        return odd_answer(where)
    if reason == "silence":
        return ConnectionLost("timed out", f"{where} has not answered for too long.",
                              "Try again later. If it stays so, log in there and look: it may be short of memory, or "
                              "one of its disks may hang.")
    if reason == "before" and target.is_remote and code == FAILED_SSH:
        return problem_of_ssh(target, said)
    if reason == "before" and 0 <= code < 128 and code != FAILED_SSH:
        return _problem_of_python(target, where, code, said, last)
    return ConnectionLost("connection lost", f"The connection to {where} ended before the answer: {last}.",
                          "Try again; a job that runs there is not touched by this.")


def problem_of_ssh(target: Target, said: str) -> TargetProblem:
    """What is wrong, after ssh or ssh-keyscan could not connect and `said` why."""
    for pattern, code in FAILURES.items():
        if re.search(pattern, said):
            told = next(line for line in said.splitlines() if re.search(pattern, line)).strip(" @.\r")
            return TargetProblem(code, *_explained(target, code, told, said))
    last = said.strip().splitlines()[-1].strip(" .\r") if said.strip() else "ssh did not say why"
    return ConnectionLost("connection lost", f"The connection to {target.host} failed: {last}.",
                          f"Try again. If it stays so, see what this says: ssh -v {target.host}")


def _explained(target: Target, code: str, told: str, said: str) -> tuple[str, str]:
    """Finding and remedy."""
    host, name = target.host, target.name
    if code == "changed host key":
        return (f"{host} shows another host key than the one that is known. Either it was set up anew, or somebody "
                "stands between you and it and could read and change everything. Nothing was sent.",
                "Ask its administrator for the fingerprint of its new key. Only if they confirm the change, remove "
                f"the old key with: {_removal(target, said)} Then: medmae target check {name}")
    if code == "unknown host key":
        return (f"The host key of {host} is not known yet, so it may be another computer in its place ({told}).",
                f"Run medmae target check {name}: it shows the fingerprint, for you to compare with the one that the "
                "administrator tells you, before you accept it.")
    if code == "name not resolved":
        return (f"No computer of that name is known: {told}.",
                f"Check the spelling of the host of target {name}, and whether you must be in the hospital's network "
                "or VPN to reach it.")
    if code == "key refused":
        return f"{host} does not let you in: {told}.", _how_to_sign_in(target)
    if code == "no route":
        return (f"There is no way to {host}: {told}.",
                "Check this computer's network, and whether you must be in the hospital's network or VPN to reach it.")
    if code == "refused":
        return (f"{host} is there, but no SSH server answers: {told}.",
                "Check the port (in ~/.ssh/config), and ask its administrator whether the SSH server runs and the "
                "firewall lets you through.")
    return (f"{host} does not answer: {told}.",
            "It may be off or asleep, or a firewall drops the connection. Check that it is on, and whether you must be "
            "in the hospital's network or VPN to reach it.")


def _how_to_sign_in(target: Target) -> str:
    master = ssh.master_command(target)
    by_hand = (f"If it wants a password or a second factor, sign in by hand with: {master} MedMAE then goes through "
               "that connection as long as it is open. ") if master else ""
    return (f"Check the user name. MedMAE signs in with a key and never asks for a password: put your public key there "
            f"(ssh-copy-id {target.host}), name it as IdentityFile in ~/.ssh/config, and if it has a passphrase, load "
            f"it with ssh-add. {by_hand}To see what was tried: ssh -v {target.host}")


def _removal(target: Target, said: str) -> str:
    """The line that removes the offending key."""
    file = re.search(r"^Offending .* key in (.+):\d+\r?$", said, re.MULTILINE)
    where = [] if file is None else ["-f", file.group(1)]
    return ssh.shell_line(["ssh-keygen", "-R", ssh.host_key_name(target), *where])


def _problem_of_python(target: Target, where: str, code: int, said: str, last: str) -> TargetProblem:
    remedy = ("Name another interpreter (medmae target add --replace, with --python), or load one in its --preamble, "
              "for example: module load python/3.11")
    if code == OLD_PYTHON and OLD in said:
        version = said.partition(OLD)[2].split()[0]
        return TargetProblem("old Python", f"{target.python} on {where} is Python {version}; 3.11 or newer is needed.",
                             remedy)
    if any(sign in said for sign in OLDER_STILL):
        return TargetProblem("old Python", f"{target.python} on {where} is Python 2; 3.11 or newer is needed.", remedy)
    if code in (NOT_FOUND, NOT_A_PROGRAM):
        return TargetProblem("no Python", f"There is no {target.python} on {where} ({last}).", remedy)
    return TargetProblem("no Python", f"{target.python} on {where} does not start: {last}.",
                         "Log in there and try the same: the preamble, if there is one, then Python. " + remedy)
