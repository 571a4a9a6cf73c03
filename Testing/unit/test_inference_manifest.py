"""Which cases of a batch are finished: after stops, kills, changes of images and of options."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from inference_helpers import description

from medmae.errors import BadInput
from medmae.inference.cases import FoundCase, find_cases, sizes_of
from medmae.inference.manifest import MANIFEST, Manifest, options_of

OPTIONS = {"kind": "segment", "overlap": 0.5, "roi": None}


def case(folder, name="a"):
    image = folder / f"{name}.nii.gz"
    if not image.exists():
        image.write_bytes(b"image")
    return FoundCase((image,), name)


def finished(folder, *names, **options):
    """A manifest in folder/out with these cases, and their outputs."""
    manifest = Manifest(folder / "out", OPTIONS | options, resume=True)
    for name in names:
        manifest.begin()
        (folder / "out" / f"{name}.nii.gz").write_bytes(b"labels")
        one = case(folder, name)
        manifest.add(one, [folder / "out" / f"{name}.nii.gz"], {"image": name}, one.stamp())
    return manifest


def test_finished_cases_are_known_again(tmp_path):
    finished(tmp_path, "a", "b")
    again = Manifest(tmp_path / "out", OPTIONS, resume=True)
    assert again.finished(case(tmp_path, "a")) == {"image": "a"} and again.finished(case(tmp_path, "c")) is None
    again.begin()
    assert sum("options" in line for line in (tmp_path / "out" / MANIFEST).read_text().splitlines()) == 1


def test_a_case_is_done_again_when_its_output_is_gone_or_its_image_has_changed(tmp_path):
    finished(tmp_path, "a", "b", "c")
    (tmp_path / "out" / "a.nii.gz").unlink()
    (tmp_path / "b.nii.gz").write_bytes(b"another image")
    again = Manifest(tmp_path / "out", OPTIONS, resume=True)
    assert [again.finished(case(tmp_path, name)) for name in "abc"] == [None, None, {"image": "c"}]


@pytest.mark.parametrize("cut", range(1, 30, 4))
def test_a_line_cut_short_by_a_kill_is_passed_over_and_does_not_spoil_the_next(tmp_path, cut):
    finished(tmp_path, "a", "b")
    file = tmp_path / "out" / MANIFEST
    file.write_bytes(file.read_bytes()[:-cut])
    again = finished(tmp_path)
    assert again.finished(case(tmp_path, "a")) == {"image": "a"}
    assert (again.finished(case(tmp_path, "b")) is None) == (cut > 1)  # only the end of the line may be missing
    again.add(case(tmp_path, "b"), [tmp_path / "out" / "b.nii.gz"], {"image": "b"}, case(tmp_path, "b").stamp())
    assert finished(tmp_path).finished(case(tmp_path, "b")) == {"image": "b"}


@pytest.mark.parametrize("line", ["5", "null", "[1]", '{"options": 3}', '{"case": ["a"], "spec": "SPEC"}',
                                  '{"case": "b", "spec": "SPEC"}', "\x00\xff", "[" * 100_000])
@pytest.mark.parametrize("place", [0, 1, 3])
def test_a_damaged_line_is_passed_over_wherever_it_is(tmp_path, line, place):
    spec = finished(tmp_path, "a", "b").hash
    file = tmp_path / "out" / MANIFEST
    lines = file.read_text().splitlines()
    file.write_text("\n".join([*lines[:place], line.replace("SPEC", spec), *lines[place:]]) + "\n")
    again = Manifest(tmp_path / "out", OPTIONS, resume=True)
    assert [again.finished(case(tmp_path, name)) for name in "ab"] == [{"image": "a"}, {"image": "b"}]


def test_without_its_first_line_a_manifest_keeps_what_is_finished(tmp_path):
    finished(tmp_path, "a", "b")
    file = tmp_path / "out" / MANIFEST
    file.write_text("".join(file.read_text().splitlines(keepends=True)[1:]))
    finished(tmp_path, "c")
    again = Manifest(tmp_path / "out", OPTIONS, resume=True)
    assert all(again.finished(case(tmp_path, name)) for name in "abc")
    with pytest.raises(BadInput, match="overlap"):
        Manifest(tmp_path / "out", OPTIONS | {"overlap": 0.25}, resume=True)


def test_an_image_that_changes_while_it_is_worked_on_is_done_again(tmp_path):
    manifest, one = finished(tmp_path), case(tmp_path)
    stamp = one.stamp()
    one.images[0].write_bytes(b"a newer image")
    manifest.add(one, [], {"image": "a"}, stamp)
    assert Manifest(tmp_path / "out", OPTIONS, resume=True).finished(one) is None


def test_results_of_before_are_no_images(tmp_path):
    for name in ("in/a.nii.gz", "in/out/in/a.nii.gz"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"image")
    assert [found.images[0] for found in find_cases([str(tmp_path / "in")], tmp_path / "in" / "out")] == [
        tmp_path / "in" / "a.nii.gz"]
    with pytest.raises(BadInput, match="where the results go"):
        find_cases([str(tmp_path / "in" / "out")], tmp_path / "in" / "out")


def test_other_options_are_refused_with_what_differs(tmp_path):
    finished(tmp_path, "a")
    with pytest.raises(BadInput, match=r"overlap=0\.5 \(not 0\.25\)"):
        Manifest(tmp_path / "out", OPTIONS | {"overlap": 0.25}, resume=True)
    with pytest.raises(BadInput, match="extra=None"):
        Manifest(tmp_path / "out", OPTIONS | {"extra": 1}, resume=True)


def test_a_folder_of_something_else_is_not_touched(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.doc").write_text("x")
    with pytest.raises(BadInput, match="nothing in it to resume"):
        Manifest(tmp_path / "out", OPTIONS, resume=True)


def test_a_run_killed_before_its_first_result_can_be_resumed(tmp_path):
    (tmp_path / "out" / "scans").mkdir(parents=True)
    (tmp_path / "out" / "scans" / ".partial-x-a.nii.gz").write_bytes(b"half")
    assert finished(tmp_path, "a").finished(case(tmp_path)) is None
    assert finished(tmp_path).finished(case(tmp_path)) == {"image": "a"}


def test_the_result_of_another_image_is_not_replaced(tmp_path):
    finished(tmp_path, "a")
    other = tmp_path / "elsewhere"
    other.mkdir()
    with pytest.raises(BadInput, match="is the result of"):
        Manifest(tmp_path / "out", OPTIONS, resume=True).finished(FoundCase((case(other).images[0],), "a"))


def test_without_resume_what_was_there_counts_no_more(tmp_path):
    finished(tmp_path, "a")
    anew = Manifest(tmp_path / "out", OPTIONS | {"overlap": 0.1}, resume=False)
    assert anew.finished(case(tmp_path)) is None
    anew.begin()
    assert json.loads((tmp_path / "out" / MANIFEST).read_text())["options"]["overlap"] == 0.1


def test_leftovers_of_a_kill_are_removed(tmp_path):
    finished(tmp_path, "a")
    (tmp_path / "out" / ".partial-x-b.nii.gz").write_bytes(b"half")
    finished(tmp_path)
    assert not list((tmp_path / "out").glob(".partial-*"))


def test_a_process_killed_while_it_writes_leaves_a_manifest_that_can_be_read(tmp_path):
    script = (f"import sys\nsys.path[:0] = {[str(Path(__file__).parent)]!r}\nfrom pathlib import Path\n"
              f"from test_inference_manifest import finished\nfolder = Path({str(tmp_path)!r})\n"
              "for number in range(10**6):\n    finished(folder, f'case{number}')\n    print(number, flush=True)")
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert process.stdout is not None
    for _ in range(15):
        process.stdout.readline()
    process.kill()
    process.wait()
    again = Manifest(tmp_path / "out", OPTIONS, resume=True)
    assert all(again.finished(case(tmp_path, f"case{number}")) for number in range(15))


def test_options_leave_out_what_only_changes_the_speed():
    config = {"device": "cpu", "batch": 3, "memory": "4GB", "mirror": True}
    found = options_of("segment", config, [description()], base=None)
    assert found == {"kind": "segment", "mirror": True, "model": ["test"], "base": None}


def test_two_cases_of_one_name_are_refused(tmp_path):
    (tmp_path / "t1.png").write_bytes(b"x")
    (tmp_path / "t2.png").write_bytes(b"x")
    pair = [str(tmp_path / "t1.png"), str(tmp_path / "t2.png")]
    assert len(find_cases([pair])) == 1
    with pytest.raises(BadInput, match="Several cases"):
        find_cases([pair, pair])


def test_sizes_of_what_cannot_be_read_are_the_mean_of_the_others(tmp_path, shared_data):
    image = shared_data / "volumes" / "mr_spinal_cord_oblique_thick" / "image.nii.gz"
    broken = tmp_path / "b.nii.gz"
    broken.write_text("no image")
    cases = [FoundCase((path,), str(path)) for path in (image, broken, tmp_path / "absent.nrrd")]
    assert sizes_of(cases) == [8000.0] * 3
    assert sizes_of(cases[1:]) == [1.0, 1.0]
