"""PNG, JPEG and TIFF: Pillow and tifffile write them."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image

from .case import Case, Make, Reads, Refused, cut, flip_bits, rewritten, written

FLAT = np.diag([-1.0, -1, 1, 1])
GREY = ((np.arange(40 * 50) * 7919) % 251).reshape(40, 50).astype(np.uint8)
COLOUR = np.stack([GREY, GREY[::-1], GREY[:, ::-1]], -1)
STACK = np.stack([GREY, GREY + 1, GREY + 2])


def picture(pixels: np.ndarray, affine: np.ndarray = FLAT, **more: Any) -> Reads:
    return Reads(pixels.swapaxes(0, 1)[:, :, None], affine, **more)


def good(name: str, pixels: np.ndarray = GREY, **options: Any) -> Make:
    def make(folder: Path) -> Path:
        Image.fromarray(pixels).save(folder / name, **options)
        return folder / name

    return make


def tiff(pixels: np.ndarray = STACK, **options: Any) -> Make:
    def make(folder: Path) -> Path:
        tifffile.imwrite(folder / "a.tif", pixels, **{"photometric": "minisblack", **options})
        return folder / "a.tif"

    return make


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, data: bytes, *more: bytes, bits: int = 8, kind: int = 0) -> Make:
    head = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)
    parts = (chunk(b"IHDR", head), *more, chunk(b"IDAT", data), chunk(b"IEND", b""))
    return written("a.png", b"\x89PNG\r\n\x1a\n" + b"".join(parts))


def tagged(number: int, value: int, make: Make | None = None) -> Make:
    """Overwrite the value of a tag of the first page of a TIFF (or its count, if it is large)."""

    def remake(folder: Path) -> Path:
        path = (make or tiff())(folder)
        with tifffile.TiffFile(path) as file:
            tag = file.pages[0].tags[number]
            at, size = tag.valueoffset, {3: 2, 4: 4}.get(int(tag.dtype), 2)
        raw = bytearray(path.read_bytes())
        raw[at : at + size] = value.to_bytes(size, "little")
        path.write_bytes(bytes(raw))
        return path

    return remake


def pngs() -> Iterator[Case]:
    rows = zlib.compress(b"".join(b"\0" + row.tobytes() for row in GREY))
    family = "PNG"
    yield Case(family, "good", good("a.png"), picture(GREY))
    yield Case(family, "colours", good("a.png", COLOUR), picture(COLOUR))
    deep = GREY.astype(np.uint16) * 257
    yield Case(family, "16 bits", good("a.png", deep), picture(deep))
    for at in (0, 4, 8, 20, 33, 60, 0.5, 0.8):
        yield Case(family, f"cut at {at}", cut(good("a.png"), at), Refused("."))
    for name, width, height in (
        ("too large by 1000", 50000, 40000),
        ("of 2 billion rows", 50, 2**31 - 1),
        ("without columns", 0, 40),
        ("without rows", 50, 0),
        ("larger than the limit", 2**20, 2**20),
        ("one row too many", 50, 41),
    ):
        yield Case(family, name, png(width, height, rows), Refused("."))
    yield Case(family, "an unknown colour type", png(50, 40, rows, kind=5), Refused("."))
    yield Case(family, "7 bits", png(50, 40, rows, bits=7), Refused("."))
    yield Case(family, "damaged pixels", png(50, 40, b"\x78\x9c" + b"\xff" * 50), Refused("."))
    text = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"\0" * (100 << 20)))
    yield Case(
        family,
        "a text of 100 MB",
        png(50, 40, rows, text),
        lambda path: picture(GREY, or_refused=True),
    )
    tiny = chunk(b"pHYs", struct.pack(">IIB", 0, 0, 1))
    yield Case(family, "a density of zero", png(50, 40, rows, tiny), picture(GREY))
    fine = chunk(b"pHYs", struct.pack(">IIB", 20000, 10000, 1))
    yield Case(
        family, "a density", png(50, 40, rows, fine), picture(GREY, np.diag([-0.05, -0.1, 1, 1]))
    )
    yield Case(family, "a palette that is absent", png(50, 40, rows, kind=3), Refused("."))
    yield Case(family, "a JPEG inside", rewritten(good("a.jpg"), lambda raw: raw, "a.png"),
               lambda path: picture(np.asarray(Image.open(path))))  # fmt: skip
    for seed in range(8):
        yield Case(
            family,
            f"a bit, seed {seed}",
            rewritten(good("a.png"), lambda raw, seed=seed: flip_bits(raw, seed, 8, len(raw) - 12)),
            picture_oracle,
        )


def picture_oracle(path: Path) -> Reads | Refused:
    try:
        with Image.open(path) as image:
            if image.mode not in ("L", "RGB"):
                return Refused(".")
            return picture(np.asarray(image), or_refused=True)
    except Exception:
        return Refused(".")


def jpegs() -> Iterator[Case]:
    family = "JPEG"
    yield Case(family, "good", good("a.jpg"), picture_oracle)
    yield Case(family, "colours", good("a.jpg", COLOUR), picture_oracle)
    for at in (2, 4, 30, 0.3, 0.9):
        yield Case(family, f"cut at {at}", cut(good("a.jpg"), at), Refused("."))

    def sized(raw: bytes) -> bytes:
        at = raw.index(b"\xff\xc0") + 5
        return raw[:at] + b"\xff\xf0\xff\xf0" + raw[at + 4 :]

    yield Case(family, "huge", rewritten(good("a.jpg"), sized), Refused("."))
    inks = np.dstack([COLOUR, GREY])

    def printed(folder: Path) -> Path:
        Image.fromarray(inks, "CMYK").save(folder / "a.jpg")
        return folder / "a.jpg"

    yield Case(family, "inks", printed, Refused("CMYK"))
    for seed in range(6):
        yield Case(
            family,
            f"a bit of the header, seed {seed}",
            rewritten(good("a.jpg"), lambda raw, seed=seed: flip_bits(raw, seed, 2, 600)),
            picture_oracle,
        )


def tiffs() -> Iterator[Case]:
    family = "TIFF"
    stack = Reads(STACK.transpose(2, 1, 0), FLAT)
    yield Case(family, "good", tiff(), stack)
    yield Case(family, "BigTIFF", tiff(bigtiff=True), stack)
    yield Case(family, "big-endian", tiff(byteorder=">"), stack)
    yield Case(family, "deflate", tiff(compression="zlib"), stack)
    yield Case(family, "tiles", tiff(tile=(16, 16)), stack)
    yield Case(family, "LZW", good("a.tif", compression="tiff_lzw"), picture(GREY))
    for at in (0, 4, 8, 20, 100, 0.4, 0.9):
        yield Case(family, f"cut at {at}", cut(tiff(metadata=None), at), Refused("."))
        yield Case(family, f"deflate cut at {at}", cut(tiff(compression="zlib"), at), Refused("."))
    bad = {
        "huge width": (256, 60000),
        "no width": (256, 0),
        "huge height": (257, 60000),
        "no height": (257, 0),
        "unknown compression": (259, 4711),
        "unknown colours": (262, 99),
        "inks": (262, 5),
        "pixels beyond the end": (273, 60000),
        "7 bits": (258, 7),
        "999 bits": (258, 999),
    }
    for name, (tag, value) in bad.items():
        yield Case(family, name, tagged(tag, value, tiff(GREY, metadata=None)), Refused("."))
    yield Case(family, "complex", tiff(STACK.astype("c8")), Refused("complex64"))
    many = tiff(np.ones((2, 3, 4, 5, 6), "f4"), metadata={"axes": "RPTYX"})
    yield Case(family, "axes that no scan has", many, Refused("axes that no scan has"))

    def looped(folder: Path) -> Path:
        path = tiff(GREY, metadata=None)(folder)
        raw = bytearray(path.read_bytes())
        first = int.from_bytes(raw[4:8], "little")
        count = int.from_bytes(raw[first : first + 2], "little")
        at = first + 2 + 12 * count
        raw[at : at + 4] = first.to_bytes(4, "little")
        path.write_bytes(bytes(raw))
        return path

    yield Case(family, "pages in a circle", looped, picture(GREY, or_refused=True))
    imagej = tiff(STACK, imagej=True, resolution=(2, 4), metadata={"spacing": 3, "unit": "mm"})
    yield Case(
        family, "ImageJ", imagej, Reads(STACK.transpose(2, 1, 0), np.diag([-0.5, -0.25, 3, 1]))
    )

    def claims(raw: bytes) -> bytes:
        return raw.replace(b"images=3", b"images=9").replace(b"slices=3", b"slices=9")

    measured = Reads(STACK.transpose(2, 1, 0), np.diag([-0.5, -0.25, 3, 1]))
    maybe = Reads(measured.values, measured.affine, or_refused=True)
    yield Case(family, "ImageJ of more slices", rewritten(imagej, claims), maybe)
    for value in (b"0", b"-", b"x"):
        change = rewritten(imagej, lambda raw, v=value: raw.replace(b"spacing=3", b"spacing=" + v))
        unknown = Reads(measured.values, np.diag([-0.5, -0.25, 1, 1]))
        expect = Refused("spacing of 0 mm") if value == b"0" else unknown
        yield Case(family, f"ImageJ spacing {value.decode()}", change, expect)
    sizes = {"PhysicalSizeX": 500.0, "PhysicalSizeY": 250.0, "PhysicalSizeZ": 3000.0}
    ome = tiff(STACK, ome=True, metadata={"axes": "ZYX", **sizes})
    yield Case(family, "OME", ome, measured)
    for old, new, expect in (
        (b'PhysicalSizeX="500.0"', b'PhysicalSizeX="-1.00"', Refused("spacing of")),
        (b'PhysicalSizeX="500.0"', b'PhysicalSizeX="abcde"', Refused(".")),
        (b'PhysicalSizeX="500.0"', b'PhysicalSizeX="nan  "', Refused("spacing of")),
        (b'SizeZ="3"', b'SizeZ="9"', maybe),
        (b"<Pixels", b"<Pixelz", maybe),
    ):
        change = rewritten(ome, lambda raw, old=old, new=new: raw.replace(old, new, 1))
        yield Case(family, f"OME {new.decode()}", change, expect)
    for seed in range(10):
        yield Case(
            family,
            f"a bit of the directory, seed {seed}",
            rewritten(
                tiff(GREY, metadata=None), lambda raw, seed=seed: flip_bits(raw, seed, 0, 260)
            ),
            tiff_oracle,
        )


def tiff_oracle(path: Path) -> Reads | Refused:
    try:
        pixels = tifffile.imread(path)
    except Exception:
        return Refused(".")
    return picture(pixels, or_refused=True) if pixels.ndim == 2 else Refused(".")


CASES = (*pngs(), *jpegs(), *tiffs())
