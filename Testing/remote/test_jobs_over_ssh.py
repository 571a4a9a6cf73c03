"""Jobs over a real SSH server: the whole path, and what can be cut, killed, filled or be called strangely."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - the usual name
from safetensors.numpy import load_file
from slurm_cluster import SlurmCluster
from ssh_server import SshServer

from medmae.cli.app import run
from medmae.errors import BadInput
from medmae.jobs.following import follow
from medmae.jobs.job import Job, load_job
from medmae.jobs.stopping import resume, stop
from medmae.jobs.submission import submission_of
from medmae.jobs.target import Target
from medmae.jobs.targets import add_target
from medmae.jobs.there.processes import processes_of
from medmae.run_folder import RunFolder

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "unit"))
from tiny_training_data import blob_volume, write_pictures, write_volumes  # noqa: E402

pytestmark = pytest.mark.remote
STEPS = 120  # a stop must come before the end, on quick machines too
TINY = ("--encoder", "none", "--method", "vis-mae", "--preset", "tiny", "--device", "cpu", "--set", "batch_size=2")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MEDMAE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return tmp_path / "home"


@pytest.fixture
def target(ssh_target: Callable[..., Target]) -> Iterator[Target]:
    """A target whose runs end with the test."""
    made = ssh_target(name="gpu-box", preamble=("export OMP_NUM_THREADS=1",))  # as here: the order of sums counts
    add_target(made)
    yield made
    for folder in Path(made.folder).glob("runs/*"):
        for process in processes_of(folder):
            os.kill(process, signal.SIGKILL)


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Runs a command with --json and returns what it printed."""
    def command(*arguments: str) -> Any:
        capsys.readouterr()
        code = run([*arguments, "--json"])
        captured = capsys.readouterr()
        assert code == 0, captured.err
        return json.loads(captured.out)
    return command


def wait_until(condition: Callable[[], Any], seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.3)


def trains(job: Job) -> bool:
    status = follow(job)
    assert not status.is_final, status
    return status.state == "running" and status.stage in (None, "train") and bool(status.step)


def private_everywhere(folder: Path) -> bool:
    """Whether nobody else can read anything in `folder`."""
    return all(stat.S_IMODE(path.lstat().st_mode) & 0o077 == 0 for path in (folder, *folder.rglob("*"))
               if not path.is_symlink())


def test_a_model_is_finetuned_there_stopped_resumed_and_fetched_as_if_it_had_been_here(
        target: Target, said: Callable[..., Any], tmp_path: Path, hostile: str) -> None:
    own = tmp_path / hostile
    own.mkdir()
    dataset = write_pictures(own, {"training": 6})
    for number in range(6):  # every name that a user gives is hostile
        (own / f"picture{number}.png").rename(own / f"Meier {hostile} {number}.png")
    described = json.loads(dataset.read_text())
    for number, item in enumerate(described["training"]):
        item.update(image=f"Meier {hostile} {number}.png", subject=f"Hans Meier {hostile} {number}")
    dataset.write_text(json.dumps(described))
    common = ("finetune", *TINY, "--steps", str(STEPS), "--dataset")

    submit = ("job", "submit", "gpu-box", *common, str(dataset))
    assert run([*submit, "--name", hostile]) == 2
    job = load_job(said(*submit, "--name", "Meiers Leber 肝", "--out", str(own / "out"))["id"])
    wait_until(lambda: trains(job))
    assert said("job", "stop", job.id)["state"] in ("stopping", "stopped")
    wait_until(lambda: follow(job).state == "stopped")
    stopped = follow(job)
    assert 0 < (stopped.step or 0) < STEPS
    said("job", "resume", job.id)
    outcome = said("job", "status", job.id, "--wait")
    assert (outcome["state"], outcome["step"], outcome["results"]) == ("done", STEPS, str(own / "out"))

    for number, item in enumerate(described["training"], start=1):  # what is drawn at random depends on these
        item.update(id=f"case-{number:04d}")
    (own / "neutral.json").write_text(json.dumps(described))
    # A process of its own: this one's torch may have begun with more threads, which sum in another order.
    subprocess.run([sys.executable, "-m", "medmae.cli", *common, str(own / "neutral.json"), "--out", str(own / "here")],
                   check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True)
    there, here = (load_file(own / name / "model" / "weights.safetensors") for name in ("out", "here"))
    assert there.keys() == here.keys()
    for name in here:
        np.testing.assert_allclose(there[name], here[name], rtol=1e-4, atol=1e-5)
    steps = [record["step"] for record in RunFolder(job.mirror).progress() if record.get("stage") == "train"]
    assert steps == sorted(set(steps))

    folder = Path(target.folder)
    assert private_everywhere(folder)
    words = [os.fsencode(word) for word in (str(own), "Meier", "Hans Meier", hostile, "Meiers Leber")]
    words += [os.fsencode(tmp_path / "home"), json.dumps(hostile)[1:-1].encode()]
    assert min(map(len, words)) >= 5  # shorter ones occur in weights and voxels by chance
    short = [os.fsencode(word) for word in ("Hans", "肝")]
    for file in folder.rglob("*"):
        if "code" in file.relative_to(folder).parts:
            continue
        assert not any(word in os.fsencode(file.relative_to(folder)) for word in [*words, *short]), file
        if file.is_file():
            content = file.read_bytes()
            is_text = file.suffix not in (".safetensors", ".bin", ".nrrd", ".npz")
            assert not any(word in content for word in words + (short if is_text else [])), file
    assert not list(tmp_path.rglob("pwned"))


def test_cases_are_segmented_there_by_two_processes_and_called_as_here(
        target: Target, said: Callable[..., Any], tmp_path: Path, hostile: str,
        capsys: pytest.CaptureFixture[str]) -> None:
    dataset = write_volumes(tmp_path, {"training": 1})
    assert run(["finetune", "--dataset", str(dataset), "--encoder", "none", "--method", "gl-mae", "--preset", "tiny",
                "--steps", "1", "--set", "batch_size=1", "--out", str(tmp_path / "model")]) == 0
    images = tmp_path / "images"
    for name in ("b", hostile):
        (images / name).mkdir(parents=True)
        sitk.WriteImage(sitk.GetImageFromArray(blob_volume(len(name))[0]), str(images / name / "scan.nii.gz"))
    (images / "broken.nii.gz").write_bytes(b"not an image")
    common = ("segment", "--model", str(tmp_path / "model"), "--images", str(images), "--format", "nrrd")
    assert run([*common, "--out", str(tmp_path / "here")]) == 1
    job = load_job(said(*common, "--target", "gpu-box", "--parts", "2", "--out", str(tmp_path / "fetched"))["id"])
    wait_until(lambda: follow(job).is_final)
    assert run(["job", "fetch", job.id]) == 1
    assert "broken.nii.gz" in capsys.readouterr().err
    files = {side: sorted(file.relative_to(tmp_path / side) for file in (tmp_path / side).rglob("*.nrrd"))
             for side in ("here", "fetched")}
    assert len(files["here"]) == 2 and files["fetched"] == files["here"]
    for file in files["here"]:
        here, there = (sitk.ReadImage(str(tmp_path / side / file)) for side in ("here", "fetched"))
        np.testing.assert_array_equal(sitk.GetArrayFromImage(here), sitk.GetArrayFromImage(there))
        assert here.GetDirection() == there.GetDirection() and here.GetOrigin() == there.GetOrigin()
    table = (tmp_path / "fetched" / "summary.csv").read_text()
    assert "broken.nii.gz" in table and "case-0" not in table


def test_a_killed_submission_and_a_cut_upload_go_on_and_a_hard_stop_leaves_no_process(
        target: Target, sshd: SshServer, tmp_path: Path, said: Callable[..., Any]) -> None:
    folder = tmp_path / "large"
    folder.mkdir()
    for number in range(3):  # noise, so that it does not become small on its way
        noise = np.random.default_rng(number).integers(-1000, 1000, (160, 160, 160), np.int16)
        sitk.WriteImage(sitk.GetImageFromArray(noise), str(folder / f"{number}.nrrd"))
    job = load_job(said("pretrain", "--images", str(folder), "--method", "gl-mae", "--preset", "tiny", "--steps",
                        "2000", "--target", "gpu-box")["id"])
    wait_until(lambda: submission_of(job).stage == "upload")
    os.kill(submission_of(job).pid or 0, signal.SIGKILL)
    wait_until(lambda: follow(job).state == "interrupted")
    assert not list(Path(target.folder).glob("runs/*"))
    resume(job)
    incoming = Path(target.folder) / "incoming"
    wait_until(lambda: incoming.is_dir() and any(incoming.iterdir()) or submission_of(job).is_over)
    sshd.cut()
    wait_until(lambda: submission_of(job).is_over)
    assert submission_of(job).stage == "done"
    wait_until(lambda: follow(job).state == "running")
    folder = Path(load_job(job.id).folder or "")
    assert processes_of(folder)
    assert stop(job, hard=True)
    assert processes_of(folder) == []
    assert follow(job).state in ("stopped", "interrupted")


def test_a_run_whose_folder_was_deleted_there_begins_anew_when_it_is_resumed(
        target: Target, tmp_path: Path, said: Callable[..., Any]) -> None:
    dataset = write_pictures(tmp_path, {"training": 4})
    job = load_job(said("finetune", "--dataset", str(dataset), *TINY, "--steps", "1", "--target", "gpu-box")["id"])
    for _time in range(2):
        wait_until(lambda: follow(job).state == "done")
        shutil.rmtree(target.folder)
        gone = follow(job)
        assert gone.state == "interrupted" and "is not on gpu-box any more" in (gone.reason or "")
        resume(job)


def test_a_cut_connection_a_killed_follower_and_a_server_that_is_down_lose_nothing(
        target: Target, sshd: SshServer, tmp_path: Path, said: Callable[..., Any],
        capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = write_pictures(tmp_path, {"training": 4})
    job = load_job(said("finetune", "--dataset", str(dataset), *TINY, "--steps", "4000", "--target", "gpu-box")["id"])
    wait_until(lambda: trains(job))
    watching = f"from medmae.cli.app import run; run(['job', 'status', {job.id!r}, '--wait'])"
    follower = subprocess.Popen([sys.executable, "-c", watching], stderr=subprocess.DEVNULL, start_new_session=True)
    seen = follow(job).step or 0
    wait_until(lambda: (follow(job).step or 0) > seen)
    sshd.cut()
    follower.kill()
    follower.wait()
    seen = follow(job).step or 0
    sshd.stop()
    away = follow(job)
    assert (away.state, away.last_state) == ("unreachable", "running") and away.seen and away.reason
    begun = time.monotonic()
    assert said("job", "list")[0]["state"] == "unreachable" and time.monotonic() - begun < 10
    assert run(["job", "stop", job.id]) == 1  # nobody could be asked
    assert run(["job", "fetch", job.id]) == 1
    time.sleep(2)
    sshd.start()
    wait_until(lambda: (follow(job).step or 0) > seen)  # it went on meanwhile

    monkeypatch.setenv("MEDMAE_HOME", str(tmp_path / "other computer"))
    add_target(target)
    assert [one["id"] for one in said("job", "list", "--target", "gpu-box")] == [job.id]
    assert said("job", "status", job.id[-4:], "--target", "gpu-box")["state"] == "running"
    assert said("job", "stop", job.id[-4:], "--target", "gpu-box")["state"] in ("stopping", "stopped")
    elsewhere = load_job(job.id)
    wait_until(lambda: follow(elsewhere).state == "stopped")
    monkeypatch.setenv("MEDMAE_HOME", str(tmp_path / "home"))
    assert follow(job).state == "stopped"
    there = RunFolder(load_job(job.id).folder or "")
    for name in ("progress.jsonl", "log.txt"):
        assert (job.mirror / name).read_bytes() == (there.path / name).read_bytes()
        assert (elsewhere.mirror / name).read_bytes() == (there.path / name).read_bytes()
    assert "Stopped" in _log(capsys, job) or "stop" in _log(capsys, job).lower()


def _log(capsys: pytest.CaptureFixture[str], job: Job) -> str:
    capsys.readouterr()
    assert run(["job", "logs", job.id, "--tail", "5"]) == 0
    return capsys.readouterr().out


def test_a_cluster_behind_ssh_holds_a_job_which_is_stopped_refused_resumed_and_done(
        slurm: SlurmCluster, ssh_target: Callable[..., Target], said: Callable[..., Any], tmp_path: Path) -> None:
    add_target(ssh_target(name="cluster", kind="slurm", preamble=slurm.preamble, sbatch=("--hold",)))
    dataset = write_pictures(tmp_path, {"training": 2})
    job = load_job(said("job", "submit", "cluster", "finetune", "--dataset", str(dataset), *TINY, "--steps", "2")["id"])
    wait_until(lambda: follow(job).queue)
    status = follow(job)
    assert (status.state, status.queue) == ("queued", "PENDING (JobHeldUser)")
    with pytest.raises(BadInput, match="queued already"):
        resume(job)
    assert stop(job)
    wait_until(lambda: follow(job).state == "stopped")
    resume(job, partition="no-such-partition")
    wait_until(lambda: submission_of(job).is_over)
    assert follow(job).state == "failed" and "partition" in (follow(job).reason or "")
    resume(job, partition=None, sbatch=())
    outcome = said("job", "status", job.id, "--wait")
    assert (outcome["state"], outcome["step"]) == ("done", 2)
    assert [one["name"] for one in said("model", "list")] == [job.id]


def test_a_wrong_python_is_said_to_be_one(ssh_target: Callable[..., Target], tmp_path: Path,
                                          said: Callable[..., Any]) -> None:
    add_target(ssh_target(name="wrong", python="/no/such/python"))
    dataset = write_pictures(tmp_path, {"training": 4})
    job = load_job(said("finetune", "--dataset", str(dataset), *TINY, "--target", "wrong")["id"])
    wait_until(lambda: follow(job).is_final)
    status = follow(job)
    assert (status.state, submission_of(job).code) == ("failed", "no Python")
    assert "/no/such/python" in (status.reason or "") and status.remedy


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 2 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], check=False,
                             capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("needs the right to mount a small disk")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_there_is_said_to_be_one(small_disk: Path, ssh_target: Callable[..., Target], tmp_path: Path,
                                             said: Callable[..., Any]) -> None:
    add_target(ssh_target(name="full", folder=str(small_disk / "there")))
    dataset = write_pictures(tmp_path, {"training": 4})
    job = load_job(said("finetune", "--dataset", str(dataset), *TINY, "--target", "full")["id"])
    wait_until(lambda: follow(job).is_final)
    assert (follow(job).state, submission_of(job).code) == ("failed", "disk full"), submission_of(job)
    assert "medmae job resume" in (follow(job).remedy or "")
