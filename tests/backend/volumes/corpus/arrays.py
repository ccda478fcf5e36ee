"""numpy's .npy and .npz."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from .case import Case, Make, Reads, Refused, cut, flip_bits, rewritten, written

SPACING = (0.8, 0.7, 2.5)
AFFINE = np.diag([-0.8, -0.7, 2.5, 1])
SCAN = ((np.arange(960) * 7919) % 3001 - 1000).reshape(8, 10, 12).astype(np.int16)
GOOD = Reads(SCAN.T, AFFINE)


def npy(array: np.ndarray = SCAN, name: str = "a.npy") -> Make:
    def make(folder: Path) -> Path:
        np.save(folder / name, array, allow_pickle=True)
        return folder / name

    return make


def npz(compressed: bool = True, **arrays: Any) -> Make:
    def make(folder: Path) -> Path:
        save = np.savez_compressed if compressed else np.savez
        save(folder / "a.npz", **(arrays or {"imgs": SCAN, "spacing": SPACING}))
        return folder / "a.npz"

    return make


def header(text: str, data: bytes = b"") -> bytes:
    line = text.encode() + b"\n"
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(line)) + line + data


def says(shape: object, descr: object = "<i2", order: object = False) -> bytes:
    return header(str({"descr": descr, "fortran_order": order, "shape": shape}), SCAN.tobytes())


def archived(content: bytes, method: int = zipfile.ZIP_DEFLATED) -> Make:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as file:
        file.writestr("imgs.npy", content)
    return written("a.npz", buffer.getvalue())


def arrays() -> Iterator[Case]:
    stated = {"spacing": SPACING}
    for name, array in (
        ("good", SCAN),
        ("big-endian", SCAN.astype(">i2")),
        ("Fortran order", np.asfortranarray(SCAN)),
        ("half precision", (SCAN % 100).astype("f2")),
    ):
        yield Case("npy", name, npy(array), Reads(array.T, AFFINE), stated)
    yield Case("npy", "no spacing", npy(), Refused("states no spacing"))
    bad = {
        "sizes beyond the file": says((8, 10, 13)),
        "huge sizes": says((90000, 90000, 90000)),
        "sizes beyond 64 bits": says((2**62, 2**62, 2**62)),
        "a negative size": says((8, -10, 12)),
        "a size of zero": says((8, 0, 12)),
        "a size that is text": says(("8", 10, 12)),
        "a size that is no number": says((8.5, 10, 12)),
        "one axis": says((960,)),
        "six axes": says((2, 2, 2, 2, 5, 12)),
        "objects": says((8, 10, 12), "|O"),
        "text": says((8, 10, 12), "<U4"),
        "complex": says((8, 10, 6), "<c8"),
        "an unknown type": says((8, 10, 12), "<q9"),
        "records": says((8, 10, 12), [("a", "<i2")]),
        "no order": header("{'descr': '<i2', 'shape': (8, 10, 12)}"),
        "more keys": header("{'descr': '<i2', 'fortran_order': False, 'shape': (8,), 'x': 1}"),
        "code": header("__import__('os').abort()"),
        "a deep header": header("(" * 5000 + ")" * 5000),
        "a list": header("[1, 2, 3]"),
        "another mark": b"\x93NUMPI" + says((8, 10, 12))[6:],
        "version 9": b"\x93NUMPY\x09\0" + says((8, 10, 12))[8:],
    }
    for name, content in bad.items():
        yield Case("npy", name, written("a.npy", content), Refused("."), stated)
    for at in (0, 5, 9, 40, 128, -1):
        yield Case("npy", f"cut at {at}", cut(npy(), at), Refused("."), stated)
    yield Case(
        "npy", "a pickle", npy(np.array([[None, "a"]] * 3, object)), Refused("pickle"), stated
    )
    none = npy(np.full(SCAN.shape, np.nan))
    yield Case("npy", "all NaN", none, Refused("no finite voxel"), stated)
    for seed in range(8):
        yield Case(
            "npy",
            f"a bit of the header, seed {seed}",
            rewritten(npy(), lambda raw, seed=seed: flip_bits(raw, seed, 0, 70)),
            npy_oracle,
            stated,
        )


def npy_oracle(path: Path) -> Reads | Refused:
    try:
        array = np.load(path)
    except Exception:
        return Refused(".")
    good = array.ndim == 3 and array.dtype.kind in "iuf" and array.dtype != np.uint8
    return Reads(array.T, AFFINE, or_refused=True) if good else Refused(".")


def archives() -> Iterator[Case]:
    yield Case("npz", "good", npz(), GOOD)
    yield Case("npz", "stored", npz(compressed=False), GOOD)
    yield Case("npz", "no spacing", npz(imgs=SCAN), Refused("states no spacing"))
    for said in ((0, 1, 1), (-1, 1, 1), (np.nan, 1, 1), (np.inf, 1, 1), (1, 1), (1, 1, 1, 1)):
        make = npz(imgs=SCAN, spacing=said)
        yield Case("npz", f"spacing {said}", make, Refused("spacing"))
    yield Case("npz", "spacing in words", npz(imgs=SCAN, spacing="fine"), Refused("."))
    yield Case("npz", "two arrays", npz(a=SCAN, b=SCAN), Refused("several arrays"))
    yield Case("npz", "a table alone", npz(boxes=np.zeros((3, 4))), Refused("no array that could"))
    huge = says((90000, 90000, 90000))
    yield Case("npz", "huge sizes", archived(huge), Refused("its header claims"))
    yield Case("npz", "huge sizes, stored", archived(huge, 0), Refused("its header claims"))
    yield Case("npz", "objects", archived(says((8, 10, 12), "|O")), Refused("pickle"))
    yield Case("npz", "no array", archived(b"hello, world"), Refused("."))
    yield Case(
        "npz", "bzip2", archived(says((8, 10, 12)), zipfile.ZIP_BZIP2), Refused("numpy does")
    )
    zeros = header(str({"descr": "|u1", "fortran_order": False, "shape": (8, 10, 12)}))
    yield Case("npz", "a bomb", archived(zeros + b"\0" * (300 << 20)), lambda path: Reads(
        np.zeros((12, 10, 8)), np.eye(4), or_refused=True))  # fmt: skip
    empty = written("a.npz", b"PK\5\6" + b"\0" * 18)
    yield Case("npz", "empty", empty, Refused("no array that could"))
    for at in (0, 2, 10, 0.5, -1):
        yield Case("npz", f"cut at {at}", cut(npz(), at), Refused("."))
    for seed in range(12):
        yield Case(
            "npz",
            f"a bit, seed {seed}",
            rewritten(npz(), lambda raw, seed=seed: flip_bits(raw, seed, 0, len(raw))),
            Reads(SCAN.T, AFFINE, or_refused=True),
        )


CASES = (*arrays(), *archives())
