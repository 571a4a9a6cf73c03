"""The store of a target, and files from a target that nobody trusts."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medmae.errors import BadInput
from medmae.jobs import transfer
from medmae.jobs.problems import TargetProblem
from medmae.jobs.target import Target
from medmae.jobs.there import data
from medmae.jobs.there.serving import Channel
from medmae.jobs.transfer import download, upload
from medmae.jobs.transport import Transport, connect
from medmae.jobs.upload import Blob, Upload

CONTENT = b"voxels and geometry"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def silent(stage: str, done: int, total: int) -> None:
    """Take no reports."""


def channel(sent: bytes = b"") -> Channel:
    return Channel(io.BytesIO(sent), io.BytesIO())


def store(folder: Path, content: bytes = CONTENT, suffix: str = ".nrrd") -> list[Any]:
    """Put a blob into the store; returns [sha256, suffix]."""
    sha256 = hashlib.sha256(content).hexdigest()
    data.receive({"folder": str(folder), "blobs": [[sha256, suffix, len(content), 0]]}, channel(content))
    return [sha256, suffix]


def test_files_of_a_run_are_links_to_the_store(tmp_path: Path) -> None:
    blob = store(tmp_path)
    run = tmp_path / "runs" / "1"
    files = {"inputs/images/case-0001.nrrd": blob, "inputs/labels/case-0001.nrrd": blob}
    for _ in range(2):  # once more changes nothing
        data.assemble({"folder": str(tmp_path), "run": str(run), "files": files}, channel())
        for name in files:
            assert (run / name).read_bytes() == CONTENT
            assert (run / name).stat().st_nlink == 3


def test_where_links_do_not_work_files_are_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blob = store(tmp_path)

    def refuse(*_paths: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    data.assemble({"folder": str(tmp_path), "run": str(tmp_path / "run"), "files": {"a": blob}}, channel())
    assert (tmp_path / "run" / "a").read_bytes() == CONTENT
    assert (tmp_path / "run" / "a").stat().st_nlink == 1


@pytest.mark.parametrize("name", ["../outside", "/etc/outside", "a/../../outside", "", ".", "a\0b", ".."])
def test_a_path_that_leads_out_of_the_run_is_refused(tmp_path: Path, name: str) -> None:
    blob = store(tmp_path)
    for call in (lambda: data.assemble({"folder": str(tmp_path), "run": str(tmp_path / "run"), "files": {name: blob}},
                                       channel()),
                 lambda: data.list_files({"run": str(tmp_path / "run"), "wanted": [name]}, channel()),
                 lambda: data.send({"run": str(tmp_path / "run"), "files": [[name, 0, 1]]}, channel())):
        with pytest.raises(BadInput):
            call()


@given(st.text())
def test_whatever_the_text_a_path_stays_inside_or_is_refused(text: str) -> None:
    try:
        path = data.inside(text)
    except BadInput:
        return
    assert Path(os.path.normpath(Path("/root", path))).is_relative_to("/root")


@pytest.mark.parametrize(("sha256", "suffix"), [
    ("../" * 20 + "a" * 4, ""), (SHA256.upper(), ""), (SHA256, "/../x"), (SHA256, "." * 3), ("", ".nrrd")])
def test_blobs_have_no_other_names_than_hashes(tmp_path: Path, sha256: str, suffix: str) -> None:
    with pytest.raises(BadInput):
        data.blob_path(tmp_path, sha256, suffix)


def test_a_blob_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="not on the target"):
        data.assemble({"folder": str(tmp_path), "run": str(tmp_path / "run"), "files": {"a": [SHA256, ""]}}, channel())


def test_the_beginning_that_has_arrived_is_counted_and_used(tmp_path: Path) -> None:
    (tmp_path / "incoming").mkdir()
    (tmp_path / "incoming" / SHA256).write_bytes(CONTENT[:5] + b"rest of a longer write")
    asked = {"folder": str(tmp_path), "blobs": [[SHA256, ".nrrd", len(CONTENT)]]}
    assert data.missing(asked, channel())["missing"] == [[SHA256, 0]]  # more than there can be
    (tmp_path / "incoming" / SHA256).write_bytes(CONTENT[:5])
    assert data.missing(asked, channel())["missing"] == [[SHA256, 5]]
    told = data.receive({"folder": str(tmp_path), "blobs": [[SHA256, ".nrrd", len(CONTENT), 5]]}, channel(CONTENT[5:]))
    assert told == {"damaged": []}
    assert data.missing(asked, channel())["missing"] == []


def test_a_wrong_beginning_is_noticed_and_thrown_away(tmp_path: Path) -> None:
    (tmp_path / "incoming").mkdir()
    (tmp_path / "incoming" / SHA256).write_bytes(b"wrong")
    told = data.receive({"folder": str(tmp_path), "blobs": [[SHA256, ".nrrd", len(CONTENT), 5]]}, channel(CONTENT[5:]))
    assert told == {"damaged": [SHA256]}
    assert not list((tmp_path / "incoming").iterdir())


def test_blobs_are_asked_for_in_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "ASKED_AT_ONCE", 2)
    monkeypatch.setattr(transfer, "BATCH_FILES", 3)
    files, sources = {}, {}
    for number in range(7):
        path = tmp_path / f"own{number}"
        path.write_bytes(bytes([number]))
        sha256 = hashlib.sha256(bytes([number])).hexdigest()
        files[f"inputs/{number}"] = Blob(sha256, "", 1)
        sources[sha256] = path
    released: list[str] = []
    upload(connect(Target("here")), str(tmp_path / "there"), Upload({}, files, sources, released.append), silent)
    assert sorted(path.name for path in (tmp_path / "there" / "data").rglob("*") if path.is_file()) == sorted(sources)
    assert sorted(released) == sorted(sources)


def test_a_file_that_became_shorter_meanwhile_is_told(tmp_path: Path) -> None:
    path = tmp_path / "own"
    path.write_bytes(CONTENT[:4])
    sent = Upload({}, {"a": Blob(SHA256, "", len(CONTENT))}, {SHA256: path})
    with pytest.raises(BadInput, match="became shorter"):
        upload(connect(Target("here")), str(tmp_path / "there"), sent, silent)


TOLD: list[Any] = [len(CONTENT), SHA256]


class Hostile(Transport):
    """A target that answers what it likes."""

    def call(self, operation: str, arguments: Mapping[str, Any] | None = None, *,
             receive: Callable[[bytes], Any] | None = None, **_options: Any) -> dict[str, Any]:
        if operation == "data.list_files":
            return {"files": dict.fromkeys(self.names, self.told)}  # type: ignore[attr-defined]
        assert receive is not None
        receive(self.content)  # type: ignore[attr-defined]
        return {}


def hostile(*names: str, content: bytes = CONTENT, told: Any = TOLD) -> Hostile:
    transport = Hostile(Target("bad"), lambda script: None)  # type: ignore[arg-type,return-value]
    object.__setattr__(transport, "names", names)
    object.__setattr__(transport, "content", content)
    object.__setattr__(transport, "told", told)
    return transport


@pytest.mark.parametrize("name", ["../escaped", "model/../../escaped", "/tmp/escaped-medmae", "other", "modelx/a",
                                  "model/a\\..\\b", "model/C:x", "model/link/file", "model/a\0b"])
def test_a_target_cannot_write_anything_that_was_not_asked_for(tmp_path: Path, name: str) -> None:
    here, outside = tmp_path / "here", tmp_path / "outside"
    (here / "model").mkdir(parents=True)
    outside.mkdir()
    (here / "model" / "link").symlink_to(outside)
    with pytest.raises(BadInput):
        download(hostile("model/good", name), "/there", here, ["model"], silent)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["here", "link", "model", "outside"]


def test_what_arrives_damaged_does_not_take_the_place_of_a_result(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="damaged"):
        download(hostile("model/a", content=b"something else 1234"), "/there", tmp_path, ["model"], silent)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_more_bytes_than_were_told_are_not_kept(tmp_path: Path) -> None:
    with pytest.raises(BadInput):
        download(hostile("model/a", content=bytes(10 * len(CONTENT))), "/there", tmp_path, ["model"], silent)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize("told", [None, 3, [], ["9" * 5000, SHA256], [-1, SHA256], [3.5, SHA256], [3, "../../escaped"],
                                  [3, None]])
def test_sizes_and_hashes_that_are_none_are_refused(tmp_path: Path, told: Any) -> None:
    with pytest.raises(TargetProblem) as raised:
        download(hostile("model/a", told=told), "/there", tmp_path, ["model"], silent)
    assert raised.value.code == "odd answer" and not list(tmp_path.iterdir())


def test_a_file_that_never_ends_is_given_up_when_it_is_too_long(tmp_path: Path) -> None:
    class Endless(Hostile):
        def call(self, operation: str, arguments: Mapping[str, Any] | None = None, *,
                 receive: Callable[[bytes], Any] | None = None, **options: Any) -> dict[str, Any]:
            while receive is not None:
                receive(self.content)  # type: ignore[attr-defined]
            return super().call(operation, arguments, **options)

    transport = Endless(Target("bad"), lambda script: None)  # type: ignore[arg-type,return-value]
    for name, value in vars(hostile("model/a")).items():
        object.__setattr__(transport, name, value)
    object.__setattr__(transport, "content", bytes(len(CONTENT)))
    with pytest.raises(BadInput, match="damaged"):
        download(transport, "/there", tmp_path, ["model"], silent)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
