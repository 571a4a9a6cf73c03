"""Files over a real connection: hostile folders, cut connections, full disks, with rsync and without."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ssh_server import SshServer

from medmae.jobs import rsync
from medmae.jobs.code import ensure_code
from medmae.jobs.problems import ConnectionLost, TargetProblem
from medmae.jobs.target import Target
from medmae.jobs.transfer import download, upload
from medmae.jobs.transport import Transport, connect
from medmae.jobs.upload import Blob, Upload

pytestmark = pytest.mark.remote
MEBIBYTE = 2**20


@pytest.fixture(params=["rsync", "stream"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to bring files to a target."""
    if request.param == "rsync":
        assert shutil.which("rsync"), "needs rsync"
    else:
        monkeypatch.setattr(rsync, "can_push", lambda target, is_there: False)
    return request.param


def files_to_send(folder: Path, *sizes: int) -> Upload:
    """An upload of files with random bytes."""
    folder.mkdir(exist_ok=True)
    blobs, sources = {}, {}
    for number, size in enumerate(sizes):
        data = random.Random(f"{number} {size}").randbytes(size)
        path = folder / f"own name {number}"
        path.write_bytes(data)
        blob = Blob(hashlib.sha256(data).hexdigest(), ".nrrd", size)
        blobs[f"inputs/images/case-{number:04d}.nrrd"] = blob
        sources[blob.sha256] = path
    return Upload({}, blobs, sources)


def silent(stage: str, done: int, total: int) -> None:
    """Take no reports."""


def stored(folder: Path) -> dict[str, bytes]:
    """The blobs in the store of a target."""
    return {path.name: path.read_bytes() for path in (folder / "data").rglob("*") if path.is_file()}


def wanted(sent: Upload) -> dict[str, bytes]:
    return {blob.sha256 + blob.suffix: sent.sources[blob.sha256].read_bytes() for blob in sent.files.values()}


def test_files_arrive_whole_in_a_folder_of_any_name_and_are_sent_once(ssh_target: Callable[..., Target], way: str,
                                                                      tmp_path: Path, hostile: str) -> None:
    folder = tmp_path / hostile
    transport = connect(ssh_target(folder=str(tmp_path / "x")))
    sent = files_to_send(tmp_path / "own", 3 * MEBIBYTE, 0, 5)
    told: list[tuple[str, int, int]] = []
    upload(transport, str(folder), sent, lambda *one: told.append(one))
    assert stored(folder) == wanted(sent)
    assert told[0][1] == 0
    assert told[-1] == ("upload", 3 * MEBIBYTE + 5, 3 * MEBIBYTE + 5)
    assert not list((folder / "incoming").iterdir())
    for path in folder.rglob("*"):
        assert path.stat().st_mode & 0o077 == 0
    for path in (tmp_path / "own").iterdir():
        path.unlink()
    upload(transport, str(folder), sent, silent)  # needs no source any more
    assert not Path("pwned").exists()
    assert not (tmp_path / "pwned").exists()


def test_an_upload_that_is_cut_in_the_middle_of_a_file_goes_on_there(
        ssh_target: Callable[..., Target], sshd: SshServer, way: str, tmp_path: Path) -> None:
    transport = connect(ssh_target())
    folder = tmp_path / "there"
    sent = files_to_send(tmp_path / "own", MEBIBYTE, 96 * MEBIBYTE)
    total = 97 * MEBIBYTE
    cut_when_half_has_arrived(sshd, folder, total // 2)
    with pytest.raises(ConnectionLost):
        upload(transport, str(folder), sent, silent)
    told: list[int] = []
    upload(transport, str(folder), sent, lambda stage, done, total: told.append(done))
    assert stored(folder) == wanted(sent)
    assert told[0] >= total // 4  # what had arrived is not sent again
    assert told[-1] == total


def cut_when_half_has_arrived(sshd: SshServer, folder: Path, size: int) -> None:
    """End all connections as soon as `size` bytes have arrived."""
    def watch() -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            arrived = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
            if sum(arrived) >= size:
                break
            time.sleep(0.005)
        sshd.cut()

    threading.Thread(target=watch, daemon=True).start()


def test_a_file_that_arrives_damaged_is_sent_again(ssh_target: Callable[..., Target], way: str,
                                                   tmp_path: Path) -> None:
    sent = files_to_send(tmp_path / "own", 2 * MEBIBYTE, 10)
    damaged = tmp_path / "damaged"
    damaged.write_bytes(b"x" * 2 * MEBIBYTE)
    given = dict(sent.sources)
    large = next(sha256 for sha256, path in given.items() if path.stat().st_size > 10)

    class AtFirstDamaged(dict[str, Path]):
        def __getitem__(self, sha256: str) -> Path:
            path = super().__getitem__(sha256)
            self[sha256] = given[sha256]
            return path

    at_first_damaged = Upload({}, sent.files, AtFirstDamaged(given | {large: damaged}))
    upload(connect(ssh_target()), str(tmp_path / "there"), at_first_damaged, silent)
    assert stored(tmp_path / "there") == wanted(sent)


def test_files_that_always_arrive_damaged_end_the_upload(ssh_target: Callable[..., Target], tmp_path: Path) -> None:
    sent = files_to_send(tmp_path / "own", 10)
    path = next(iter(sent.sources.values()))
    path.write_bytes(b"0123456789")
    with pytest.raises(TargetProblem) as raised:
        upload(connect(ssh_target()), str(tmp_path / "there"), sent, silent)
    assert raised.value.code == "damaged upload"


def test_a_blob_that_was_changed_on_the_target_is_sent_again(ssh_target: Callable[..., Target], tmp_path: Path) -> None:
    transport, folder = connect(ssh_target()), tmp_path / "there"
    sent = files_to_send(tmp_path / "own", 100)
    upload(transport, str(folder), sent, silent)
    blob = next(path for path in (folder / "data").rglob("*") if path.is_file())
    blob.write_bytes(bytes(100))
    upload(transport, str(folder), sent, silent)
    assert stored(folder) == wanted(sent)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 100 MiB."""
    if os.getuid() != 0:
        pytest.skip("needs root, to mount a small disk")
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100m", "tmpfs", folder], check=False).returncode:
        pytest.skip("needs the right to mount a small disk")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_disk_that_is_too_small_is_noticed_before_anything_is_sent(ssh_target: Callable[..., Target],
                                                                     small_disk: Path, tmp_path: Path) -> None:
    sent = files_to_send(tmp_path / "own", 60 * MEBIBYTE)
    with pytest.raises(TargetProblem) as raised:
        upload(connect(ssh_target()), str(small_disk / "there"), sent, silent)
    assert raised.value.code == "disk full"
    assert "62.9 MB are still to be sent and 104.9 MB are free" in raised.value.finding
    assert not list((small_disk / "there" / "incoming").iterdir())


def test_a_disk_that_becomes_full_meanwhile_is_told_and_the_upload_goes_on_when_there_is_room(
        ssh_target: Callable[..., Target], small_disk: Path, way: str, tmp_path: Path) -> None:
    transport, folder = connect(ssh_target()), small_disk / "there"
    sent = files_to_send(tmp_path / "own", 10 * MEBIBYTE, 20 * MEBIBYTE)
    filler = small_disk / "of others"

    class Filling(dict[str, Path]):
        def __getitem__(self, sha256: str) -> Path:
            if not filler.exists():
                filler.write_bytes(bytes(85 * MEBIBYTE))
            return super().__getitem__(sha256)

    with pytest.raises(TargetProblem) as raised:
        upload(transport, str(folder), Upload({}, sent.files, Filling(sent.sources)), silent)
    assert raised.value.code == "disk full"
    filler.unlink()
    told: list[int] = []
    upload(transport, str(folder), sent, lambda stage, done, total: told.append(done))
    assert told[0] >= 5 * MEBIBYTE
    assert stored(folder) == wanted(sent)


def test_a_limit_of_file_sizes_is_told_as_a_full_disk(ssh_target: Callable[..., Target], tmp_path: Path,
                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rsync, "can_push", lambda target, is_there: False)
    sent = files_to_send(tmp_path / "own", 3 * MEBIBYTE)
    with pytest.raises(TargetProblem) as raised:
        upload(connect(ssh_target(preamble=("ulimit -f 2048",))), str(tmp_path / "there"), sent, silent)
    assert raised.value.code == "disk full"


def test_without_rsync_on_the_other_side_files_go_through_the_call(ssh_target: Callable[..., Target], tmp_path: Path,
                                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []

    def push(*_arguments: object) -> None:
        tried.append(1)
        raise rsync.NoRsync("rsync: command not found")

    monkeypatch.setattr(rsync, "push", push)
    sent = files_to_send(tmp_path / "own", 2 * MEBIBYTE)
    upload(connect(ssh_target()), str(tmp_path / "there"), sent, silent)
    assert tried
    assert stored(tmp_path / "there") == wanted(sent)


def test_results_come_home_whole_and_what_is_here_is_not_sent_again(ssh_target: Callable[..., Target], tmp_path: Path,
                                                                    hostile: str) -> None:
    run = tmp_path / "there" / hostile
    (run / "model" / "deep").mkdir(parents=True)
    (run / "model" / "weights.safetensors").write_bytes(os.urandom(3 * MEBIBYTE))
    (run / "model" / "deep" / "empty").touch()
    (run / "report.html").write_text("report")
    (run / "secret").write_text("not asked for")
    (run / "model" / "link").symlink_to("/etc/hostname")
    (run / "linked").symlink_to("/etc")
    transport, here = connect(ssh_target()), tmp_path / f"{hostile} here"
    wanted = ["model", "report.html", "linked", "absent"]
    found = download(transport, str(run), here, wanted, silent)
    assert sorted(path.relative_to(here).as_posix() for path in found) == [
        "model/deep/empty", "model/weights.safetensors", "report.html"]
    for path in found:
        assert path.read_bytes() == (run / path.relative_to(here)).read_bytes()
    assert sorted(path for path in here.rglob("*") if path.is_file()) == sorted(found)
    before = (here / "model" / "weights.safetensors").stat()
    assert download(transport, str(run), here, wanted, silent) == found
    assert (here / "model" / "weights.safetensors").stat().st_ino == before.st_ino


def test_a_download_that_is_cut_goes_on_where_it_was(ssh_target: Callable[..., Target], sshd: SshServer,
                                                     tmp_path: Path) -> None:
    run, here = tmp_path / "there", tmp_path / "here"
    run.mkdir()
    (run / "weights").write_bytes(os.urandom(64 * MEBIBYTE))
    here.mkdir()
    transport = connect(ssh_target())
    transport.call("probe.describe")
    cut_when_half_has_arrived(sshd, here, 20 * MEBIBYTE)
    with pytest.raises(ConnectionLost):
        download(transport, str(run), here, ["weights"], silent)
    told: list[int] = []
    download(transport, str(run), here, ["weights"], lambda stage, done, total: told.append(done))
    assert told[0] > 20 * MEBIBYTE
    assert (here / "weights").read_bytes() == (run / "weights").read_bytes()


def test_our_package_is_sent_once_and_runs_there(ssh_target: Callable[..., Target], tmp_path: Path,
                                                 hostile: str, monkeypatch: pytest.MonkeyPatch) -> None:
    transport, folder = connect(ssh_target()), tmp_path / hostile
    code = ensure_code(transport, str(folder))
    operations: list[str] = []

    def call(self: Transport, operation: str, *arguments: object, **options: object) -> object:
        operations.append(operation)
        return original(self, operation, *arguments, **options)  # type: ignore[arg-type]

    original = Transport.call
    monkeypatch.setattr(Transport, "call", call)
    assert ensure_code(transport, str(folder)) == code
    assert operations == ["code.find"]
    told = subprocess.run([sys.executable, "-c", "import medmae.run; print(medmae.run.__file__)"], cwd=code,
                          capture_output=True, text=True, check=True)
    assert told.stdout.rstrip("\n") == f"{code}/medmae/run.py"
