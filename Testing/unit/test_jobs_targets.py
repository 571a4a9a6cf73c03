"""Targets as they are kept, and what is made of the facts about them; no server is needed here."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medmae.cli.app import run
from medmae.config import from_json, to_json
from medmae.errors import BadInput
from medmae.jobs import ssh
from medmae.jobs.diagnosis import problem_of_failure, problem_of_ssh
from medmae.jobs.known_hosts import _parse
from medmae.jobs.problems import ConnectionLost
from medmae.jobs.slurm_checks import slurm_checks
from medmae.jobs.software_checks import LEAST, NOT, environment_checks
from medmae.jobs.target import Target
from medmae.jobs.targets import add_target, find_target, get_target, list_targets, remove_target, targets_file

BOX = Target("box", "ssh", "me@box", gpus=2)
PYPROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"
CLUSTER = {"version": "slurm 22.05.8", "problem": None, "accounts": ["lab"], "partitions": [
    {"name": "cpu", "is_default": True, "gres": "", "time_limit": "infinite", "state": "up"},
    {"name": "gpu", "is_default": False, "gres": "gpu:a100:4(S:0-1),mps:400", "time_limit": "2-00:00:00",
     "state": "up"},
    {"name": "old", "is_default": False, "gres": "gpu:1080:2", "time_limit": "1:00:00", "state": "down"}]}


def test_this_computer_is_always_a_target() -> None:
    assert [target.name for target in list_targets()] == ["local"]
    assert get_target("local").kind == "local"


def test_targets_are_kept_as_they_were_given() -> None:
    cluster = Target("usual", "slurm", None, preamble=("module load 'a b'", "x=$(y)"), container=("apptainer", "ä b"),
                     sbatch=("--mem=64G",), time="1-00:00:00", nodes=2)
    for target in (BOX, cluster):
        add_target(target)
    assert list_targets()[1:] == [BOX, cluster]
    assert targets_file().stat().st_mode & 0o777 == 0o600
    remove_target("box")
    assert find_target("box") is None and get_target("usual") == cluster


def test_a_target_is_replaced_only_on_purpose() -> None:
    add_target(BOX)
    with pytest.raises(BadInput, match="already"):
        add_target(BOX)
    add_target(Target("box", "ssh", "other"), replace=True)
    assert get_target("box").host == "other"


@pytest.mark.parametrize("change", [lambda: remove_target("local"), lambda: add_target(Target("local"), replace=True),
                                    lambda: remove_target("nobody"), lambda: get_target("nobody")])
def test_what_is_not_the_users_to_change_or_not_there_is_refused(change: Any) -> None:
    with pytest.raises(BadInput):
        change()


@pytest.mark.parametrize("text", [
    "{", "[]", '{"targets": {}}', '{"targets": [1]}', '{"targets": [], "more": 1}',
    '{"targets": [{"name": "x", "kind": "ssh", "host": "h", "password": "p"}]}',
    '{"targets": [{"name": "x", "kind": "ssh", "host": "h", "gpus": "2"}]}',
    '{"targets": [{"name": "x"}, {"name": "x"}]}', '{"targets": [{"name": "local"}]}', '{"targets": [{}]}',
    '{"targets": [{"name": "x", "kind": "ssh", "host": "-oProxyCommand=touch pwned"}]}'])
def test_a_damaged_list_of_targets_is_refused(text: str) -> None:
    targets_file().write_text(text)
    with pytest.raises(BadInput, match=re.escape(str(targets_file()))):
        list_targets()


@pytest.mark.parametrize("facts", [
    {"host": "-oProxyCommand=touch pwned"}, {"host": "a b"}, {"host": "a\nb"}, {"host": ""}, {"name": "../x"},
    {"name": "-x"}, {"folder": "a\nb"}, {"folder": ""}, {"preamble": ("a\nb",)}, {"sbatch": ("--x\n#SBATCH --y",)},
    {"partition": "a\nb"}, {"kind": "local"}, {"host": None}, {"nodes": 2}, {"gpus": -1}, {"cpus": 0}, {"time": "\0"}])
def test_values_that_could_mean_something_else_are_refused(facts: dict[str, Any]) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - many messages
        Target(**{"name": "x", "kind": "ssh", "host": "h", **facts})


@given(folder=st.text(min_size=1).filter(lambda text: not set(text) & {"\n", "\0"}), gpus=st.integers(0, 16),
       preamble=st.lists(st.text(min_size=1).filter(lambda text: not set(text) & {"\n", "\0"})))
def test_every_target_survives_being_written_and_read(folder: str, gpus: int, preamble: list[str]) -> None:
    target = Target("x", "ssh", "h", folder=folder, gpus=gpus, preamble=tuple(preamble))
    assert from_json(Target, json.loads(json.dumps(to_json(target)))) == target


@given(script=st.text(alphabet=st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
def test_lines_for_the_other_side_hold_nothing_that_a_login_shell_reads(script: str) -> None:
    plain = ssh._plain(script)
    assert plain.isascii() and not set(plain) & set("\n'\"$`!%")
    assert re.sub(rb"\\(\d{3})", lambda code: bytes([int(code.group(1), 8)]), plain.encode()).decode() == script


def test_the_command_line_adds_changes_lists_and_removes(capsys: pytest.CaptureFixture) -> None:
    assert run(["target", "add", "gpu-box", "--host", "me@box", "--preamble", "module load a", "export B='c d'",
                "--container", "apptainer exec --nv 'my image.sif'", "--sbatch=--mem=64G"]) == 0
    assert run(["target", "add", "gpu-box", "--replace", "--gpus", "4", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["gpus"] == 4
    target = get_target("gpu-box")
    assert (target.kind, target.gpus, target.preamble) == ("ssh", 4, ("module load a", "export B='c d'"))
    assert target.container == ("apptainer", "exec", "--nv", "my image.sif") and target.sbatch == ("--mem=64G",)
    assert run(["target", "list", "--json"]) == 0
    assert [one["name"] for one in json.loads(capsys.readouterr().out)] == ["local", "gpu-box"]
    assert run(["target", "list"]) == 0
    assert "me@box" in capsys.readouterr().out
    assert run(["target", "remove", "gpu-box"]) == 0
    assert run(["target", "check", "gpu-box"]) == 2


@pytest.mark.parametrize("arguments", [["x", "--host=-oProxyCommand=touch pwned"], ["x", "--kind", "ssh"],
                                       ["x", "--container", "it's"], ["local"], ["../x", "--host", "h"]])
def test_the_command_line_refuses_what_cannot_be_a_target(arguments: list[str], capsys: pytest.CaptureFixture) -> None:
    assert run(["target", "add", *arguments]) == 2
    assert capsys.readouterr().err.startswith("Error: ")
    assert not targets_file().exists()


@pytest.mark.parametrize(("said", "code"), [
    ("ssh: connect to host box port 22: No route to host", "no route"),
    ("ssh: connect to host box port 22: Network is unreachable", "no route"),
    ("ssh: connect to host box port 22: Connection timed out", "timed out"),
    ("ssh: connect to host box port 22: Connection refused\r", "refused"),
    ("ssh: Could not resolve hostname box: nodename nor servname provided, or not known", "name not resolved"),
    ("me@box: Permission denied (publickey,gssapi-with-mic,keyboard-interactive).", "key refused"),
    ("Received disconnect from 10.0.0.1 port 22:2: Too many authentication failures", "key refused"),
    ("No ED25519 host key is known for box and you have requested strict checking.\n"
     "Host key verification failed.", "unknown host key"),
    ("@@@@@@\n@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\n@@@@@@\nOffending ECDSA key in "
     "C:\\Users\\Jane Doe/.ssh/known_hosts:3\r\nHost key verification failed.", "changed host key"),
    ("kex_exchange_identification: Connection closed by remote host", "connection lost"),
    ("", "connection lost")])
def test_what_ssh_says_is_told_apart_with_a_remedy(said: str, code: str) -> None:
    problem = problem_of_ssh(BOX, said)
    assert problem.code == code
    assert problem.remedy and problem.finding.endswith(".") and "\r" not in str(problem)


@pytest.mark.parametrize(("code", "reason"), [(255, "amid"), (0, "amid"), (-9, "before"), (137, "before")])
def test_an_end_without_an_answer_is_a_lost_connection(code: int, reason: str) -> None:
    said = "me@box: Permission denied (publickey)."  # somebody else's words, once the other side has begun to answer
    assert isinstance(problem_of_failure(BOX, code, said, reason), ConnectionLost)


def test_host_keys_are_read_from_lines_and_nothing_else() -> None:
    key = "AAAAC3NzaC1lZDI1NTE5AAAAIC1wbGFjZWhvbGRlci1vZi0zMi1ieXRlcy1oZXJl"
    text = f"# box:22 SSH-2.0\nbox ssh-ed25519 {key}\nother ssh-ed25519 {key}\n@revoked * ssh-rsa {key}\nbox x !\n\n"
    found = _parse(text, "box", of="box")
    assert [(one.type, one.line) for one in found] == [("ssh-ed25519", f"box ssh-ed25519 {key}")]
    assert re.fullmatch(r"SHA256:[\w+/]{43}", found[0].fingerprint)


@pytest.mark.parametrize(("changes", "name", "outcome", "words"), [
    ({"partition": "gpu", "gpus": 4}, "GPU", "ok", "a100"),
    ({"partition": "gpu", "gpus": 8}, "GPU", "failed", "have 4"),
    ({"gpus": 2}, "GPU", "failed", "nodes of cpu have none"),
    ({"gpus": 0}, "partition", "ok", "cpu"),
    ({"partition": "gpuu"}, "partition", "failed", "there are: cpu, gpu, old"),
    ({"partition": "old", "gpus": 2}, "partition", "warning", "down"),
    ({"partition": "gpu", "gpus": 1, "time": "3-00:00:00"}, "time", "failed", "2-00:00:00"),
    ({"partition": "gpu", "gpus": 1, "time": "1-00:00:00", "account": "other"}, "account", "warning", "lab"),
])
def test_what_a_target_asks_of_a_cluster_is_compared_with_what_there_is(changes: dict[str, Any], name: str,
                                                                        outcome: str, words: str) -> None:
    shown = {one.name: one for one in slurm_checks(Target("c", "slurm", "login", **changes), CLUSTER)}
    assert shown[name].outcome == outcome and words in shown[name].finding
    if outcome != "ok":
        assert shown[name].remedy
    if outcome != "failed":
        assert all(one.outcome != "failed" for one in shown.values())


def test_a_cluster_without_accounting_raises_no_alarm() -> None:
    target = Target("c", "slurm", "login", gpus=0, account="lab2")
    assert all(one.outcome == "ok" for one in slurm_checks(target, {**CLUSTER, "accounts": []}))
    told = {"version": None, "problem": "sinfo: No such file or directory", "partitions": [], "accounts": []}
    assert [one.code for one in slurm_checks(target, told)] == ["no Slurm"]


@pytest.mark.parametrize(("facts", "outcome", "words"), [
    ({}, "ok", "will be made"), ({"environments": ["abc"], "venv": False}, "ok", "before"),
    ({"glibc": "2.17"}, "failed", "too old"), ({"glibc": ""}, "ok", "will be made"),
    ({"venv": False}, "failed", "ensurepip"), ({"machine": "ppc64le"}, "failed", "ppc64le"),
    ({"system": "Darwin"}, "failed", "Darwin"), ({"internet": False}, "warning", "pypi.org"),
    ({"internet": None}, "ok", "will be made")])
def test_whether_an_environment_can_be_made_is_told(facts: dict[str, Any], outcome: str, words: str) -> None:
    usual = {"environments": [], "system": "Linux", "machine": "x86_64", "glibc": "2.36", "venv": True, "wheels": [],
             "internet": True}
    (shown,) = environment_checks(BOX, {**usual, **facts})
    assert shown.outcome == outcome and words in shown.finding


def test_libraries_are_held_against_what_the_package_asks_for() -> None:
    asked = tomllib.loads(PYPROJECT.read_text())["project"]["dependencies"]
    for name, least in LEAST.items():
        (line,) = [line for line in asked if re.match(rf"{name}\b", line)]
        assert line.startswith(f"{name}>={'.'.join(map(str, least))}")
        assert ("!=" in line) == (name in NOT)
