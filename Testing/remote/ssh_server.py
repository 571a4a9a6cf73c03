"""A real sshd on loopback for the tests: own keys, own port, own home folder for whoever signs in."""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HOST = "medmae-test"  # in the configuration that MEDMAE_SSH_CONFIG names: a host whose key is known
STRANGER = "medmae-stranger"  # the same server, its key not known

SERVER = """\
ListenAddress 127.0.0.1
Port {port}
HostKey "{folder}/host_key"
AuthorizedKeysFile "{folder}/authorized_keys"
PidFile none
UsePAM no
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
PrintMotd no
PrintLastLog no
MaxStartups 100
MaxSessions 100
LogLevel VERBOSE
SetEnv HOME="{folder}/home" OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE=1
Subsystem sftp internal-sftp
"""

CLIENT = """\
Host {stranger}
    UserKnownHostsFile /dev/null

Host {host}
    UserKnownHostsFile "{folder}/known_hosts"

Host {host} {stranger}
    HostName 127.0.0.1
    Port {port}
    User {user}
    IdentityFile "{folder}/user_key"
    IdentitiesOnly yes
    IdentityAgent none
    GlobalKnownHostsFile /dev/null
"""


def find_sshd() -> str | None:
    """The server program; it is not on the path of ordinary users."""
    return shutil.which("sshd", path=os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin")))


class SshServer:
    """One server.

    Attributes:
        folder: everything of it.
        port: on 127.0.0.1.
        config: the client's configuration file.
        authorized_keys: who may sign in; read anew at every connection.
        home: the home folder of whoever signs in (HOME is set to it).
        log: what sshd says.
    """

    def __init__(self, folder: Path, program: str) -> None:
        self.folder = folder
        self.port = _free_port()
        self.config = folder / "ssh_config"
        self.authorized_keys = folder / "authorized_keys"
        self.home = folder / "home"
        self.log = folder / "sshd.log"
        self._log_began = 0
        self._program = program
        self._process: subprocess.Popen[bytes] | None = None
        self.home.mkdir()
        for name in ("host_key", "user_key"):
            make_key(folder / name)
        shutil.copy(folder / "user_key.pub", self.authorized_keys)
        self.known_hosts_line = f"[127.0.0.1]:{self.port} {(folder / 'host_key.pub').read_text()}"
        (folder / "known_hosts").write_text(self.known_hosts_line)
        facts = {"folder": folder, "port": self.port, "user": getpass.getuser(), "host": HOST, "stranger": STRANGER}
        (folder / "sshd_config").write_text(SERVER.format(**facts))
        self.config.write_text(CLIENT.format(**facts))

    def start(self) -> None:
        """Listen; returns when connections are taken."""
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd insists, and without systemd nobody makes it
        self._log_began = len(self.log.read_text()) if self.log.exists() else 0
        self._process = subprocess.Popen(
            [self._program, "-D", "-f", self.folder / "sshd_config", "-E", self.log],
            stdin=subprocess.DEVNULL, start_new_session=True)
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"sshd does not start: {self.log.read_text()}") from None
                time.sleep(0.02)

    def cut(self) -> None:
        """End every connection, as a network that fails; what runs on the other side is not touched."""
        assert self._process is not None
        for pid in _servers_below(self._process.pid):
            _kill(pid)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Nothing goes through the connections there are, and none ends."""
        assert self._process is not None
        connections = _servers_below(self._process.pid)
        for pid in connections:
            _kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in connections:
                _kill(pid, signal.SIGCONT)

    def stop(self) -> None:
        """Refuse new connections and end those there are."""
        if self._process is not None:
            connections = _servers_below(self._process.pid)
            self._process.kill()
            self._process.wait()
            self._process = None
            for pid in connections:
                _kill(pid)

    def logins(self) -> int:
        """How often somebody was let in since it last started."""
        return self.log.read_text()[self._log_began:].count("Accepted publickey")

    def connections(self) -> int:
        """How many processes of sshd serve connections now."""
        assert self._process is not None
        return len(_servers_below(self._process.pid))


def make_key(file: Path) -> None:
    """A key pair without a passphrase: `file` and `file`.pub."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "medmae tests", "-f", file], check=True)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def _servers_below(pid: int) -> list[int]:
    """The processes of sshd that descend from `pid`, without the commands that they run."""
    parents = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = status.read_text().partition(" (")[2].rpartition(") ")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if name.startswith("sshd"):
            parents[int(status.parent.name)] = int(rest.split()[1])
    found = [pid]
    for ancestor in found:
        found += [child for child, parent in parents.items() if parent == ancestor]
    return found[1:]


def _kill(pid: int, how: signal.Signals = signal.SIGKILL) -> None:
    try:
        os.kill(pid, how)
    except ProcessLookupError:
        return
