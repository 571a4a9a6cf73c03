"""Two-dimensional pictures: PNG, JPEG and TIFF, 8 and 16 bit, grey, colour and palette."""

from __future__ import annotations

import struct
import tempfile
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medmae.errors import BadInput
from medmae.volumes.frames import choose_frame
from medmae.volumes.geometry import Geometry
from medmae.volumes.simpleitk_images import execute, open_reader, simpleitk
from medmae.volumes.volume import Volume

PICTURE_ENDINGS = (".png", ".jpg", ".jpeg", ".tif", ".tiff")

_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8"
_TIFF = {b"II*\x00": "<", b"MM\x00*": ">"}
_PNG_PALETTE, _PNG_GREY_ALPHA, _TIFF_PHOTOMETRIC, _TIFF_PALETTE, _TIFF_BLACK_IS_ZERO = 3, 4, 262, 3, 1


def picture_geometry(rows: int, columns: int) -> Geometry:
    """The grid given to pictures: columns towards the patient's left, rows towards the back (LPS), 1 mm apart."""
    return Geometry.of((1, rows, columns), (1.0, 1.0, 1.0), axes="LPS")


def read_picture(path: Path, *, frame: int | None = None) -> Volume:
    """Read a picture as (1 or 3, 1, rows, columns), in its stored depth.

    The palette of a picture is ignored and its indices are returned: masks are often stored with a palette. An alpha
    channel is dropped.

    Args:
        path: PNG, JPEG or TIFF file.
        frame: the page of a TIFF with several.

    Raises:
        BadInput: the file is damaged or not of the type its name says; it has several pages and no frame is given.
    """
    with open(path, "rb") as file:
        start = file.read(33)
    _refuse_other_type(path, start)
    if start.startswith(_PNG) and len(start) > 25 and start[25] == _PNG_GREY_ALPHA:
        return _picture(_read_grey_alpha(path), path, frame)
    if start.startswith(_JPEG):
        _refuse_truncated_jpeg(path)
    plain = _without_palette(path, start)
    return _picture(_read(path) if plain is None else _read_bytes(plain, path), path, frame)


def _picture(array: NDArray, path: Path, frame: int | None) -> Volume:
    """One page of pictures (C, pages, rows, columns)."""
    page = choose_frame(path, array.shape[1], frame)
    array = np.ascontiguousarray(array[:, page:page + 1])
    return Volume(array, picture_geometry(*array.shape[2:]), is_2d=True, spacing_known=False, source=str(path))


def _refuse_other_type(path: Path, start: bytes) -> None:
    ending = path.suffix.lower()
    signatures = {".png": (_PNG,), ".jpg": (_JPEG,), ".jpeg": (_JPEG,)}
    if not start.startswith(signatures.get(ending, (*_TIFF, b"II+\x00", b"MM\x00+"))):
        raise BadInput(f"{path} is not a {ending} file, although its name says so. Check that the file was copied "
                       "whole and has the right name.")


def _refuse_truncated_jpeg(path: Path) -> None:
    """JPEG readers fill what is missing with grey instead of failing."""
    data = path.read_bytes()
    if data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda"):  # no end of image after the last start of scan
        raise BadInput(f"{path} is incomplete: it ends within the picture. Copy or export it again.")


def _read(path: Path, *, keep_alpha: bool = False) -> NDArray:
    """(C, pages, rows, columns)."""
    reader = open_reader(path)
    image = execute(reader, path)
    array = simpleitk().GetArrayFromImage(image)
    colours = image.GetNumberOfComponentsPerPixel()
    array = np.moveaxis(array, -1, 0) if colours > 1 else array[None]
    array = array[:, None] if array.ndim == 3 else array
    if colours in (2, 4) and not keep_alpha:
        array = array[:colours - 1]
    return array


def _read_grey_alpha(path: Path) -> NDArray:
    """Grey of a PNG with grey and alpha, which SimpleITK cannot read: 8 + 8 bits are read as grey of 16, and 16 + 16
    bits as four colours of 8; pixels have the same size and the filters work on bytes, so that nothing changes."""
    data = bytearray(path.read_bytes())
    wide = data[24] == 16
    data[24:26] = bytes([8, 6]) if wide else bytes([16, 0])  # bits, colour type
    array = _read_bytes(_png_as_grey(bytes(data), colour_type=data[25]), path, colours=4 if wide else 1)
    return (array[:1].astype(np.uint16) << 8) | array[1:2] if wide else (array >> 8).astype(np.uint8)


def _read_bytes(data: bytes, path: Path, colours: int = 0) -> NDArray:
    with tempfile.TemporaryDirectory(prefix="medmae-") as folder:
        copy = Path(folder) / f"picture{path.suffix.lower()}"
        copy.write_bytes(data)
        try:
            array = _read(copy, keep_alpha=colours == 4)
        except BadInput as error:
            raise BadInput(str(error).replace(str(copy), str(path))) from None
    if colours:
        return array
    bits = data[24] if data.startswith(_PNG) else 8
    # PNG readers stretch 1-, 2- and 4-bit grey to 0..255; undo it to get the indices back.
    return array // (255 // (2 ** bits - 1)) if bits < 8 else array


def _without_palette(path: Path, start: bytes) -> bytes | None:
    """The file's bytes with a palette picture relabelled as grey, so that its indices are read; else None."""
    if start.startswith(_PNG):
        return _png_as_grey(path.read_bytes()) if len(start) > 25 and start[25] == _PNG_PALETTE else None
    return _tiff_as_grey(path.read_bytes(), _TIFF[start[:4]]) if start[:4] in _TIFF and len(start) >= 8 else None


def _png_as_grey(data: bytes, colour_type: int = 0) -> bytes:
    """The PNG without its palette and what depends on the kind of pixels, relabelled as another `colour_type`."""
    parts, position = [_PNG], len(_PNG)
    while position + 12 <= len(data):
        length = struct.unpack_from(">I", data, position)[0]
        kind, body = data[position + 4:position + 8], data[position + 8:position + 8 + length]
        if kind == b"IHDR":
            body = body[:9] + bytes([colour_type]) + body[10:]
        if kind not in (b"PLTE", b"tRNS", b"bKGD", b"hIST", b"sPLT", b"sBIT", b"gAMA", b"iCCP"):
            crc = (zlib.crc32(kind + body) if kind == b"IHDR"
                   else struct.unpack(">I", data[position + 8 + length:position + 12 + length].rjust(4, b"\x00"))[0])
            parts.append(struct.pack(">I", length) + kind + body + struct.pack(">I", crc))
        position += 12 + length
    return b"".join(parts)


def _tiff_as_grey(data: bytes, order: str) -> bytes | None:
    """Set the photometric tag of every page that has a palette to plain grey; None when there is no such page."""
    changed, found, page = bytearray(data), False, struct.unpack_from(f"{order}I", data, 4)[0]
    seen: set[int] = set()
    while page and page not in seen and page + 2 <= len(data):
        seen.add(page)
        entries = struct.unpack_from(f"{order}H", data, page)[0]
        if page + 2 + 12 * entries + 4 > len(data):
            break
        for entry in range(page + 2, page + 2 + 12 * entries, 12):
            tag, _, _, value = struct.unpack_from(f"{order}HHIH", data, entry)
            if tag == _TIFF_PHOTOMETRIC and value == _TIFF_PALETTE:
                struct.pack_into(f"{order}H", changed, entry + 8, _TIFF_BLACK_IS_ZERO)
                found = True
        page = struct.unpack_from(f"{order}I", data, page + 2 + 12 * entries)[0]
    return bytes(changed) if found else None
