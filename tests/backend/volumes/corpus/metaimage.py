"""MetaImage, .mha and .mhd: ITK writes them, lines of the header are changed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import SimpleITK

from .case import (
    AFFINE,
    GOOD,
    MAYBE,
    VALUES,
    Case,
    Make,
    Reads,
    Refused,
    cut,
    flip_bits,
    rewritten,
    written,
)
from .nrrd import LPS, oracle


def good(name: str = "scan.mha", zipped: bool = False, values: np.ndarray = VALUES) -> Make:
    def make(folder: Path) -> Path:
        image = SimpleITK.GetImageFromArray(values.T.copy())
        image.SetSpacing([0.8, 0.7, 2.5])
        image.SetOrigin(LPS[:3, 3].tolist())
        SimpleITK.WriteImage(image, str(folder / name), useCompression=zipped)
        return folder / name

    return make


def line(key: str, value: str | None, make: Make | None = None) -> Make:
    """Replace a line of the header, or take it out; ElementDataFile stays the last."""

    def change(raw: bytes) -> bytes:
        end = raw.index(b"\n", raw.index(b"ElementDataFile")) + 1
        lines = raw[:end].splitlines()
        new = [] if value is None else [f"{key} = {value}".encode()]
        at = next((n for n, one in enumerate(lines) if one.startswith(key.encode() + b" =")), None)
        if at is None:
            lines[-1:-1] = new
        else:
            lines[at : at + 1] = new
        return b"\n".join(lines) + b"\n" + raw[end:]

    return rewritten(make or good(), change)


def fields() -> Iterator[Case]:
    bad = {
        "no dimensions": ("NDims", None),
        "no axes": ("NDims", "0"),
        "negative dimensions": ("NDims", "-3"),
        "eleven dimensions": ("NDims", "11"),
        "dimensions that are no number": ("NDims", "x"),
        "no sizes": ("DimSize", None),
        "too few sizes": ("DimSize", "12 10"),
        "a size of zero": ("DimSize", "12 0 8"),
        "a negative size": ("DimSize", "12 -10 8"),
        "huge sizes": ("DimSize", "90000 90000 90000"),
        "sizes beyond 64 bits": ("DimSize", "99999999999999999999 9 9"),
        "one slice too many": ("DimSize", "12 10 9"),
        "sizes that are no numbers": ("DimSize", "a b c"),
        "no type": ("ElementType", None),
        "an unknown type": ("ElementType", "MET_WISH"),
        "text voxels": ("ElementType", "MET_STRING"),
        "a spacing of zero": ("ElementSpacing", "0 1 1"),
        "a NaN spacing": ("ElementSpacing", "nan 1 1"),
        "an infinite spacing": ("ElementSpacing", "1 inf 1"),
        "too few spacings": ("ElementSpacing", "1 1"),
        "spacings that are no numbers": ("ElementSpacing", "a b c"),
        "directions of zero": ("TransformMatrix", "0 0 0 0 1 0 0 0 1"),
        "parallel directions": ("TransformMatrix", "1 0 0 1 0 0 0 0 1"),
        "NaN in directions": ("TransformMatrix", "nan 0 0 0 1 0 0 0 1"),
        "too few directions": ("TransformMatrix", "1 0 0 0 1 0"),
        "a NaN origin": ("Offset", "nan 0 0"),
        "too short an origin": ("Offset", "1 2"),
        "zlib that is none": ("CompressedData", "True"),
        "text that is none": ("BinaryData", "False"),
        "no channels": ("ElementNumberOfChannels", "0"),
        "negative channels": ("ElementNumberOfChannels", "-1"),
        "a million channels": ("ElementNumberOfChannels", "1000000"),
        "data in an absent file": ("ElementDataFile", "elsewhere.raw"),
        "data in an absent list": ("ElementDataFile", "LIST\na.raw\nb.raw"),
        "data in an endless pattern": ("ElementDataFile", "a%d.raw 1 999999999 1"),
        "data in a folder": ("ElementDataFile", "."),
        "data in a device": ("ElementDataFile", "/dev/zero"),
        "data nowhere": ("ElementDataFile", ""),
    }
    for name, (key, value) in bad.items():
        yield Case("MetaImage", name, line(key, value), Refused("."))
    for value in ("-0.8 0.7 2.5",):
        mirrored = Reads(VALUES, AFFINE @ np.diag([-1.0, 1, 1, 1]), or_refused=True)
        yield Case("MetaImage", "a negative spacing", line("ElementSpacing", value), mirrored)
    flipped = AFFINE @ np.diag([1.0, 1, -1, 1])
    yield Case(
        "MetaImage",
        "mirrored",
        line("TransformMatrix", "1 0 0 0 1 0 0 0 -1"),
        Reads(VALUES, np.column_stack([flipped[:, :3], AFFINE[:, 3]])),
    )
    yield Case("MetaImage", "an unknown field", line("SkyColor", "blau, größer"), GOOD)
    yield Case(
        "MetaImage",
        "a wrong size of the zipped data",
        line("CompressedDataSize", "7", good(zipped=True)),
        MAYBE,
    )
    yield Case("MetaImage", "another object", line("ObjectType", "Tube"), Refused("."))
    yield Case("MetaImage", "big-endian by its word", line("BinaryDataByteOrderMSB", "True"),
               Reads(VALUES.byteswap(), AFFINE))  # fmt: skip


def bodies() -> Iterator[Case]:
    for at in (0, 3, 30, 100, 0.5, -100, -1):
        yield Case("MetaImage", f"raw cut at {at}", cut(good(), at), Refused("."))
    for at in (0.5, -9, -1):
        yield Case("MetaImage", f"zlib cut at {at}", cut(good(zipped=True), at), Refused("."))
    for name in ("scan.mha", "scan.mhd"):
        for zipped in (False, True):
            said = "zlib" if zipped else "raw"
            yield Case("MetaImage", f"good, {name}, {said}", good(name, zipped), GOOD)
    yield Case("MetaImage", "a letter", written("a.mha", b"dear friend\nhello\n" * 9), Refused("."))
    endless = written("a.mha", b"ObjectType = Image\nComment = " + b"x" * (1 << 22))
    yield Case("MetaImage", "an endless header", endless, Refused("."))
    none = good(values=np.full(VALUES.shape, np.nan, "f4"))
    yield Case("MetaImage", "all NaN", none, Refused("no finite voxel"))

    def orphan(folder: Path) -> Path:
        path = good("scan.mhd")(folder)
        (folder / "scan.raw").unlink()
        return path

    yield Case("MetaImage", "no data", orphan, Refused("does not exist"))

    def short(folder: Path) -> Path:
        path = good("scan.mhd")(folder)
        (folder / "scan.raw").write_bytes(b"\0" * 99)
        return path

    yield Case("MetaImage", "data cut", short, Refused("."))


def flips() -> Iterator[Case]:
    for seed in range(16):
        yield Case(
            "MetaImage",
            f"a bit of the header, seed {seed}",
            rewritten(
                good(),
                lambda raw, seed=seed: flip_bits(raw, seed, 0, raw.index(b"ElementDataFile")),
            ),
            oracle,
        )


CASES = (*fields(), *bodies(), *flips())
