import struct
import zlib

import numpy as np
import pytest
import SimpleITK as sitk

from medmae.errors import BadInput
from medmae.volumes import read_image, read_label


def palette_png(path, indices, bits):
    """A palette PNG written byte by byte."""
    rows, columns = indices.shape
    per_byte = 8 // bits
    padded = np.zeros((rows, -(-columns // per_byte) * per_byte), np.uint8)
    padded[:, :columns] = indices
    packed = np.zeros((rows, padded.shape[1] // per_byte), np.uint8)
    for place in range(per_byte):
        packed |= padded[:, place::per_byte] << (8 - bits * (place + 1))
    raw = b"".join(b"\0" + row.tobytes() for row in packed)

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    colours = bytes((37 * index) % 256 for index in range(3 * 2 ** bits))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", columns, rows, bits, 3, 0, 0, 0))
                     + chunk(b"PLTE", colours) + chunk(b"tRNS", b"\0") + chunk(b"IDAT", zlib.compress(raw))
                     + chunk(b"IEND", b""))


@pytest.mark.parametrize("ending", ["png", "tif", "tiff"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_grey_pictures_keep_their_depth(tmp_path, ending, dtype):
    array = (np.arange(12 * 17).reshape(12, 17) * (300 if dtype == np.uint16 else 1)).astype(dtype)
    sitk.WriteImage(sitk.GetImageFromArray(array), str(tmp_path / f"a.{ending}"))
    volume = read_image(tmp_path / f"a.{ending}")
    np.testing.assert_array_equal(volume.array, array[None, None])
    assert volume.array.dtype == dtype


def test_a_picture_lies_lps_one_millimetre_apart_and_says_that_its_spacing_is_unknown(tmp_path):
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((12, 17), np.uint8)), str(tmp_path / "a.png"))
    volume = read_image(tmp_path / "a.png")
    np.testing.assert_array_equal(volume.geometry.affine, np.diag([-1, -1, 1, 1]))
    assert (volume.is_2d, volume.spacing_known, volume.geometry.axes) == (True, False, "LPS")


@pytest.mark.parametrize("ending", ["png", "tif"])
@pytest.mark.parametrize("colours", [3, 4])
def test_colours_become_three_channels(tmp_path, ending, colours):
    array = np.random.default_rng(0).integers(0, 255, (12, 17, colours)).astype(np.uint8)
    sitk.WriteImage(sitk.GetImageFromArray(array, isVector=True), str(tmp_path / f"a.{ending}"))
    np.testing.assert_array_equal(read_image(tmp_path / f"a.{ending}").array[:, 0], np.moveaxis(array, -1, 0)[:3])


def test_a_jpeg_is_read(tmp_path):
    array = np.tile(np.arange(0, 255, 5, dtype=np.uint8), (32, 1))
    sitk.WriteImage(sitk.GetImageFromArray(array), str(tmp_path / "a.jpg"))
    volume = read_image(tmp_path / "a.jpg")
    assert np.abs(volume.array[0, 0].astype(int) - array).max() < 6


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_the_indices_of_a_palette_mask_are_its_labels(tmp_path, bits):
    indices = (np.arange(11 * 13).reshape(11, 13) % 2 ** bits).astype(np.uint8)
    palette_png(tmp_path / "mask.png", indices, bits)
    np.testing.assert_array_equal(read_label(tmp_path / "mask.png").array[0, 0], indices)


def test_the_indices_of_a_palette_tiff_are_its_labels(tmp_path):
    indices = np.arange(6 * 7, dtype=np.uint8).reshape(6, 7)
    entries = [(256, 3, 1, 7), (257, 3, 1, 6), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 3), (273, 4, 1, 8 + 6 + 132),
               (277, 3, 1, 1), (278, 3, 1, 6), (279, 4, 1, 42), (320, 3, 768, 8 + 6 + 132 + 42)]
    directory = struct.pack("<H", len(entries)) + b"".join(
        struct.pack("<HHI", tag, kind, count) + (struct.pack("<I", value) if kind == 4 or count > 1
                                                 else struct.pack("<HH", value, 0))
        for tag, kind, count, value in entries) + struct.pack("<I", 0)
    data = b"II*\0" + struct.pack("<I", 8) + directory
    data = data.ljust(8 + 6 + 132, b"\0") + indices.tobytes() + struct.pack("<768H", *range(768))
    (tmp_path / "mask.tif").write_bytes(data)
    np.testing.assert_array_equal(read_label(tmp_path / "mask.tif").array[0, 0], indices)


def test_a_page_of_a_tiff_is_chosen(tmp_path):
    pages = np.arange(2 * 12 * 17).reshape(2, 12, 17).astype(np.uint16)
    sitk.WriteImage(sitk.GetImageFromArray(pages), str(tmp_path / "pages.tif"))
    np.testing.assert_array_equal(read_image(tmp_path / "pages.tif", frame=1).array[0], pages[1:])
    with pytest.raises(BadInput, match="2 images"):
        read_image(tmp_path / "pages.tif")
