"""The plain OpenSSH client, so that everything in the user's own configuration works: jump hosts, agents, hardware
keys, and connections that the user has opened with a password or a second factor."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import shlex
import stat
import subprocess
from pathlib import Path

from medmae.home import home
from medmae.jobs.problems import TargetProblem
from medmae.jobs.target import Target

OPTIONS = (
    "BatchMode=yes", "StrictHostKeyChecking=yes",  # nobody is there to answer, and no key is ever accepted unseen
    "ConnectTimeout=15", "ConnectionAttempts=1",
    "ServerAliveInterval=15", "ServerAliveCountMax=3",  # a dead connection is noticed after 45 s
    "ForwardAgent=no", "ForwardX11=no", "ClearAllForwardings=yes", "RequestTTY=no",
    "PermitLocalCommand=no", "RemoteCommand=none", "LogLevel=INFO",
)
KEEP_OPEN_S = 300  # how long a connection waits for the next call
ON_WINDOWS = os.name == "nt"
NO_CONSOLE = getattr(subprocess, "CREATE_NO_WINDOW", 0)  # Windows opens one for every program otherwise
SOCKETS = "/tmp/medmae-{user}"  # not TMPDIR, whose path may be too long for sockets; ours alone is made sure of


def begin_over_ssh(target: Target, script: str) -> subprocess.Popen[bytes]:
    """Start lines of ``sh`` on the target, whatever the login shell there is.

    Raises:
        TargetProblem: there is no ssh client, or its configuration is damaged.
    """
    assert target.host is not None
    command = ["ssh", *ssh_options(target), "--", target.host, f"exec sh -c 'eval \"$(printf \"{_plain(script)}\")\"'"]
    try:
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                start_new_session=True, creationflags=NO_CONSOLE, env=environment())
    except FileNotFoundError:
        raise no_client() from None


def _plain(script: str) -> str:
    """Text for ``printf`` without what any login shell (csh and fish among them) treats specially within quotes."""
    return "".join(letter if letter.isascii() and letter.isprintable() and letter not in "\\'\"$`!%"
                   else "".join(f"\\{byte:03o}" for byte in letter.encode()) for letter in script)


def rsync_shell(target: Target) -> str:
    """The remote shell for ``rsync --rsh``, quoted as rsync splits it: only doubling a quote escapes it."""
    return " ".join("'" + word.replace("'", "''") + "'" for word in ("ssh", *ssh_options(target)))


def ssh_options(target: Target) -> list[str]:
    """The options of every connection to the target, before the host."""
    settings = settings_of(target)
    options = [*configuration(), "-T"]
    for option in (*OPTIONS, f"GlobalKnownHostsFile={_known_hosts_files(settings)}", *_sharing(target, settings)):
        options += ["-o", option]
    return options


def host_key_name(target: Target) -> str:
    """The name under which ssh looks for the host's keys."""
    settings = settings_of(target)
    if "hostkeyalias" in settings:
        return settings["hostkeyalias"]
    host = settings["hostname"].lower()
    return host if settings["port"] == "22" else f"[{host}]:{settings['port']}"


def configuration() -> list[str]:
    """The options that name another configuration file than the user's, where the environment does."""
    file = os.environ.get("MEDMAE_SSH_CONFIG")
    return ["-F", file] if file else []


def environment() -> dict[str, str]:
    """Of ssh: no window may ask for a passphrase; a program waits on the other side."""
    return {**os.environ, "SSH_ASKPASS_REQUIRE": "never"}


def known_hosts_file() -> Path:
    """The host keys that the user has accepted in MedMAE; those in the user's own files count as well."""
    return home() / "known_hosts"


def master_command(target: Target) -> str | None:
    """What the user types to sign in by hand, with a password or a second factor, for our connections to go through.

    None where connections cannot be shared (Windows).
    """
    assert target.host is not None
    settings = settings_of(target)
    path = settings.get("controlpath") or _control_path(target)
    return None if path is None else shell_line(["ssh", *configuration(), "-M", "-S", path, "-f", "-N", target.host])


def no_client() -> TargetProblem:
    """There is no OpenSSH on this computer."""
    return TargetProblem("no ssh", "There is no OpenSSH client on this computer.",
                         "Install it (Debian, Ubuntu: apt install openssh-client; Windows: Settings, Optional "
                         "features).")


def shell_line(words: list[str]) -> str:
    """A command as the user can type it on this computer."""
    return subprocess.list2cmdline(words) if ON_WINDOWS else shlex.join(words)


def settings_of(target: Target) -> dict[str, str]:
    """What ``ssh -G`` says about the target's host: lower-case keywords with their values.

    Raises:
        TargetProblem: there is no ssh client, or its configuration is damaged.
    """
    assert target.host is not None
    own = os.environ.get("MEDMAE_SSH_CONFIG")
    file = Path(own) if own else Path.home() / ".ssh" / "config"
    return _settings(target.host, own, file.stat().st_mtime_ns if file.exists() else 0)


@functools.lru_cache(maxsize=64)
def _settings(host: str, _configuration: str | None, _changed: int) -> dict[str, str]:
    try:
        done = subprocess.run(["ssh", *configuration(), "-G", "--", host], stdin=subprocess.DEVNULL,
                              capture_output=True, timeout=30, creationflags=NO_CONSOLE, env=environment())
    except FileNotFoundError:
        raise no_client() from None
    except subprocess.TimeoutExpired:
        raise TargetProblem("ssh configuration", f"ssh takes too long to read its configuration for {host}.",
                            "Look for 'Match exec' lines in ~/.ssh/config that hang.") from None
    said = done.stderr.decode(errors="replace").strip()
    if done.returncode:
        raise TargetProblem("ssh configuration", f"ssh cannot use its configuration for {host}: {said}",
                            "Mend the file that it names (or the host of this target).")
    pairs = (line.partition(" ") for line in done.stdout.decode(errors="replace").splitlines())
    return {key: value for key, _, value in pairs if value not in ("", "none")}


def _known_hosts_files(settings: dict[str, str]) -> str:
    """Ours, then the system's. Ours is given as one of the system's because those of the user then stay as they are:
    ``ssh -G`` does not quote them, so one with a space in its path could not be given again."""
    ours = str(known_hosts_file().absolute())
    quoted = ours.replace(os.sep, "/") if ON_WINDOWS else ours.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{quoted}" {settings.get("globalknownhostsfile", "")}'.rstrip()


def _sharing(target: Target, settings: dict[str, str]) -> list[str]:
    """Sign in once and let all calls go through that connection, unless the user has arranged for that."""
    path = None if "controlpath" in settings else _control_path(target)
    return [] if path is None else ["ControlMaster=auto", f"ControlPath={path}", f"ControlPersist={KEEP_OPEN_S}"]


def _control_path(target: Target) -> str | None:
    """A socket for each host, and for each way to write it: another alias may trust other host keys.

    The path must stay under 104 bytes with the 40 of %C and 17 that ssh adds. None where there is no folder that is
    ours alone, for whoever can reach the socket is signed in.
    """
    if ON_WINDOWS:
        return None
    folder = Path(SOCKETS.format(user=os.getuid()))
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
        return None
    trust = "\0".join((str(known_hosts_file()), os.environ.get("MEDMAE_SSH_CONFIG", ""), str(target.host)))
    name = hashlib.sha256(trust.encode("utf-8", "surrogateescape")).hexdigest()[:8]
    return f"{folder}/{name}-%C"
