import os
from pathlib import Path

import pytest

from medmae.errors import BadInput
from medmae.volumes import find_images, output_name


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * 200)
    return path


@pytest.mark.parametrize(("path", "name"), [
    ("data/x/case_1.nii.gz", "data/x/case_1"), ("/data/x/case_1.nrrd", "data/x/case_1"),
    ("../data/a.b.nii", "data/a.b"), ("./case.NII.GZ", "case"), ("../../case.mha", "case"),
    ("data/dicom.1.2", "data/dicom.1.2"), ("image.dcm", "image"), ("a/.nii.gz", "a/.nii.gz")])
def test_output_names_are_the_path_as_typed_without_extension(path, name):
    assert output_name(path) == name


def test_files_folders_and_patterns_are_found_once_in_the_order_given(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("b/2.nrrd", "a/1.nii.gz", "a/deep/3.mha", "a/notes.txt", "a/.hidden.nii", "c/4.png"):
        touch(tmp_path / name)
    found = find_images(["b/2.nrrd", "a", "c/*.png", "**/*.nrrd"])
    assert [str(image.path) for image in found] == ["b/2.nrrd", "a/1.nii.gz", "a/deep/3.mha", "c/4.png"]
    assert [image.output_name for image in found] == ["b/2", "a/1", "a/deep/3", "c/4"]


def test_segmentations_beside_the_images_are_passed_over(tmp_path):
    touch(tmp_path / "case.nrrd")
    touch(tmp_path / "case.seg.nrrd")
    assert [image.path.name for image in find_images([tmp_path])] == ["case.nrrd"]


def test_output_names_are_unique(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("x/a.nii.gz", "x/a.nrrd", "x/a.mha"):
        touch(tmp_path / name)
    names = [image.output_name for image in find_images(["x"])]
    assert len(set(names)) == 3
    assert set(names) == {"x/a_nii_gz", "x/a_nrrd", "x/a_mha"}


def test_the_same_file_by_two_ways_is_found_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    touch(tmp_path / "a.nii")
    assert len(find_images(["a.nii", tmp_path / "a.nii", "./a.nii"])) == 1


def test_names_with_spaces_umlauts_and_brackets_are_files_not_patterns(tmp_path):
    path = touch(tmp_path / "Über uns" / "scan [1] *.nii")
    assert [image.path for image in find_images([path])] == [path]


def test_all_problems_come_in_one_message(tmp_path):
    (tmp_path / "empty").mkdir()
    touch(tmp_path / "fine.nii")
    (tmp_path / "zero.nii").touch()
    with pytest.raises(BadInput) as caught:
        find_images([tmp_path / "empty", tmp_path / "absent.nii", tmp_path / "*.mha", tmp_path / "fine.nii",
                     tmp_path / "zero.nii"])
    message = str(caught.value)
    for part in ("empty contains no images", "absent.nii does not exist", "*.mha", "zero.nii is empty"):
        assert part in message


def test_nothing_given_is_refused():
    with pytest.raises(BadInput, match="No images"):
        find_images([])


def test_the_folder_one_stands_in_has_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    touch(tmp_path / "a.nii")
    assert [(str(image.path), image.output_name) for image in find_images([Path()])] == [("a.nii", "a")]


def test_links_that_lead_in_a_circle_are_not_followed(tmp_path):
    touch(tmp_path / "a.png")
    touch(tmp_path / "deep" / "b.png")
    (tmp_path / "again").symlink_to(".")
    (tmp_path / "deep" / "up").symlink_to("..")
    (tmp_path / "deep" / "also").symlink_to(tmp_path)
    assert [image.path for image in find_images([tmp_path])] == [tmp_path / "a.png", tmp_path / "deep" / "b.png"]


def test_links_to_nowhere_are_images_that_cannot_be_read(tmp_path):
    touch(tmp_path / "a.png")
    (tmp_path / "itself.png").symlink_to("itself.png")
    (tmp_path / "missing.png").symlink_to("elsewhere/missing.png")
    (tmp_path / "folder").symlink_to("folder")
    assert [image.path.name for image in find_images([tmp_path])] == ["a.png", "itself.png", "missing.png"]


def test_a_folder_that_may_not_be_read_stands_for_its_images(tmp_path, monkeypatch):
    touch(tmp_path / "a.png")
    touch(tmp_path / "secret" / "b.png")
    scandir = os.scandir

    def refusing(folder):
        if os.fspath(folder).endswith("secret"):
            raise PermissionError(13, "Permission denied", str(folder))
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refusing)
    assert [image.path.name for image in find_images([tmp_path])] == ["a.png", "secret"]
