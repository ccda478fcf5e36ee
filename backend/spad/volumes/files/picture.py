"""Reading plain pictures: PNG and JPEG with their colours, palettes, turns and densities."""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from spad.errors import SpadError
from spad.volumes.colors import Rgba
from spad.volumes.files import disk
from spad.volumes.files.assemble import assemble, radiological_affine
from spad.volumes.files.itk import itk_image
from spad.volumes.files.labels import named_as_labels, names_beside, with_labels
from spad.volumes.files.options import Options
from spad.volumes.files.reasons import reason
from spad.volumes.files.units import Steps, choose_spacing, spacing_of_density
from spad.volumes.volume import Volume

LIMIT = 1 << 30
"""Most bytes that a compressed picture may take in memory."""

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_ORIENTATION = 0x0112
_PIECE = 1 << 20
# deflate cannot shrink data by more than this
_DEFLATE_LIMIT = 1032
# Huffman codes spend at least one bit on each block of 8 x 8 pixels
_JPEG_PIXELS_PER_BYTE = 512
_PNG_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}


@dataclass
class Picture:
    """A decoded picture or stack, before its geometry is settled.

    Attributes:
        array: in file order, one axis per letter of `axes`.
        axes: "ijk", "ijkt", "ijkc" or "ijktc".
        rgb: whether the channels are colours.
        steps: mm along i, j and k as the file says, None where it does not.
        notes: sentences for the person who opens it.
        colors: colours of ids if the pixels are a palette's indices.
        fields: more fields of `Volume`.
    """

    array: Any
    axes: str
    rgb: bool = False
    steps: Steps = (None, None, None)
    notes: list[str] = field(default_factory=list)
    colors: dict[int, Rgba] | None = None
    fields: dict[str, Any] = field(default_factory=dict)


def read(path: Path, options: Options) -> Volume:
    """Read a PNG, JPEG or TIFF file; see `spad.volumes.files.read`.

    A picture is one slice: file axis i runs along a row (to the left of the body, as if it were a
    radiological axial slice), j down a column (to posterior). Spacing is what a person states,
    else the file's (a density for screens or print does not count), else 1 mm with a note.

    Raises:
        SpadError: it is damaged, claims more than it can hold, or is of a kind that is no scan.
    """
    start = disk.read_start(path, 32)
    if start.startswith(_TIFF):
        from spad.volumes.files import tiff

        picture = tiff.load(path, options)
    elif start.startswith((_PNG, _JPEG)):
        picture = _load_pillow(path, options, png=start.startswith(_PNG))
    else:
        raise SpadError(
            f"{path} is not a PNG, JPEG or TIFF picture (it starts with {start[:4]!r}); expected "
            "one of these; check that it is the right file and complete."
        )
    flat = picture.array.shape[2] == 1
    spacing, notes = choose_spacing(path, options, picture.steps, flat=flat)
    volume = assemble(
        picture.array,
        radiological_affine(spacing),
        axes=picture.axes,
        path=path,
        format="image",
        options=options,
        rgb=picture.rgb,
        notes=(*picture.notes, *notes),
        **picture.fields,
    )
    if options.labels is not False and picture.colors is not None:
        found = with_labels(volume, path, options, header_says=True)
        return _colored(found, picture.colors)
    return with_labels(volume, path, options)


def wants_ids(path: Path, options: Options) -> bool:
    """Whether a picture with a palette is to be read as label ids rather than as colours."""
    if options.labels is not None:
        return options.labels
    return named_as_labels(path) or names_beside(path) is not None


def upright(array: np.ndarray, orientation: int, notes: list[str]) -> tuple[np.ndarray, bool]:
    """Turn a picture (rows and columns first) as its orientation tag (TIFF 274, EXIF) asks.

    Returns:
        A view, and whether rows and columns changed places.
    """
    if orientation not in range(2, 9):
        return array, False
    swapped = orientation >= 5
    view = array.swapaxes(0, 1) if swapped else array
    if orientation in (3, 4, 7, 8):
        view = view[::-1]
    if orientation in (2, 3, 6, 7):
        view = view[:, ::-1]
    notes.append(f"The picture is stored turned (orientation tag {orientation}); shown upright.")
    return view, swapped


def pixels_of(image: Any) -> np.ndarray:
    """Give a Pillow image as an array (rows and columns first); one bit per pixel as bool."""
    # Pillow's own bool arrays hold the byte 255
    return np.array(image.convert("L")) > 0 if image.mode == "1" else np.array(image)


@contextmanager
def decoding(path: Path, kind: str) -> Iterator[None]:
    """Make a sentence of what the decoder of a file raises: on damaged data, anything."""
    try:
        yield
    except SpadError:
        raise
    except MemoryError as error:
        raise SpadError(
            f"{path} needs more memory than is free; close other programs or crop the picture."
        ) from error
    except Exception as error:
        raise SpadError(
            f"{path} cannot be decoded as a {kind} ({reason(error, path)}); expected a complete "
            f"{kind}; copy or export it again."
        ) from error


def palette_colors(rgba: np.ndarray, used: np.ndarray) -> dict[int, Rgba]:
    """Give the palette's colours of the ids that occur, except 0 (shape (n, 4), uint8)."""
    return {
        int(one): (r, g, b, a)
        for one in np.unique(used)
        if 0 < one < len(rgba)
        for r, g, b, a in [(rgba[int(one)] / 255).tolist()]
    }


def _colored(volume: Volume, colors: dict[int, Rgba]) -> Volume:
    from dataclasses import replace

    return replace(volume, label_colors=colors)


def _load_pillow(path: Path, options: Options, *, png: bool) -> Picture:
    from PIL.JpegImagePlugin import JpegImageFile
    from PIL.PngImagePlugin import PngImageFile

    kind = "PNG" if png else "JPEG"
    deep = _check_png(path) if png else False
    with decoding(path, kind), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # not Image.open, whose limit on pixels is one for the whole process
        with (PngImageFile if png else JpegImageFile)(path) as image:
            if not png:
                _check_jpeg(path, image)
            return _decode(path, image, options, deep=deep)


def _decode(path: Path, image: Any, options: Options, *, deep: bool) -> Picture:
    """Decode an open Pillow image; `deep` colours have 16 bits, which Pillow would cut to 8."""
    notes: list[str] = []
    if getattr(image, "n_frames", 1) > 1:
        notes.append(f"The file holds {image.n_frames} pictures; the first is read.")
    steps, said = spacing_of_density(*image.info["dpi"]) if "dpi" in image.info else (None, [])
    notes += said
    orientation = int(image.getexif().get(_ORIENTATION, 1))
    colors = None
    if deep:
        pixels = _deep_colors(path)
    elif image.mode == "P" and wants_ids(path, options):
        image.load()
        colors = palette_colors(_palette(image), np.asarray(image))
        pixels = np.array(image)
    else:
        pixels = pixels_of(_plain(path, image, notes))
    pixels, swapped = upright(pixels, orientation, notes)
    pixels = pixels.view(np.uint8) if pixels.dtype.kind == "b" else pixels
    i, j, k = steps or (None, None, None)
    return Picture(
        array=pixels.swapaxes(0, 1)[:, :, None],
        axes="ijk" if pixels.ndim == 2 else "ijkc",
        rgb=pixels.ndim == 3,
        steps=(j, i, k) if swapped else (i, j, k),
        notes=notes,
        colors=colors,
    )


def _plain(path: Path, image: Any, notes: list[str]) -> Any:
    """Give an image of grey values, RGB or RGBA."""
    if image.mode in ("1", "L", "RGB", "RGBA") or image.mode.startswith("I"):
        return image
    if image.mode == "P":
        return image.convert("RGBA" if "transparency" in image.info else "RGB")
    if image.mode == "LA":
        grey, alpha = image.split()
        if alpha.getextrema() == (255, 255):
            return grey
        notes.append("The picture is grey with transparency; it is read as colours.")
        return image.convert("RGBA")
    raise SpadError(
        f"{path} holds colours of the kind {image.mode} (inks for print); expected grey values, "
        "RGB or a palette; convert it to RGB first."
    )


def _palette(image: Any) -> np.ndarray:
    """Give the palette of an image of mode P as (n, 4) uint8."""
    rgb = np.array(image.getpalette("RGB"), np.uint8).reshape(-1, 3)
    return np.concatenate([rgb, np.full((len(rgb), 1), 255, np.uint8)], axis=1)


def _deep_colors(path: Path) -> np.ndarray:
    """Decode colours of 16 bits, rows and columns first."""
    try:
        import SimpleITK
    except ImportError as error:
        raise SpadError(
            f"{path} holds colours of 16 bits, which need SimpleITK; expected 8 bits without it; "
            "install it with: pip install simpleitk."
        ) from error
    try:
        return np.asarray(SimpleITK.GetArrayFromImage(itk_image(path, "PNGImageIO")))
    except RuntimeError as error:
        raise SpadError(
            f"{path} holds damaged 16-bit colours; expected a complete PNG; copy or export it "
            "again."
        ) from error


def _check_png(path: Path) -> bool:
    """Check a PNG's claims (ISO 15948, IHDR) against its size before a byte is decoded.

    Returns:
        Whether it holds more than one sample of 16 bits per pixel.
    """
    head = disk.read_start(path, 33)
    if len(head) < 33 or head[12:16] != b"IHDR":
        raise SpadError(
            f"{path} ends within its header or has none; expected a complete PNG; copy or export "
            "it again."
        )
    width, height, bits, kind = struct.unpack(">IIBB", head[16:26])
    samples = _PNG_SAMPLES.get(kind, 1)
    _check_claim(path, width, height, (bits * samples + 7) // 8)
    row = 1 + (width * bits * samples + 7) // 8
    most = path.stat().st_size * _DEFLATE_LIMIT
    if row * height > most:
        raise _too_much(path, width, height, f"{most} bytes")
    held, palette = _walk_png(path)
    if not head[28] and held < row * height:
        raise _too_much(path, width, height, f"{held} bytes")
    if kind == 3 and not palette:
        raise SpadError(
            f"{path} has no palette although its pixels are indices into one; expected a PLTE "
            "chunk; export it again."
        )
    return bool(bits == 16 and samples > 1)


def _walk_png(path: Path) -> tuple[int, bool]:
    """Count the bytes of rows that a PNG really holds, and tell whether it has a palette.

    Pillow leaves rows black that are not there. Damage is left for Pillow to find.
    """
    held, palette, stream = 0, False, zlib.decompressobj()
    with disk.open_checked(path) as file:
        file.seek(8)
        while len(start := file.read(8)) == 8:
            length, name = int.from_bytes(start[:4], "big"), start[4:]
            palette = palette or name == b"PLTE"
            if name == b"IEND":
                break
            if name != b"IDAT":
                file.seek(length + 4, 1)
                continue
            while length > 0:
                piece = file.read(min(length, _PIECE))
                if not piece:
                    return held, palette
                length -= len(piece)
                try:
                    made = _PIECE
                    while not stream.eof and (piece or made == _PIECE):
                        made = len(stream.decompress(piece, _PIECE))
                        piece = stream.unconsumed_tail
                        held += made
                except zlib.error:
                    return held, palette
            file.seek(4, 1)
    return held, palette


def _check_jpeg(path: Path, image: Any) -> None:
    width, height = image.size
    _check_claim(path, width, height, len(image.getbands()))
    most = path.stat().st_size * _JPEG_PIXELS_PER_BYTE
    if width * height > most:
        raise _too_much(path, width, height, f"{most}")


def _check_claim(path: Path, width: int, height: int, bytes_per_pixel: int) -> None:
    if width < 1 or height < 1:
        raise SpadError(
            f"{path} is empty: its header gives {width} x {height} pixels; expected at least one; "
            "export it again."
        )
    need = width * height * max(bytes_per_pixel, 1)
    if need > LIMIT:
        raise SpadError(
            f"{path} gives {width} x {height} pixels, {need / 2**30:.1f} GiB in memory; expected a "
            f"picture of at most {LIMIT / 2**30:.0f} GiB; crop it or save it as an uncompressed "
            "TIFF."
        )


def _too_much(path: Path, width: int, height: int, most: str) -> SpadError:
    return SpadError(
        f"{path} gives {width} x {height} pixels, but its size allows at most {most} of them; "
        "expected a complete file; copy or export it again."
    )
