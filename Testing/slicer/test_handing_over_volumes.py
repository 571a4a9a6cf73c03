"""A volume node reaches the engine as voxels and geometry, whatever the node looks like."""

from __future__ import annotations

import numpy as np
import pytest
import slicer
import vtk
from conftest import OBLIQUE


def _read(path):
    import SimpleITK

    image = SimpleITK.ReadImage(str(path))
    lps = np.eye(4)
    lps[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) @ np.diag(image.GetSpacing())
    lps[:3, 3] = image.GetOrigin()
    return SimpleITK.GetArrayFromImage(image), np.diag([-1, -1, 1, 1]) @ lps


def _put_under(scene, node, matrix):
    transform = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    transform.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(matrix))
    node.SetAndObserveTransformNodeID(transform.GetID())


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "uint16", "int32", "uint32", "float32", "float64"])
def test_every_voxel_type_arrives_unchanged(make_volume, tmp_path, dtype):
    from MedMAESegmentLib.VolumeExport import writeVolume

    node = make_volume(dtype=dtype)
    writeVolume(node, tmp_path / "v.nrrd")
    array, affine = _read(tmp_path / "v.nrrd")
    assert array.dtype == dtype
    np.testing.assert_array_equal(array, slicer.util.arrayFromVolume(node))
    np.testing.assert_allclose(affine, OBLIQUE, atol=1e-9)


def test_colour_arrives_as_colour(scene, tmp_path):
    from MedMAESegmentLib.VolumeExport import writeVolume

    colours = np.random.default_rng(1).integers(0, 255, (1, 5, 7, 3)).astype(np.uint8)
    node = slicer.util.addVolumeFromArray(colours, nodeClassName="vtkMRMLVectorVolumeNode")
    writeVolume(node, tmp_path / "v.nrrd")
    array, _ = _read(tmp_path / "v.nrrd")
    np.testing.assert_array_equal(array, colours)


def test_no_name_and_no_attribute_of_the_node_is_written(make_volume, tmp_path):
    from MedMAESegmentLib.VolumeExport import writeVolume

    node = make_volume(name="DOE^JANE")
    node.SetAttribute("DICOM.PatientName", "DOE^JANE")
    node.SetDescription("DOE^JANE")
    writeVolume(node, tmp_path / "v.nrrd")
    assert b"DOE" not in (tmp_path / "v.nrrd").read_bytes()


def test_a_rigid_parent_transform_turns_what_the_network_sees(scene, make_volume, tmp_path):
    from MedMAESegmentLib.VolumeExport import writeVolume

    node = make_volume()
    turn = np.array([[0, -1, 0, 5], [1, 0, 0, 6], [0, 0, 1, 7], [0, 0, 0, 1.0]])
    _put_under(scene, node, turn)
    writeVolume(node, tmp_path / "v.nrrd")
    np.testing.assert_allclose(_read(tmp_path / "v.nrrd")[1], turn @ OBLIQUE, atol=1e-9)


def test_a_shearing_or_warping_parent_transform_does_not(scene, make_volume):
    from MedMAESegmentLib.VolumeExport import networkGeometry

    node = make_volume()
    _put_under(scene, node, np.array([[1, 0.3, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]))
    np.testing.assert_allclose(networkGeometry(node), OBLIQUE)
    warp = vtk.vtkThinPlateSplineTransform()
    warp.SetSourceLandmarks(vtk.vtkPoints())
    warp.SetTargetLandmarks(vtk.vtkPoints())
    transform = scene.AddNewNodeByClass("vtkMRMLTransformNode")
    transform.SetAndObserveTransformToParent(warp)
    node.SetAndObserveTransformNodeID(transform.GetID())
    np.testing.assert_allclose(networkGeometry(node), OBLIQUE)


def test_events_are_handled_while_a_large_volume_is_written(scene, tmp_path):
    from MedMAESegmentLib.VolumeExport import writeVolume

    node = slicer.util.addVolumeFromArray(np.zeros((100, 512, 512), np.float32))
    pumped = []
    writeVolume(node, tmp_path / "v.nrrd", lambda: pumped.append(1))
    assert len(pumped) >= 4


def test_an_empty_volume_is_refused_with_what_to_do(scene, tmp_path):
    from MedMAESegmentLib.VolumeExport import writeVolume

    with pytest.raises(ValueError, match="is empty. Load"):
        writeVolume(scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "x"), tmp_path / "v.nrrd")
    with pytest.raises(ValueError, match="A volume is needed"):
        writeVolume(None, tmp_path / "v.nrrd")
