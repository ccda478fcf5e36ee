"""NRRD, attached and detached: pynrrd writes them, lines of the header are changed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nrrd
import numpy as np
import SimpleITK

from .case import (
    AFFINE,
    GOOD,
    LABELS,
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

FLIP = np.diag([-1.0, -1, 1, 1])
LPS = FLIP @ AFFINE
HEADER = {
    "space": "left-posterior-superior",
    "space directions": LPS[:3, :3].T,
    "space origin": LPS[:3, 3],
    "kinds": ["domain"] * 3,
}


def good(
    name: str = "scan.nrrd", encoding: str = "raw", values: np.ndarray = VALUES, **fields: Any
) -> Make:
    def make(folder: Path) -> Path:
        options = {"detached_header": True} if name.endswith(".nhdr") else {}
        header = {**HEADER, "encoding": encoding, **fields}
        nrrd.write(str(folder / name), values, header, **options)
        return folder / name

    return make


def line(key: str, value: str | None, make: Make | None = None) -> Make:
    """Replace a line of the header (all from `key` on), or take it out, or add it."""

    def change(raw: bytes) -> bytes:
        head, _, data = raw.partition(b"\n\n")
        lines = head.split(b"\n")
        kept = [one for one in lines if not one.startswith(key.encode())]
        added = [] if value is None else [key.encode() + value.encode()]
        return b"\n".join(kept + added) + b"\n\n" + data

    return rewritten(make or good(), change)


def oracle(path: Path) -> Reads | Refused:
    """Say what ITK reads; where it refuses, we must too or read the undamaged file."""
    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        image = SimpleITK.ReadImage(str(path))
        values = SimpleITK.GetArrayFromImage(image).T
        if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
            return Refused(".")
        affine = np.eye(4)
        direction = np.array(image.GetDirection()).reshape(3, 3)
        affine[:3, :3] = direction * image.GetSpacing()
        affine[:3, 3] = image.GetOrigin()
        return Reads(values, FLIP @ affine, or_refused=True)
    except RuntimeError:
        return MAYBE


def fields() -> Iterator[Case]:
    bad = {
        "no type": (("type: ", None), "type"),
        "an unknown type": (("type: ", "longlonglong"), "type"),
        "blocks": (("type: ", "block"), "."),
        "no dimension": (("dimension: ", None), "dimension"),
        "dimension 0": (("dimension: ", "0"), "."),
        "dimension 17": (("dimension: ", "17"), "."),
        "dimension that is no number": (("dimension: ", "three"), "."),
        "no sizes": (("sizes: ", None), "sizes"),
        "too few sizes": (("sizes: ", "12 10"), "."),
        "a size of zero": (("sizes: ", "12 0 8"), "."),
        "a negative size": (("sizes: ", "12 -10 8"), "."),
        "sizes that are no numbers": (("sizes: ", "a b c"), "."),
        "huge sizes": (("sizes: ", "90000 90000 90000"), "."),
        "sizes beyond 64 bits": (("sizes: ", "99999999999999999999 9 9"), "."),
        "one slice too many": (("sizes: ", "12 10 9"), "."),
        "no encoding": (("encoding: ", None), "encoding"),
        "an unknown encoding": (("encoding: ", "rar"), "encoding"),
        "gzip that is none": (("encoding: ", "gzip"), "."),
        "bzip2 that is none": (("encoding: ", "bzip2"), "."),
        "text that is none": (("encoding: ", "ascii"), "."),
        "hex that is none": (("encoding: ", "hex"), "."),
        "an unknown byte order": (("endian: ", "middle"), "byte order"),
        "no byte order": (("endian: ", None), "byte order"),
        "an unknown space": (("space: ", "left-right-left"), "."),
        "directions of zero": (("space directions: ", "(0,0,0) (0,1,0) (0,0,1)"), "."),
        "NaN in directions": (("space directions: ", "(nan,0,0) (0,1,0) (0,0,1)"), "."),
        "infinite directions": (("space directions: ", "(inf,0,0) (0,1,0) (0,0,1)"), "."),
        "parallel directions": (("space directions: ", "(1,0,0) (1,0,0) (0,0,1)"), "."),
        "too few directions": (("space directions: ", "(1,0,0) (0,1,0)"), "."),
        "directions in 2D": (("space directions: ", "(1,0) (0,1) (1,1)"), "."),
        "directions that are no numbers": (("space directions: ", "(x,0,0) (0,y,0) (0,0,z)"), "."),
        "a NaN origin": (("space origin: ", "(nan,0,0)"), "."),
        "an origin in 2D": (("space origin: ", "(1,2)"), "."),
        "bytes to skip beyond the end": (("byte skip: ", "99999999"), "."),
        "bytes to skip that are no number": (("byte skip: ", "many"), "."),
        "lines to skip beyond the end": (("line skip: ", "99999"), "."),
        "data in an absent file": (("data file: ", "elsewhere.raw"), "elsewhere.raw"),
        "data in an absent list": (("data file: ", "LIST\na.raw\nb.raw"), "."),
        "data in an endless pattern": (("data file: ", "a%d.raw 1 999999999 1"), "."),
        "data in itself": (("data file: ", "scan.nrrd\nbyte skip: 999999"), "."),
    }
    for name, ((key, value), sentence) in bad.items():
        yield Case("NRRD", name, line(key, value), Refused(sentence))
    plain = line("space: ", None, line("space directions: ", None, line("space origin: ", None)))
    for value in ("0 1 1", "nan 1 1", "inf 1 1"):
        yield Case("NRRD", f"spacings {value}", line("spacings: ", value, plain), Refused("."))
    mirrored = np.diag([1.0, 1, -1, 1]) @ AFFINE
    yield Case(
        "NRRD",
        "mirrored",
        line("space directions: ", "(0.8,0,0) (0,0.7,0) (0,0,-2.5)"),
        Reads(VALUES, np.column_stack([mirrored[:, :3], AFFINE[:, 3]])),
    )
    yield Case("NRRD", "comments", line("# ", "Grüße, 頭部\n#", good()), GOOD)
    yield Case("NRRD", "an unknown field", line("color of the sky: ", "blue"), MAYBE)
    yield Case("NRRD", "a key of its own", line("Key:=", "a value: with colons"), GOOD)
    yield Case("NRRD", "an unknown kind", line("kinds: ", "foo bar baz"), MAYBE)
    yield Case("NRRD", "a negative byte skip", line("byte skip: ", "-1"), GOOD)


def bodies() -> Iterator[Case]:
    for at in (0, 3, 8, 20, 60, 0.3, 0.6, -100, -1):
        yield Case("NRRD", f"raw cut at {at}", cut(good(), at), Refused("."))
    for encoding in ("gzip", "bzip2"):
        for at in (0.6, 0.9, -9, -1):
            make = cut(good(encoding=encoding), at)
            yield Case("NRRD", f"{encoding} cut at {at}", make, Refused("."))
    yield Case("NRRD", "text cut", cut(good(encoding="ascii"), -300), Refused("."))
    for encoding in ("raw", "gzip", "bzip2", "ascii"):
        yield Case("NRRD", f"good, {encoding}", good(encoding=encoding), GOOD)
    yield Case("NRRD", "a letter", written("a.nrrd", b"dear friend\n\nhello"), Refused("NRRD"))
    newer = rewritten(good(), lambda raw: b"NRRD0009" + raw[8:])
    yield Case("NRRD", "a later version", newer, Refused("."))
    endless = rewritten(good(), lambda raw: raw[:9] + b"# " + b"x" * (1 << 22))
    yield Case("NRRD", "an endless header", endless, Refused("."))
    windows = rewritten(good(), lambda raw: raw.split(b"\n\n")[0].replace(b"\n", b"\r\n")
                        + b"\r\n\r\n" + raw.partition(b"\n\n")[2])  # fmt: skip
    yield Case("NRRD", "lines of Windows", windows, GOOD)
    yield Case("NHDR", "good", good("scan.nhdr"), GOOD)
    yield Case("NHDR", "good, gzip", good("scan.nhdr", "gzip"), GOOD)

    def orphan(folder: Path) -> Path:
        path = good("scan.nhdr")(folder)
        next(one for one in folder.iterdir() if one != path).unlink()
        return path

    yield Case("NHDR", "no data", orphan, Refused("does not exist"))

    def pointing(target: str) -> Make:
        def change(raw: bytes) -> bytes:
            return re.sub(rb"data ?file: .*", b"data file: " + target.encode(), raw)

        return rewritten(good("scan.nhdr"), change)

    yield Case("NHDR", "data in a folder", pointing("."), Refused("."))
    yield Case("NHDR", "data nowhere", pointing(""), Refused("."))
    yield Case("NHDR", "data in a device", pointing("/dev/zero"), Refused("."))
    yield Case("NHDR", "data in its header", pointing("scan.nhdr"), Refused("."))
    yield Case("NHDR", "a name with NUL", pointing("a\0b"), Refused("."))


def kinds() -> Iterator[Case]:
    complex_ = good(values=np.stack([VALUES, VALUES]).astype("f4"), **{
        "kinds": ["complex", *["domain"] * 3],
        "space directions": np.vstack([[np.nan] * 3, LPS[:3, :3].T]),
    })  # fmt: skip
    yield Case("NRRD", "complex voxels", complex_, Refused("."))
    none = good(values=np.full(VALUES.shape, np.nan, "f4"))
    yield Case("NRRD", "all NaN", none, Refused("no finite voxel"))

    def segments(**changes: str | None) -> Make:
        make = good("scan.seg.nrrd", "gzip", LABELS)
        named = {
            "Segment0_ID": "a", "Segment0_Name": "liver", "Segment0_LabelValue": "1",
            "Segment0_Layer": "0", "Segment1_ID": "b", "Segment1_Name": "Milz größer",
            "Segment1_LabelValue": "2", "Segment1_Layer": "0", **changes,
        }  # fmt: skip
        for key, value in named.items():
            if value is not None:
                make = line(f"{key}:=", value, make)
        return make

    labels = Reads(LABELS, AFFINE, labels=True)
    yield Case("seg.nrrd", "good", segments(), labels)
    yield Case("seg.nrrd", "no names", segments(Segment0_Name=None, Segment1_Name=None), labels)
    maybe = Reads(LABELS, AFFINE, labels=True, or_refused=True)
    for changes in (
        {"Segment0_LabelValue": "one"},
        {"Segment0_LabelValue": "-1"},
        {"Segment0_LabelValue": "99999999999999999999"},
        {"Segment0_Layer": "5"},
        {"Segment0_Layer": "x"},
        {"Segment1_LabelValue": "1"},
        {"Segment0_Color": "red green blue"},
        {"Segment0_Color": "nan inf -1"},
        {"Segment0_Extent": "0 1"},
    ):
        said = ", ".join(f"{key} {value}" for key, value in changes.items())
        yield Case("seg.nrrd", said, segments(**changes), maybe)
    yield Case("seg.nrrd", "cut", cut(segments(), -40), Refused("."))


def flips() -> Iterator[Case]:
    for seed in range(16):
        yield Case(
            "NRRD",
            f"a bit of the header, seed {seed}",
            rewritten(good(), lambda raw, seed=seed: flip_bits(raw, seed, 0, raw.index(b"\n\n"))),
            oracle,
        )


CASES = (*fields(), *bodies(), *kinds(), *flips())
