"""Calls over a real SSH server."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ssh_server import HOST, STRANGER, SshServer, make_key

from medmae.jobs import ssh
from medmae.jobs.problems import ConnectionLost, TargetProblem
from medmae.jobs.target import Target
from medmae.jobs.transport import connect

pytestmark = pytest.mark.remote


def test_a_call_is_answered_by_the_other_side(ssh_target: Callable[..., Target], sshd: SshServer) -> None:
    assert connect(ssh_target()).call("probe.describe")["home"] == str(sshd.home)


def test_later_calls_go_through_the_connection_of_the_first(ssh_target: Callable[..., Target],
                                                            sshd: SshServer) -> None:
    transport = connect(ssh_target())
    for _ in range(3):
        transport.call("probe.describe")
    assert sshd.logins() == 1


def test_a_connection_that_the_user_has_opened_is_used(ssh_target: Callable[..., Target], sshd: SshServer,
                                                       tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "config"
    with tempfile.TemporaryDirectory(dir="/tmp") as short:  # for the path of a socket
        own.write_text(f"ControlPath {short}/%C\n{sshd.config.read_text()}")
        monkeypatch.setenv("MEDMAE_SSH_CONFIG", str(own))
        subprocess.run(["ssh", "-F", own, "-M", "-f", "-N", HOST], check=True)
        sshd.authorized_keys.write_text("")  # nobody gets in any more but through that connection
        assert connect(ssh_target()).call("probe.describe")["python"]
        sshd.cut()


def test_signing_in_by_hand_opens_the_way_for_calls(ssh_target: Callable[..., Target], sshd: SshServer) -> None:
    keys = sshd.authorized_keys.read_text()
    sshd.authorized_keys.write_text("")
    with pytest.raises(TargetProblem) as raised:
        connect(ssh_target()).call("probe.describe")
    master = ssh.master_command(ssh_target())
    assert master is not None and master in raised.value.remedy
    sshd.authorized_keys.write_text(keys)  # as a second factor would
    subprocess.run(shlex.split(master), check=True)
    sshd.authorized_keys.write_text("")
    connect(ssh_target()).call("probe.describe")


def test_whoever_trusts_another_host_key_does_not_share_the_connection(
        ssh_target: Callable[..., Target], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = ssh.master_command(ssh_target())
    monkeypatch.setenv("MEDMAE_HOME", str(tmp_path / "another home"))
    assert ssh.master_command(ssh_target()) != one
    connect(ssh_target()).call("probe.describe")
    with pytest.raises(TargetProblem, match="not known yet"):
        connect(ssh_target(host=STRANGER)).call("probe.describe")


def test_the_socket_of_a_connection_is_ours_alone_and_its_path_short(ssh_target: Callable[..., Target]) -> None:
    connect(ssh_target()).call("probe.describe")
    folder = Path(f"/tmp/medmae-{os.getuid()}")
    assert folder.stat().st_mode & 0o777 == 0o700
    assert any(socket.is_socket() for socket in folder.iterdir())
    assert all(len(str(socket)) + 17 < 104 for socket in folder.iterdir())


def test_greetings_of_login_shells_are_passed_over(ssh_target: Callable[..., Target], sshd: SshServer) -> None:
    (sshd.home / ".bashrc").write_text("head -c 200000 /dev/urandom; echo 'Permission denied (joke)' >&2\n")
    try:
        assert connect(ssh_target()).call("probe.describe")["home"] == str(sshd.home)
    finally:
        (sshd.home / ".bashrc").unlink()


def test_a_forced_command_that_greets_is_no_obstacle(ssh_target: Callable[..., Target], sshd: SshServer) -> None:
    forced = 'command="echo Welcome to the cluster; eval $SSH_ORIGINAL_COMMAND"'  # as carelessly as one meets it
    sshd.authorized_keys.write_text(f"{forced} {sshd.authorized_keys.read_text()}")
    assert connect(ssh_target()).call("probe.describe")["home"] == str(sshd.home)


def test_a_key_that_is_not_let_in_is_told(ssh_target: Callable[..., Target], sshd: SshServer, tmp_path: Path) -> None:
    make_key(tmp_path / "another")
    sshd.authorized_keys.write_text((tmp_path / "another.pub").read_text())
    problem = problem_of(ssh_target())
    assert problem.code == "key refused"
    assert "does not let you in" in problem.finding and "Permission denied (publickey)" in problem.finding
    assert "ssh-add" in problem.remedy and "second factor" in problem.remedy


def test_a_server_that_does_not_listen_is_told(ssh_target: Callable[..., Target], sshd: SshServer) -> None:
    sshd.stop()
    problem = problem_of(ssh_target())
    assert problem.code == "refused" and problem.may_pass
    assert str(sshd.port) in problem.finding


def test_a_name_that_nobody_knows_is_told(ssh_target: Callable[..., Target]) -> None:
    problem = problem_of(ssh_target(host="no-such-host.invalid"))
    assert problem.code == "name not resolved"
    assert "VPN" in problem.remedy


def test_a_host_that_never_answers_is_told(ssh_target: Callable[..., Target], tmp_path: Path,
                                           monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    monkeypatch.setattr(ssh, "OPTIONS", ("ConnectTimeout=1", *ssh.OPTIONS))  # the first of an option counts
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        config = tmp_path / "config"
        config.write_text(f"Host silent\n  HostName 127.0.0.1\n  Port {silent.getsockname()[1]}\n")
        monkeypatch.setenv("MEDMAE_SSH_CONFIG", str(config))
        assert problem_of(ssh_target(host="silent")).code == "timed out"


@pytest.mark.parametrize(("changes", "code", "finding"), [
    ({"python": "/nowhere/python3"}, "no Python", "There is no /nowhere/python3"),
    ({"preamble": ("module() { :; }; exit 4",)}, "no Python", "exit code 4"),
])
def test_a_missing_interpreter_there_is_told(ssh_target: Callable[..., Target], changes: dict[str, Any], code: str,
                                             finding: str) -> None:
    problem = problem_of(ssh_target(**changes))
    assert problem.code == code and finding in problem.finding


def test_an_old_interpreter_there_is_told(ssh_target: Callable[..., Target], tmp_path: Path) -> None:
    old = tmp_path / "python3"
    real = ssh_target().python
    old.write_text(f"#!/bin/sh\nexec {real} -c \"import sys; sys.version_info = (3, 9, 2)\n$3\"\n")
    old.chmod(0o755)
    problem = problem_of(ssh_target(python=str(old)))
    assert problem.code == "old Python" and "is Python 3.9" in problem.finding


def test_a_damaged_configuration_is_told(ssh_target: Callable[..., Target], tmp_path: Path,
                                         monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "config"
    config.write_text("Host x\n  NoSuchOption yes\n")
    monkeypatch.setenv("MEDMAE_SSH_CONFIG", str(config))
    problem = problem_of(ssh_target())
    assert problem.code == "ssh configuration" and "nosuchoption" in problem.finding.lower()


def test_without_a_client_the_remedy_is_to_install_it(ssh_target: Callable[..., Target],
                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    ssh._settings.cache_clear()
    assert problem_of(ssh_target()).code == "no ssh"


@pytest.mark.parametrize("when", ["while bytes go up", "while it is waited for"])
def test_a_connection_that_breaks_in_the_middle_is_told_as_that(ssh_target: Callable[..., Target], sshd: SshServer,
                                                                when: str) -> None:
    moved = threading.Event()

    def pieces() -> Iterator[bytes]:
        for number in range(1000 if when == "while bytes go up" else 5):
            yield b"x" * 100_000
            time.sleep(0.005)
            if number == 4:
                moved.set()
        while when != "while bytes go up" and sshd.connections():
            time.sleep(0.01)

    threading.Thread(target=lambda: (moved.wait(), sshd.cut())).start()
    with pytest.raises(ConnectionLost) as raised:
        connect(ssh_target()).call("code.unpack", {"folder": "x", "sha256": "x"}, send=pieces())
    assert raised.value.code == "connection lost" and raised.value.may_pass
    connect(ssh_target()).call("probe.describe")


def test_a_network_that_swallows_everything_is_noticed(ssh_target: Callable[..., Target], sshd: SshServer) -> None:
    transport = connect(ssh_target())
    transport.call("probe.describe")
    with sshd.frozen(), pytest.raises(ConnectionLost) as raised:
        transport.call("probe.describe", timeout_s=1)
    assert raised.value.code == "timed out" and raised.value.may_pass
    transport.call("probe.describe")


@pytest.mark.parametrize("how", ["open to all", "a link", "a file"])
def test_a_folder_for_sockets_that_is_not_ours_alone_is_not_used(ssh_target: Callable[..., Target], tmp_path: Path,
                                                                 monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    folder = tmp_path / "sockets"
    if how == "a file":
        folder.touch(mode=0o600)
    elif how == "a link":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        folder.symlink_to(tmp_path / "elsewhere")
    else:
        folder.mkdir()
        folder.chmod(0o777)
    monkeypatch.setattr(ssh, "SOCKETS", str(folder))
    assert not any("Control" in option for option in ssh.ssh_options(ssh_target()))
    connect(ssh_target()).call("probe.describe")


def test_hostile_names_stay_names_on_the_other_side(ssh_target: Callable[..., Target], sshd: SshServer, hostile: str,
                                                    tmp_path: Path) -> None:
    folder = tmp_path / hostile
    assert connect(ssh_target()).call("probe.make_folder", {"folder": str(folder)}) == {"folder": str(folder)}
    python = folder / "python3"
    python.symlink_to(ssh_target().python)
    name = hostile.replace("\n", " ")
    folder.rename(tmp_path / name)
    target = ssh_target(python=str(tmp_path / name / "python3"), preamble=(f"echo {shlex.quote(name)}", ": $(true)"))
    connect(target).call("probe.describe")
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert not list(sshd.home.glob("pwned*"))


def test_a_home_folder_with_a_hostile_name_is_no_obstacle(ssh_target: Callable[..., Target], tmp_path: Path,
                                                          hostile: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDMAE_HOME", str(tmp_path / hostile))
    assert connect(ssh_target()).call("probe.describe")["python"]


def test_the_command_line_of_ssh_is_the_same_for_every_call(ssh_target: Callable[..., Target]) -> None:
    seen: list[bytes] = []

    def look(*_: Any) -> Iterator[bytes]:
        own = os.getpid()
        for status in Path("/proc").glob("[0-9]*/stat"):
            try:
                if int(status.read_text().rpartition(")")[2].split()[1]) == own:
                    seen.append((status.parent / "cmdline").read_bytes())
            except (FileNotFoundError, ProcessLookupError):
                continue
        yield b"bytes"

    for folder in ("/private/name-of-a-patient", "/private/another"):
        with pytest.raises(Exception):  # noqa: B017, PT011 - how it ends is not the matter here
            connect(ssh_target()).call("code.unpack", {"folder": folder}, send=look())
    commands = {command for command in seen if command.startswith(b"ssh\0")}
    assert len(commands) == 1 and b"private" not in commands.pop()


def test_rsync_goes_the_same_way(ssh_target: Callable[..., Target], tmp_path: Path, hostile: str,
                                 monkeypatch: pytest.MonkeyPatch, sshd: SshServer) -> None:
    monkeypatch.setenv("MEDMAE_HOME", str(tmp_path / hostile.replace("\n", " ")))
    connect(ssh_target()).call("probe.describe")
    (tmp_path / "file").write_text("content")
    subprocess.run(["rsync", "--secluded-args", "--rsh", ssh.rsync_shell(ssh_target()), str(tmp_path / "file"),
                    f"{HOST}:{tmp_path}/copy"], check=True, timeout=20)
    assert (tmp_path / "copy").read_text() == "content"
    assert sshd.logins() == 1


def test_a_killed_client_leaves_the_other_side_for_a_new_one(ssh_target: Callable[..., Target]) -> None:
    process = ssh.begin_over_ssh(ssh_target(), "sleep 30")
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert connect(ssh_target()).call("probe.describe")["python"]


def problem_of(target: Target) -> TargetProblem:
    """What is wrong with the target."""
    with pytest.raises(TargetProblem) as raised:
        connect(target).call("probe.describe")
    print(raised.value)
    return raised.value
