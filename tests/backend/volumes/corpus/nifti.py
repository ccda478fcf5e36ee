"""NIfTI-1 and -2, single files and pairs, and Analyze: nibabel writes them, bytes are changed."""

from __future__ import annotations

import bz2
import gzip
import io
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from .case import (
    AFFINE,
    GOOD,
    LABELS,
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

RGB = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
KINDS = {"1": nibabel.Nifti1Image, "2": nibabel.Nifti2Image}


def good(
    name: str = "scan.nii",
    values: np.ndarray = VALUES,
    affine: np.ndarray = AFFINE,
    kind: str = "1",
) -> Make:
    def make(folder: Path) -> Path:
        image = KINDS[kind](values, affine, dtype=values.dtype)
        image.header.set_xyzt_units("mm", "sec")
        nibabel.save(image, folder / name)
        return folder / name

    return make


def pair(name: str = "scan.hdr", kind: Any = nibabel.Nifti1Pair) -> Make:
    def make(folder: Path) -> Path:
        nibabel.save(kind(VALUES, AFFINE), folder / "scan.img")
        return folder / name

    return make


def patched(fields: dict[str, Any], kind: str = "1", make: Make | None = None) -> Make:
    """Overwrite header fields byte by byte, as no library would; {n: x} sets one entry."""
    header_class = nibabel.Nifti1Header if kind == "1" else nibabel.Nifti2Header
    length = 348 if kind == "1" else 540

    def change(raw: bytes) -> bytes:
        header = header_class(raw[:length], check=False)
        for name, value in fields.items():
            if isinstance(value, dict):
                for index, entry in value.items():
                    header[name][index] = entry
            else:
                header[name] = value
        return header.binaryblock + raw[length:]

    return rewritten(make or good(kind=kind), change)


def zipped(make: Make, name: str = "scan.nii.gz") -> Make:
    return rewritten(make, lambda raw: gzip.compress(raw, mtime=0), name)


def beside(make: Make, change: Callable[[Path], None]) -> Make:
    """Make files, then change what lies in the folder."""

    def remake(folder: Path) -> Path:
        path = make(folder)
        change(folder)
        return path

    return remake


def shorten(name: str, size: int) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).write_bytes((folder / name).read_bytes()[:size])

    return change


def oracle(path: Path) -> Reads | Refused:
    """Say what nibabel reads; where it refuses, so must we."""
    try:
        image = nibabel.load(path)
        values = np.asarray(image.dataobj)
        # loading sets unknown codes to 0, so that their matrices no longer count
        kind = nibabel.Nifti1Header if path.read_bytes()[344:346] == b"n+" else nibabel.Nifti2Header
        header = kind(path.read_bytes()[: kind.template_dtype.itemsize], check=False)
        affine = header.get_sform() if int(header["sform_code"]) != 0 else image.affine
        if values.dtype.fields is not None or not np.isfinite(affine).all():
            return Refused(".")
        if values.ndim < 3 or 0 in values.shape:
            return Refused(".")
        return Reads(values, affine, or_refused=True)
    except Exception:
        return Refused(".")


def spacing(kind: str) -> Iterator[Case]:
    for axis in (1, 2, 3):
        for value in (0, -2.0, np.nan, np.inf, -np.inf):
            yield Case(
                f"NIfTI-{kind}",
                f"spacing {value} along {'ijk'[axis - 1]}",
                patched({"pixdim": {axis: value}}, kind),
                Refused("spacing of"),
            )


def fields(kind: str) -> Iterator[Case]:
    most = 32767 if kind == "1" else 2**40
    bad: dict[str, tuple[dict[str, Any], str]] = {
        "no axes": ({"dim": {0: 0}}, "axes|header"),
        "8 axes": ({"dim": {0: 8}}, "axes|header"),
        "-1 axes": ({"dim": {0: -1}}, "axes|header"),
        "one axis": ({"dim": {0: 1}}, "axis"),
        "a negative size": ({"dim": {2: -10}}, "."),
        "a size of zero": ({"dim": {3: 0}}, "is empty"),
        "huge sizes": ({"dim": {1: most, 2: most, 3: most}}, "its header claims"),
        "one slice too many": ({"dim": {3: 9}}, "its header claims 2160"),
        "seven axes": ({"dim": {0: 7, 4: 2, 5: 2, 6: 2, 7: 2}}, "axes|claims"),
        "an unknown type": ({"datatype": 77}, "cannot be used|type"),
        "no type": ({"datatype": 0}, "cannot be used|type"),
        "complex voxels": ({"datatype": 32}, "type complex64|claims"),
        "voxels inside the header": ({"vox_offset": 100}, "start at byte 100"),
        "voxels before the file": ({"vox_offset": -4}, "start at byte"),
        "voxels beyond the end": ({"vox_offset": 2**20}, "holds 0 bytes"),
        "NaN in the sform": ({"srow_x": {3: np.nan}}, "NaN or infinite"),
        "infinity in the sform": ({"srow_y": {1: np.inf}}, "NaN or infinite"),
        "a column of zeros": ({"srow_z": {2: 0}}, "spacing of"),
        "two equal rows": ({"srow_y": [-0.8, 0, 0, 50]}, "cannot be inverted|spacing of"),
        "a quaternion too long": (
            {"sform_code": 0, "qform_code": 1, "quatern_b": 3.0},
            "cannot be used",
        ),
    }
    if kind == "1":
        bad["a fraction of a byte"] = ({"vox_offset": 352.5}, "start at byte 352.5")
        bad["a NaN offset"] = ({"vox_offset": np.nan}, "start at byte nan")
        bad["another mark"] = ({"magic": b"n+9"}, "is not a NIfTI")
    for name, (changes, sentence) in bad.items():
        yield Case(f"NIfTI-{kind}", name, patched(changes, kind), Refused(sentence))
    odd: dict[str, dict[str, Any]] = {
        "an unknown unit": {"xyzt_units": 7},
        "unknown sform and qform codes": {"sform_code": 77, "qform_code": 99},
        "a NaN slope": {"scl_slope": np.nan, "scl_inter": 5},
        "a slope of zero": {"scl_slope": 0, "scl_inter": 5},
        "an infinite slope": {"scl_slope": np.inf, "scl_inter": 5},
        "wrong bits per voxel": {"bitpix": 3},
        "wild display limits": {"cal_max": np.nan, "cal_min": np.inf},
        "an unknown intent": {"intent_code": 4711},
        "a description that is no text": {"descrip": bytes(range(128, 208))},
        "a wrong slice code": {"slice_code": 99, "slice_end": -5, "dim_info": 255},
    }
    for name, changes in odd.items():
        yield Case(f"NIfTI-{kind}", name, patched(changes, kind), GOOD)


def truncated() -> Iterator[Case]:
    for at in (1, 4, 100, 347, 348, 351, 352, 353, 0.5, -1):
        yield Case("NIfTI-1", f"cut at {at}", cut(good(), at), Refused("."))
    for at in (5, 539, 540, 544, 0.5, -1):
        yield Case("NIfTI-2", f"cut at {at}", cut(good(kind="2"), at), Refused("."))
    for at in (2, 9, 15, 60, 0.5, 0.9, -9, -4, -1):
        make = cut(good("scan.nii.gz"), at)
        yield Case("NIfTI-1", f"gzip cut at {at}", make, Refused("."))
    yield Case("NIfTI-1", "empty", cut(good(), 0), Refused("is empty"))
    for name in ("scan.hdr", "scan.img"):
        for file, size in (("scan.hdr", 0), ("scan.hdr", 300), ("scan.img", 0), ("scan.img", 999)):
            yield Case(
                "NIfTI pair",
                f"{file} cut to {size}, opened by {name}",
                beside(pair(name), shorten(file, size)),
                Refused("."),
            )


def compressed() -> Iterator[Case]:
    def text(folder: Path) -> Path:
        return written("letter.nii", b"dear friend, this is no scan\n" * 99)(folder)

    def archived(raw: bytes) -> bytes:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as file:
            file.writestr("scan.nii", raw)
        return buffer.getvalue()

    nifti = "NIfTI-1"
    yield Case(nifti, "gzip of a letter", zipped(text), Refused("is not a NIfTI"))
    yield Case(
        nifti, "gzip of gzip", zipped(good("scan.nii.gz"), "s.nii.gz"), Refused("not a NIfTI")
    )
    yield Case(nifti, "gzip of nothing", zipped(written("a.nii", b"")), Refused("is not a NIfTI"))
    yield Case(
        nifti,
        "gzip of huge claims",
        zipped(patched({"dim": {0: 4, 1: 30000, 2: 30000, 3: 30000, 4: 30000}})),
        Refused("at most"),
    )
    yield Case(nifti, "gzip of too few voxels", zipped(cut(good(), -700)), Refused("claims 1920"))
    plain = rewritten(good(), lambda raw: raw, "scan.nii.gz")
    yield Case(nifti, "not gzip although named so", plain, Refused("is not gzip"))
    hidden = rewritten(good("scan.nii.gz"), lambda raw: raw, "scan.nii")
    yield Case(nifti, "gzip although not named so", hidden, Refused("holds gzip"))
    yield Case(nifti, "bzip2", rewritten(good(), bz2.compress, "a.nii.gz"), Refused("is not gzip"))
    yield Case(nifti, "a zip archive", rewritten(good(), archived), Refused("is not a NIfTI"))
    several = rewritten(
        good(), lambda raw: gzip.compress(raw[:900]) + gzip.compress(raw[900:]), "scan.nii.gz"
    )
    yield Case(nifti, "gzip in two members", several, GOOD)
    yield Case(
        nifti,
        "zeros behind gzip",
        rewritten(good("scan.nii.gz"), lambda raw: raw + b"\0" * 99),
        GOOD,
    )
    for seed in range(8):
        yield Case(
            nifti,
            f"a bit of gzip, seed {seed}",
            rewritten(
                good("scan.nii.gz"), lambda raw, seed=seed: flip_bits(raw, seed, 20, len(raw))
            ),
            Refused("damaged|not a NIfTI|header|claims|spacing|expected"),
        )


def mirrored() -> Iterator[Case]:
    for n, signs in enumerate(np.ndindex(2, 2, 2)):
        affine = AFFINE @ np.diag([*(1 - 2 * np.array(signs)), 1])
        yield Case(
            "NIfTI-1", f"mirrored, {n}", good(affine=affine), Reads(VALUES, affine.astype("f4"))
        )
    sheared = AFFINE.copy()
    sheared[1, 2] = 0.6
    yield Case("NIfTI-1", "sheared", good(affine=sheared), Reads(VALUES, sheared.astype("f4")))
    far = AFFINE.copy()
    far[:3, 3] = 1e6
    yield Case("NIfTI-1", "far away", good(affine=far), Reads(VALUES, far))
    tiny = np.diag([1e-4, 1e-4, 1e-4, 1.0])
    yield Case("NIfTI-1", "tiny voxels", good(affine=tiny), Reads(VALUES, tiny.astype("f4")))


def voxels() -> Iterator[Case]:
    for code in ("u1", "u2", ">i2", "i4", "f4", ">f8", "i8", "u8"):
        values = np.abs(VALUES).astype(code) % 200
        values = values.astype(code)
        yield Case("NIfTI-1", f"voxels of {code}", good(values=values), Reads(values, AFFINE))
    some = VALUES.astype("f4")
    some[1, 2, 3], some[2, 3, 4] = np.nan, np.inf
    yield Case("NIfTI-1", "some NaN", good(values=some), Reads(some, AFFINE))
    none = np.full_like(some, np.nan)
    yield Case("NIfTI-1", "all NaN", good(values=none), Refused("no finite voxel"))
    yield Case("NIfTI-1", "complex", good(values=VALUES.astype("c8")), Refused("complex64"))
    colours = np.zeros(VALUES.shape, RGB)
    colours["G"] = LABELS
    expected = np.stack([0 * LABELS, LABELS, 0 * LABELS], -1)
    yield Case("NIfTI-1", "colours", good(values=colours), Reads(expected, AFFINE))
    flat = good(values=VALUES[:, :, 0])
    yield Case("NIfTI-1", "flat", flat, Reads(VALUES[:, :, :1], AFFINE))
    yield Case(
        "NIfTI-1",
        "garbage behind the voxels",
        rewritten(good(), lambda raw: raw + b"junk" * 99),
        GOOD,
    )
    big = rewritten(good(), lambda raw: raw[:352][:348] + b"\1\0\0\0" + raw[352:])
    yield Case(
        "NIfTI-1", "an extension that is not there", big, Reads(VALUES, AFFINE, or_refused=True)
    )


def pairs() -> Iterator[Case]:
    def without(name: str) -> Callable[[Path], None]:
        return lambda folder: (folder / name).unlink()

    yield Case("NIfTI pair", "good", pair(), GOOD)
    yield Case("NIfTI pair", "good, by its data", pair("scan.img"), GOOD)
    yield Case(
        "NIfTI pair", "no data", beside(pair(), without("scan.img")), Refused("half of a pair")
    )
    yield Case(
        "NIfTI pair",
        "no header",
        beside(pair("scan.img"), without("scan.hdr")),
        Refused("half of a"),
    )
    yield Case("NIfTI pair", "single file's mark", patched({"magic": b"ni1"}), Refused("separate"))
    analyze = pair(kind=nibabel.Spm2AnalyzeImage)
    yield Case("Analyze", "good", analyze, lambda path: Reads(VALUES, nibabel.load(path).affine))
    yield Case(
        "Analyze", "data cut", beside(analyze, shorten("scan.img", 99)), Refused("claims 1920")
    )
    yield Case(
        "Analyze", "header cut", beside(analyze, shorten("scan.hdr", 60)), Refused("is not a")
    )

    def scrambled(folder: Path) -> None:
        (folder / "scan.mat").write_bytes(b"MATLAB 5.0 MAT-file" + bytes(range(256)))

    yield Case("Analyze", "SPM's matrix damaged", beside(analyze, scrambled), Refused("."))

    def sized(sizes: tuple[int, ...]) -> Callable[[Path], None]:
        def change(folder: Path) -> None:
            raw = bytearray((folder / "scan.hdr").read_bytes())
            raw[40:48] = np.array(sizes, "<i2").tobytes()
            (folder / "scan.hdr").write_bytes(bytes(raw))

        return change

    huge = sized((3, 32767, 32767, 32767))
    yield Case("Analyze", "huge sizes", beside(analyze, huge), Refused("its header claims"))
    yield Case("Analyze", "negative", beside(analyze, sized((3, -5, 3, 3))), Refused("."))

    def spaced(value: float) -> Callable[[Path], None]:
        def change(folder: Path) -> None:
            raw = bytearray((folder / "scan.hdr").read_bytes())
            raw[80:84] = np.array(value, "<f4").tobytes()
            (folder / "scan.hdr").write_bytes(bytes(raw))

        return change

    for value in (0, np.nan, np.inf):
        yield Case(
            "Analyze", f"spacing {value}", beside(analyze, spaced(value)), Refused("spacing of")
        )


def flips() -> Iterator[Case]:
    for seed in range(24):
        yield Case(
            "NIfTI-1",
            f"a bit of the header, seed {seed}",
            rewritten(good(), lambda raw, seed=seed: flip_bits(raw, seed, 0, 352)),
            oracle,
        )
    for seed in range(8):
        yield Case(
            "NIfTI-1",
            f"nine bits of the header, seed {seed}",
            rewritten(good(), lambda raw, seed=seed: flip_bits(raw, seed, 0, 352, 9)),
            oracle,
        )
    for seed in range(8):
        yield Case(
            "NIfTI-2",
            f"a bit of the header, seed {seed}",
            rewritten(good(kind="2"), lambda raw, seed=seed: flip_bits(raw, seed, 0, 544)),
            oracle,
        )


CASES = (
    *(*spacing("1"), *spacing("2"), *fields("1"), *fields("2"), *truncated()),
    *(*compressed(), *mirrored(), *voxels(), *pairs(), *flips()),
)
