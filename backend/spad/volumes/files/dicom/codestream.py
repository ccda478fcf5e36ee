"""One file's frames: read plainly, or decoded by the packages that pydicom knows."""

from __future__ import annotations

import importlib.util
import struct
import sys
from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from spad.errors import SpadError
from spad.volumes.files.dicom.headers import DEFLATED, Header, inflate
from spad.volumes.files.disk import open_checked

if TYPE_CHECKING:
    from spad.volumes.files.dicom.pixels import Layout

_PACKAGES = {
    "1.2.840.10008.1.2.4.50": "python-gdcm or pillow",
    "1.2.840.10008.1.2.4.51": "python-gdcm",
    "1.2.840.10008.1.2.4.57": "python-gdcm",
    "1.2.840.10008.1.2.4.70": "python-gdcm",
    "1.2.840.10008.1.2.4.80": "pyjpegls",
    "1.2.840.10008.1.2.4.81": "pyjpegls",
    "1.2.840.10008.1.2.4.90": "pylibjpeg-openjpeg",
    "1.2.840.10008.1.2.4.91": "pylibjpeg-openjpeg",
    "1.2.840.10008.1.2.4.201": "pylibjpeg-openjpeg",
    "1.2.840.10008.1.2.4.202": "pylibjpeg-openjpeg",
    "1.2.840.10008.1.2.4.203": "pylibjpeg-openjpeg",
}
# GDCM ends the whole process on some damaged streams, so it decodes what no other package does
_CALM = ("pyjpegls", "pylibjpeg", "pillow")
_PALETTE = "PALETTE COLOR"
_EXTENDED = "1.2.840.10008.1.2.4.51"
_LOSSLESS = ("1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70")
_SCAN, _TABLE = 0xDA, 0xC4


class Source:
    """The frames of one file, given one by one.

    Args:
        header: of the file.
        layout: as `pixels.layout_of` checked it.

    Raises:
        SpadError: no installed package decodes its transfer syntax, it holds fewer frames than
            it claims, or they are of another size than its header says.
    """

    def __init__(self, header: Header, layout: Layout) -> None:
        self.header = header
        self.layout = layout
        if not layout.order:
            self._check_decoder()
            if len(self._places) != layout.frames:
                raise SpadError(
                    f"{header.path} holds {len(self._places)} compressed frames but claims "
                    f"{layout.frames}; expected a complete file; copy or export it again."
                )
            self._check_size(self._coded(0, most=1 << 16))

    def read_into(self, number: int, target: np.ndarray) -> None:
        """Read an uncompressed frame into an array of its own type, and settle its bits."""
        layout = self.layout
        if self.header.syntax == DEFLATED:
            target[...] = np.frombuffer(
                self._inflated, layout.dtype.newbyteorder("<"), target.size, self._start(number)
            ).reshape(target.shape)
        else:
            with open_checked(self.header.path) as file:
                file.seek(self._start(number))
                done = file.readinto(target.reshape(-1).view(np.uint8))  # type: ignore[attr-defined]
            if done != target.nbytes:
                raise SpadError(
                    f"{self.header.path} ended while it was read; expected {target.nbytes} bytes "
                    "of pixels; copy it again."
                )
        if (layout.order == ">") == (sys.byteorder == "little") and target.itemsize > 1:
            target.byteswap(inplace=True)
        settle(target, layout)

    def plane(self, number: int) -> np.ndarray:
        """Give a frame as (rows, columns) stored values or (rows, columns, 3) colours."""
        layout = self.layout
        if layout.plain:
            result = np.empty(
                (layout.rows, layout.columns, *((3,) if layout.samples == 3 else ())), layout.dtype
            )
            self.read_into(number, result)
            return result
        return self._decoded(number)

    def _start(self, number: int) -> int:
        place = self.header.pixels
        assert place is not None
        return place.offset + number * self.layout.frame_bytes

    @cached_property
    def _inflated(self) -> bytes:
        layout, place = self.layout, self.header.pixels
        assert place is not None
        need = layout.frame_bytes * layout.frames
        with open_checked(self.header.path) as file:
            block = file.read(self.header.size)
        plain = inflate(block, place.offset + need) if need <= len(block) * 1032 else b""
        if len(plain) < place.offset + need:
            raise SpadError(
                f"{self.header.path} holds less than the {need} bytes of pixels that its header "
                "claims; expected a complete file; copy or export it again."
            )
        return plain

    def _check_decoder(self) -> None:
        from pydicom.pixels import get_decoder
        from pydicom.uid import UID

        syntax = self.header.syntax
        name = UID(syntax).name
        try:
            self._decoder: Any = get_decoder(UID(syntax))
        except NotImplementedError:
            raise SpadError(
                f"{self.header.path} is compressed as {name} ({syntax}), which is not decoded "
                "here; expected JPEG, JPEG-LS, JPEG 2000, RLE or no compression; export it "
                "uncompressed."
            ) from None
        deep = syntax == _EXTENDED and self.layout.stored > 8
        plugins = set(self._decoder.available_plugins) - ({"gdcm", "pillow"} if deep else set())
        if not plugins and not (deep and _has_gdcm()):
            raise SpadError(
                f"{self.header.path} is compressed as {name} ({syntax}) and no installed package "
                f"decodes it; expected one; install {_PACKAGES.get(syntax, 'python-gdcm')} or "
                "export it uncompressed."
            )

    @property
    def _plugin(self) -> str:
        plugins = self._decoder.available_plugins
        return next((name for name in _CALM if name in plugins), "")

    @cached_property
    def _places(self) -> list[list[tuple[int, int]]]:
        """For each frame its fragments: bytes from the file's start, and length."""
        from pydicom.encaps import parse_basic_offsets, parse_fragments

        place = self.header.pixels
        assert place is not None
        try:
            with open_checked(self.header.path) as file:
                file.seek(place.offset)
                table = parse_basic_offsets(file)
                start = file.tell()
                count, offsets = parse_fragments(file)
                items = []
                for offset in offsets[:count]:
                    file.seek(offset + 4)
                    (length,) = struct.unpack("<L", file.read(4))
                    if offset + 8 + length > self.header.size:
                        raise ValueError("the last fragment is cut off")
                    items.append((offset + 8, length))
        except (ValueError, struct.error, EOFError) as error:
            raise SpadError(
                f"{self.header.path} holds compressed pixels that are damaged or cut off "
                f"({error}); expected complete fragments; copy or export it again."
            ) from error
        return self._grouped(items, table, start)

    def _grouped(
        self, items: list[tuple[int, int]], table: list[int], start: int
    ) -> list[list[tuple[int, int]]]:
        frames = self.layout.frames
        if frames == 1:
            return [items] if items else []
        if len(items) == frames or not items:
            return [[item] for item in items]
        if len(table) == frames:
            groups: list[list[tuple[int, int]]] = [[] for _ in table]
            bounds = [start + offset + 8 for offset in table]
            for item in items:
                index = sum(bound <= item[0] for bound in bounds) - 1
                groups[max(index, 0)].append(item)
            return [group for group in groups if group]
        return [[item] for item in items]

    def _coded(self, number: int, most: int | None = None) -> bytes:
        parts = []
        with open_checked(self.header.path) as file:
            for offset, length in self._places[number]:
                file.seek(offset)
                parts.append(file.read(length if most is None else min(length, most)))
        return b"".join(parts)

    def _check_size(self, code: bytes) -> None:
        """Compare what the code stream says with the header, before a decoder believes it."""
        found, bits = coded_size(code), coded_bits(code)
        layout = self.layout
        if bits is not None and not 2 <= bits <= layout.bits:
            raise SpadError(
                f"{self.header.path} holds a compressed image of {bits} bits per value, but its "
                f"header says {layout.bits}; expected at most as many; copy or export it again."
            )
        if found is not None and found != (layout.rows, layout.columns):
            raise SpadError(
                f"{self.header.path} holds a compressed image of {found[1]} x {found[0]} voxels, "
                f"but its header says {layout.columns} x {layout.rows}; expected the same; export "
                "it again."
            )

    def _decoded(self, number: int) -> np.ndarray:
        layout = self.layout
        try:
            plane = self._through_pydicom(number)
            if layout.photometric == _PALETTE:
                plane = self._coloured(plane)
        except SpadError:
            raise
        except Exception as error:  # decoders raise whatever they like on damaged data
            first = str(error).strip().splitlines() or [type(error).__name__]
            raise SpadError(
                f"{self.header.path} holds pixels that cannot be decoded ({first[-1].strip()}); "
                "expected intact data; copy or export it again."
            ) from error
        return plane

    def _through_pydicom(self, number: int) -> np.ndarray:
        from pydicom.encaps import encapsulate
        from pydicom.pixels import get_decoder
        from pydicom.uid import UID, ExplicitVRLittleEndian

        layout, place = self.layout, self.header.pixels
        assert place is not None
        options: dict[str, Any] = {
            "rows": layout.rows,
            "columns": layout.columns,
            "samples_per_pixel": layout.samples,
            "photometric_interpretation": layout.photometric,
            "pixel_representation": int(layout.signed),
            "bits_allocated": layout.bits,
            "bits_stored": layout.stored,
            "number_of_frames": 1,
            "planar_configuration": layout.planar,
            "pixel_keyword": "PixelData",
        }
        if layout.order:
            decoder = get_decoder(
                ExplicitVRLittleEndian
                if self.header.syntax == DEFLATED
                else UID(self.header.syntax)
            )
            data = self._native(number)
            options["pixel_vr"] = "OB" if layout.bits == 8 else "OW"
        else:
            decoder = self._decoder
            code = self._coded(number)
            self._check_size(code)
            deep = self.header.syntax == _EXTENDED and layout.stored > 8 and _has_gdcm()
            by_gdcm = deep or (self.header.syntax in _LOSSLESS and not self._plugin)
            if by_gdcm and not (_jpeg_frame(code) and _has_scan(code)):
                raise ValueError("its segments do not follow each other")
            if deep:
                return _extended(code, layout)
            options["decoding_plugin"] = self._plugin
            data = encapsulate([code], has_bot=False)
        return np.asarray(decoder.as_array(data, index=0, **options)[0])

    def _native(self, number: int) -> bytes:
        layout, place = self.layout, self.header.pixels
        assert place is not None
        size = layout.frame_bytes
        if layout.frames > 1 and layout.frame_bits % 8:
            raise SpadError(
                f"{self.header.path} packs single bits in frames that are not whole bytes; "
                "expected bytes; export it as a segmentation or with 8 bits."
            )
        if self.header.syntax == DEFLATED:
            data = self._inflated[self._start(number) :][:size]
        else:
            first = self._start(number)
            first -= (first - place.offset) % 2
            with open_checked(self.header.path) as file:
                file.seek(first)
                data = file.read(size + 2)
            if layout.order == ">" and layout.bits == 8 and place.vr == "OW":
                # PS3.5 A.3: bytes of words, each word swapped
                data = np.frombuffer(data[: len(data) // 2 * 2], ">u2").astype("<u2").tobytes()
            data = data[self._start(number) - first :][:size]
        return data + b"\0" * (len(data) % 2)

    def _coloured(self, plane: np.ndarray) -> np.ndarray:
        from pydicom.pixels import apply_color_lut

        colours = np.asarray(apply_color_lut(plane, self.header.dataset))[..., :3]
        return colours if colours.dtype == np.uint8 else (colours >> 8).astype(np.uint8)


def _has_gdcm() -> bool:
    return importlib.util.find_spec("gdcm") is not None


def _extended(code: bytes, layout: Layout) -> np.ndarray:
    """Decode JPEG of 12 bits by GDCM, which pydicom does not let it do."""
    import gdcm

    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(code)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((layout.columns, layout.rows, 1))
    image.SetDataElement(element)
    grey = gdcm.PhotometricInterpretation.MONOCHROME2
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(grey))
    syntax = gdcm.TransferSyntax.JPEGExtendedProcess2_4
    image.SetTransferSyntax(gdcm.TransferSyntax(syntax))
    image.SetPixelFormat(
        gdcm.PixelFormat(1, layout.bits, layout.stored, layout.stored - 1, int(layout.signed))
    )
    buffer = image.GetBuffer().encode("utf-8", "surrogateescape")
    return np.frombuffer(buffer, layout.dtype).reshape(layout.rows, layout.columns)


def settle(array: np.ndarray, layout: Layout) -> None:
    """Bring BitsStored bits that end at HighBit down to bit 0, in place (PS3.5 8.1.1).

    The unused bits may hold anything (overlays in old files): they become the sign, or 0.
    """
    if array.dtype.kind not in "iu" or layout.stored == layout.bits:
        return
    up = layout.bits - 1 - layout.high
    if up:
        np.left_shift(array, up, out=array)
    np.right_shift(array, layout.bits - layout.stored, out=array)


def coded_size(code: bytes) -> tuple[int, int] | None:
    """Give rows and columns that a JPEG, JPEG-LS or JPEG 2000 stream states; None if unknown."""
    start = code.find(b"\xff\x4f\xff\x51", 0, 4096)
    if start >= 0 and len(code) >= start + 24:
        x1, y1, x0, y0 = struct.unpack(">4L", code[start + 8 : start + 24])
        return y1 - y0, x1 - x0
    frame = _jpeg_frame(code)
    if frame is None:
        return None
    rows, columns = struct.unpack(">HH", frame[1:5])
    return rows, columns


def coded_bits(code: bytes) -> int | None:
    """Give the bits of a value that a JPEG or JPEG-LS stream states; None if unknown."""
    frame = _jpeg_frame(code)
    return None if frame is None else frame[0]


def _jpeg_frame(code: bytes) -> bytes | None:
    """Give precision, rows and columns of a JPEG's frame header (ITU-T T.81 B.2.2)."""
    for marker, body in _jpeg_segments(code):
        coded = 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)
        if (coded or marker == 0xF7) and len(body) >= 5:
            return body[:5]
    return None


def _has_scan(code: bytes) -> bool:
    """Tell whether the segments of a JPEG, a Huffman table among them, lead to a scan header."""
    found = dict(_jpeg_segments(code))
    scan = found.get(_SCAN, b"")
    return _TABLE in found and len(scan) >= 6 and len(scan) == 4 + 2 * scan[0]


def _jpeg_segments(code: bytes) -> Iterator[tuple[int, bytes]]:
    """Give marker and content of each segment up to the first scan, or to where the row breaks."""
    at = 2 if code[:2] == b"\xff\xd8" else len(code)
    while at + 4 <= len(code) and code[at] == 0xFF:
        marker = code[at + 1]
        if marker == 0xFF:
            at += 1
            continue
        if marker < 0xC0:
            return
        end = at + 2 + int.from_bytes(code[at + 2 : at + 4], "big")
        yield marker, code[at + 4 : end]
        if marker == _SCAN:
            return
        at = end
