"""``medmae target`` with a real SSH server: what is wrong with a target, found and told with its remedy."""

from __future__ import annotations

import itertools
import json
import os
import pty
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from slurm_cluster import SlurmCluster
from ssh_server import HOST, STRANGER, SshServer, make_key

from medmae.cli.app import run
from medmae.jobs import known_hosts, ssh
from medmae.jobs.check import Check
from medmae.jobs.checks import check, findings
from medmae.jobs.problems import TargetProblem
from medmae.jobs.target import Target
from medmae.jobs.targets import add_target
from medmae.jobs.transport import connect

pytestmark = pytest.mark.remote

CARD = "NVIDIA A100-SXM4-40GB, 40960, {driver}"
SMI = """#!/bin/sh
case "$1" in
  *compute_cap) {capability} ;;
  *) {cards} ;;
esac
"""


@pytest.fixture
def stranger(ssh_target: Callable[..., Target], tmp_path: Path) -> Target:
    """A target whose host key nobody knows; libraries are not looked at, which takes long."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    (wheels / "torch-2.13.0-cp311-cp311-manylinux_2_28_x86_64.whl").touch()
    target = ssh_target(name="stranger", host=STRANGER, environment="venv", wheelhouse=str(wheels))
    add_target(target)
    return target


@pytest.fixture
def nvidia_smi(tmp_path: Path) -> Callable[..., tuple[str, ...]]:
    """The preamble of a computer whose graphics cards are as told: stands in for hardware that is not there."""
    def make(cards: str, capability: str = "8.0") -> tuple[str, ...]:
        folder = tmp_path / "programs"
        folder.mkdir(exist_ok=True)
        program = folder / "nvidia-smi"
        lines = "; ".join(f"echo '{line}'" for line in cards.splitlines())
        program.write_text(SMI.format(cards=lines, capability=f"echo {capability}" if capability else "exit 2"))
        program.chmod(0o755)
        return (f"PATH={folder}:$PATH",)
    return make


def found(target: Target, name: str) -> Check:
    """The finding of that name; what would follow is not looked at."""
    return next(one for one in findings(target) if one.name == name)


def test_a_ready_target_has_nothing_to_mend(ssh_target: Callable[..., Target], capsys: pytest.CaptureFixture) -> None:
    add_target(ssh_target())
    assert run(["target", "check", "loopback"]) == 0
    text = capsys.readouterr().out
    assert "failed" not in text and text.endswith("loopback is ready for jobs.\n")
    for name in ("connection", "clock", "Python", "folder", "GPU", "libraries", "rsync"):
        assert f"ok        {name}: " in text


def test_an_unknown_host_key_is_shown_refused_and_then_accepted_by_its_fingerprint(
        stranger: Target, sshd: SshServer, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(TargetProblem) as raised:
        connect(stranger).call("probe.describe")
    assert raised.value.code == "unknown host key"
    shown = subprocess.run(["ssh-keygen", "-lf", sshd.folder / "host_key.pub"], capture_output=True, text=True).stdout
    fingerprint = shown.split()[1]

    assert run(["target", "check", "stranger"]) == 1
    assert fingerprint in capsys.readouterr().out
    assert not ssh.known_hosts_file().exists()
    assert run(["target", "check", "stranger", "--accept-host-key", "SHA256:another"]) == 1
    assert "Nothing was accepted" in capsys.readouterr().err and not ssh.known_hosts_file().exists()

    for _ in range(2):
        assert run(["target", "check", "stranger", "--accept-host-key", fingerprint]) == 0
    assert ssh.known_hosts_file().read_text().splitlines() == [" ".join(sshd.known_hosts_line.split()[:3])]
    assert ssh.known_hosts_file().stat().st_mode & 0o777 == 0o600
    connect(stranger).call("probe.describe")


@pytest.mark.parametrize(("answer", "is_accepted"), [(b"y\n", True), (b"n\n", False), (b"\n", False)])
def test_at_a_terminal_the_fingerprint_is_accepted_only_by_a_yes(stranger: Target, sshd: SshServer, answer: bytes,
                                                                 is_accepted: bool) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen([sys.executable, "-m", "medmae.cli", "target", "check", "stranger"], stdin=theirs,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    os.write(ours, answer)
    output, _ = process.communicate(timeout=120)
    os.close(theirs)
    os.close(ours)
    assert b"SHA256:" in output and b"administrator" in output
    assert ssh.known_hosts_file().exists() == is_accepted
    assert process.returncode == (0 if is_accepted else 1)


def test_a_changed_host_key_is_a_warning_of_an_attack_and_cannot_be_accepted(
        stranger: Target, sshd: SshServer, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    make_key(tmp_path / "old")
    old = f"[127.0.0.1]:{sshd.port} {(tmp_path / 'old.pub').read_text()}"
    ssh.known_hosts_file().write_text(old)
    shown = check(stranger)
    assert [one.code for one in shown] == ["changed host key"]
    assert "stands between you and it" in shown[0].finding

    new = known_hosts._parse(sshd.known_hosts_line, known_hosts.ssh.host_key_name(stranger))
    for attempt in (lambda: known_hosts.scan(stranger), lambda: known_hosts.accept(stranger, new)):
        with pytest.raises(TargetProblem) as raised:
            attempt()
        assert raised.value.code == "changed host key"
    assert run(["target", "check", "stranger", "--accept-host-key", new[0].fingerprint]) == 1
    assert ssh.known_hosts_file().read_text() == old

    removal = shown[0].remedy.partition("remove the old key with: ")[2].partition(" Then:")[0]
    subprocess.run(["sh", "-c", removal], check=True, capture_output=True)  # as the user would
    assert run(["target", "check", "stranger", "--accept-host-key", new[0].fingerprint]) == 0


def test_a_key_that_changed_in_the_users_own_file_is_told_with_that_file(
        ssh_target: Callable[..., Target], sshd: SshServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_key(tmp_path / "old")
    own = tmp_path / "my known hosts"
    own.write_text(f"[127.0.0.1]:{sshd.port} {(tmp_path / 'old.pub').read_text()}")
    config = tmp_path / "config"
    config.write_text(f'Host {HOST}\n  UserKnownHostsFile "{own}"\n{sshd.config.read_text()}')
    monkeypatch.setenv("MEDMAE_SSH_CONFIG", str(config))
    problem = check(ssh_target())[0]
    assert problem.code == "changed host key" and str(own) in problem.remedy


def test_a_host_behind_another_is_left_to_the_users_own_ssh(ssh_target: Callable[..., Target], sshd: SshServer,
                                                            tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "config"
    config.write_text(f"Host {STRANGER}\n  ProxyJump {HOST}\n{sshd.config.read_text()}")
    monkeypatch.setenv("MEDMAE_SSH_CONFIG", str(config))
    shown = check(ssh_target(host=STRANGER))
    assert [one.code for one in shown] == ["unknown host key"]
    assert f"ssh {STRANGER}" in shown[0].remedy
    assert found(ssh_target(host=HOST), "connection").outcome == "ok"

    behind = tmp_path / "behind"
    behind.write_text(f"Host behind\n  ProxyJump {HOST}\n  HostName 127.0.0.1\n  HostKeyAlias [127.0.0.1]:{sshd.port}\n"
                      f"  Port {sshd.port}\n  UserKnownHostsFile {sshd.folder}/known_hosts\n"
                      f"  IdentityFile {sshd.folder}/user_key\n{sshd.config.read_text()}")
    monkeypatch.setenv("MEDMAE_SSH_CONFIG", str(behind))
    assert connect(ssh_target(host="behind")).call("probe.describe")["home"] == str(sshd.home)


def test_an_alias_of_the_host_key_is_honoured(ssh_target: Callable[..., Target], sshd: SshServer, tmp_path: Path,
                                              monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "config"
    config.write_text(f"Host {STRANGER}\n  HostKeyAlias cluster\n{sshd.config.read_text()}")
    monkeypatch.setenv("MEDMAE_SSH_CONFIG", str(config))
    target = ssh_target(host=STRANGER)
    keys = known_hosts.scan(target)
    known_hosts.accept(target, keys)
    assert ssh.known_hosts_file().read_text().startswith("cluster ssh-ed25519 ")
    connect(target).call("probe.describe")


@pytest.mark.parametrize(("changes", "names", "code"), [
    ({"python": "/nowhere/python3"}, ["connection", "Python"], "no Python"),
    ({"host": "no-such-host.invalid"}, ["connection"], "name not resolved"),
])
def test_what_cannot_be_known_after_a_failure_is_left_out(ssh_target: Callable[..., Target], changes: dict[str, Any],
                                                          names: list[str], code: str) -> None:
    shown = check(ssh_target(**changes))
    assert [one.name for one in shown] == names
    assert shown[-1].code == code and shown[-1].remedy


@pytest.mark.parametrize(("driver", "gpus", "capability", "name", "outcome", "code"), [
    ("580.65.06", 2, "8.0 8.0", "driver", "ok", ""),
    ("575.57.08", 2, "8.0 8.0", "driver", "failed", "old driver"),
    ("580.65.06", 4, "8.0 8.0", "GPU", "failed", "no GPU"),
    ("580.65.06", 1, "7.0 7.0", "GPU generation", "failed", "no GPU"),
    ("470.57.02", 1, "", "driver", "failed", "old driver"),
])
def test_cards_and_their_driver_are_judged_by_what_the_pinned_torch_needs(
        ssh_target: Callable[..., Target], nvidia_smi: Callable[..., tuple[str, ...]], driver: str, gpus: int,
        capability: str, name: str, outcome: str, code: str) -> None:
    preamble = nvidia_smi("\n".join([CARD.format(driver=driver)] * 2), capability)
    shown = found(ssh_target(environment="venv", gpus=gpus, preamble=preamble, wheelhouse="none"), name)
    assert (shown.outcome, shown.code) == (outcome, code)


def test_a_driver_that_does_not_answer_is_no_gpu(ssh_target: Callable[..., Target], tmp_path: Path) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed because it could not communicate with the driver.'\n"
                       "exit 9\n")
    program.chmod(0o755)
    shown = found(ssh_target(gpus=1, preamble=(f"PATH={tmp_path}:$PATH",)), "GPU")
    assert (shown.outcome, shown.code) == ("failed", "no GPU") and "could not communicate" in shown.finding


@pytest.mark.parametrize(("torch", "cuda", "code", "finding"), [
    ("2.13.0", None, "libraries", "torch 2.13.0 is built without CUDA"),
    ("2.9.1", "12.8", "libraries", "torch is 2.9.1, needed is 2.8 or newer, but not 2.9"),
    ("2.7.0", "12.8", "libraries", "torch is 2.7.0"),
    ("2.10.0", "13.0", "old driver", "the NVIDIA driver is 570.1; torch for CUDA 13.0 (CUDA 13.x) needs 580"),
])
def test_libraries_of_a_python_of_ones_own_are_judged(
        ssh_target: Callable[..., Target], nvidia_smi: Callable[..., tuple[str, ...]], tmp_path: Path, torch: str,
        cuda: str | None, code: str, finding: str) -> None:
    """A torch that says of itself what a CUDA build would: there are no cards here."""
    (tmp_path / f"torch-{torch}.dist-info").mkdir()
    (tmp_path / f"torch-{torch}.dist-info" / "METADATA").write_text(f"Metadata-Version: 2.1\nName: torch\n"
                                                                    f"Version: {torch}\n")
    (tmp_path / "torch.py").write_text(f"__version__ = '{torch}'\nclass version: cuda = {cuda!r}\n"
                                       "class cuda:\n    is_available = staticmethod(lambda: False)\n")
    for name in ("monai", "SimpleITK", "scipy"):  # quick to import
        (tmp_path / f"{name}.py").write_text("")
    target = ssh_target(gpus=1, preamble=(*nvidia_smi(CARD.format(driver="570.1")), f"export PYTHONPATH={tmp_path}"))
    shown = next(one for one in findings(target) if one.code == code)
    assert finding in shown.finding


def test_a_connection_that_is_lost_between_two_looks_is_told(ssh_target: Callable[..., Target],
                                                             sshd: SshServer) -> None:
    looking = findings(ssh_target())
    shown = [next(looking)]
    sshd.stop()
    shown += looking
    assert shown[0].outcome == "ok" and (shown[-1].outcome, shown[-1].code) == ("failed", "refused")


def test_a_container_that_does_not_start_is_told(ssh_target: Callable[..., Target]) -> None:
    shown = found(ssh_target(container=("apptainer", "exec", "/no image.sif")), "libraries")
    assert shown.outcome == "failed" and "apptainer" in shown.finding


def test_a_clock_that_is_off_is_a_warning(ssh_target: Callable[..., Target], monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    real = time.time
    monkeypatch.setattr("medmae.jobs.checks.time.time", lambda: real() - 600)
    shown = found(ssh_target(), "clock")
    assert shown.outcome == "warning" and "10 minutes ahead" in shown.finding


def test_a_folder_that_cannot_be_written_is_told(ssh_target: Callable[..., Target], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    shown = found(ssh_target(folder=str(tmp_path / "file" / "below")), "folder")
    assert shown.outcome == "failed" and "Not a directory" in shown.finding


def test_the_home_folder_itself_is_not_taken(ssh_target: Callable[..., Target], sshd: SshServer) -> None:
    mode = sshd.home.stat().st_mode
    assert found(ssh_target(folder="."), "folder").outcome == "failed"
    assert sshd.home.stat().st_mode == mode


def test_a_relative_folder_lies_in_the_home_folder_there(ssh_target: Callable[..., Target], sshd: SshServer,
                                                         hostile: str) -> None:
    name = hostile.replace("\n", " ")
    try:
        assert found(ssh_target(folder=name), "folder").outcome == "ok"
        assert (sshd.home / name).stat().st_mode & 0o777 == 0o700
        assert not list(sshd.home.glob("pwned*"))
    finally:
        shutil.rmtree(sshd.home / name)


def test_a_full_disk_is_told(ssh_target: Callable[..., Target], tmp_path: Path) -> None:
    if os.getuid() or subprocess.run(["unshare", "-m", "true"]).returncode:
        small = "/dev/full"
        assert found(ssh_target(folder=f"{small}/x"), "folder").outcome == "failed"
        return
    mount = f"mount -t tmpfs -o size=64k tmpfs {tmp_path}; head -c 200000 /dev/zero > {tmp_path}/fill 2>/dev/null"
    inside = tmp_path / "python3"
    wrapper = tmp_path.parent / "python-with-a-full-disk"
    wrapper.write_text(f"#!/bin/sh\nexec unshare -m sh -c '{mount}; exec \"$0\" \"$@\"' {sys.executable} \"$@\"\n")
    wrapper.chmod(0o755)
    assert not inside.exists()
    shown = found(ssh_target(python=str(wrapper), folder=str(tmp_path)), "folder")
    assert (shown.outcome, shown.code) == ("failed", "disk full") and "No space left" in shown.finding


def test_little_room_for_an_environment_is_told(ssh_target: Callable[..., Target]) -> None:
    from medmae.jobs.checks import GIB, _folder

    facts = {"folder": {"path": "/x", "free": 6 * GIB, "problem": None, "full": False}, "environments": []}
    assert _folder(ssh_target(environment="venv"), facts).code == "disk full"
    assert _folder(ssh_target(environment="venv"), {**facts, "environments": ["abc"]}).outcome == "ok"
    assert _folder(ssh_target(), facts).outcome == "ok"


def test_a_missing_rsync_is_only_slower(ssh_target: Callable[..., Target], tmp_path: Path) -> None:
    shown = found(ssh_target(preamble=(f"PATH={tmp_path}",)), "rsync")
    assert shown.outcome == "warning" and "not there" in shown.finding


def test_a_wheelhouse_without_torch_and_with_it(ssh_target: Callable[..., Target], tmp_path: Path) -> None:
    target = ssh_target(environment="venv", wheelhouse=str(tmp_path))
    assert found(target, "environment").code == "libraries"
    (tmp_path / "torch-2.13.0-cp311-cp311-manylinux_2_28_x86_64.whl").touch()
    assert found(target, "environment").outcome == "ok"


def test_a_computer_without_slurm_is_no_cluster(ssh_target: Callable[..., Target], tmp_path: Path) -> None:
    assert found(ssh_target(kind="slurm", preamble=(f"PATH={tmp_path}",)), "Slurm").code == "no Slurm"


@pytest.mark.parametrize(("changes", "name", "outcome", "words"), [
    ({"gpus": 1, "time": "1-00:00:00"}, "GPU", "ok", "gpu:1"),
    ({"gpus": 2}, "GPU", "failed", "have 1"),
    ({"partition": "nights"}, "partition", "failed", "there are: main, "),
    ({"partition": "urgent", "time": "2-00:00:00"}, "time", "failed", "1-00:00:00"),
])
def test_what_is_asked_of_a_real_cluster_is_looked_up_there(
        ssh_target: Callable[..., Target], slurm: SlurmCluster, changes: dict[str, Any], name: str, outcome: str,
        words: str) -> None:
    shown = found(ssh_target(kind="slurm", preamble=slurm.preamble, **changes), name)
    assert shown.outcome == outcome and words in shown.finding


def test_a_login_node_is_a_target_without_ssh(slurm: SlurmCluster, ssh_target: Callable[..., Target]) -> None:
    here = ssh_target(kind="slurm", host=None, preamble=slurm.preamble, account="lab")
    until = ["Python", "folder", "Slurm", "partition"]
    shown = list(itertools.islice(findings(here), len(until)))
    assert [one.name for one in shown] == until and all(one.outcome == "ok" for one in shown)


def test_a_cluster_that_does_not_answer_is_told(slurm: SlurmCluster, ssh_target: Callable[..., Target]) -> None:
    slurm.stop_controller()
    try:
        assert found(ssh_target(kind="slurm", preamble=slurm.preamble), "Slurm").code == "no Slurm"
    finally:
        slurm.start_controller()


def test_the_result_can_be_read_by_programs(ssh_target: Callable[..., Target], capsys: pytest.CaptureFixture) -> None:
    add_target(ssh_target(python="/nowhere/python3"))
    assert run(["target", "check", "loopback", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["ready"] is False
    assert told["checks"][-1] == {"name": "Python", "outcome": "failed", "code": "no Python",
                                  "finding": told["checks"][-1]["finding"], "remedy": told["checks"][-1]["remedy"]}
