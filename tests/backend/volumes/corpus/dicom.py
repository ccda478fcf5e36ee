"""DICOM series: pydicom writes them, elements and bytes are changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.fileset import FileSet
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    generate_uid,
)

from .case import AFFINE, GOOD, MAYBE, VALUES, Case, Make, Reads, Refused, flip_bits, written

Change = Callable[[Dataset, int], object]
STUDY, SERIES, FRAME = (generate_uid(entropy_srcs=[one]) for one in ("study", "series", "frame"))


def plane(number: int) -> FileDataset:
    """Give slice `number` of the good scan as a CT image."""
    meta = FileMetaDataset()
    meta.FileMetaInformationGroupLength = 0  # pydicom puts the true one in its place
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[f"instance {number}"])
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = STUDY, SERIES
    dataset.FrameOfReferenceUID = FRAME
    dataset.PatientName, dataset.PatientID = "Phantom^Abdomen", "1"
    dataset.StudyDate, dataset.StudyTime, dataset.StudyID = "20260101", "120000", "1"
    dataset.AccessionNumber = dataset.ReferringPhysicianName = ""
    dataset.PatientBirthDate = dataset.PatientSex = ""
    dataset.Modality, dataset.SeriesDescription, dataset.SeriesNumber = "CT", "abdomen", 2
    dataset.InstanceNumber = 100 - number
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.ImagePositionPatient = [-50, -40, -300 + 2.5 * number]
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.PixelSpacing, dataset.SliceThickness = [0.7, 0.8], 2.5
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = 10, 12, 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation = 15, 1
    dataset.RescaleSlope, dataset.RescaleIntercept = 1, 0
    dataset.PixelData = VALUES[:, :, number].T.tobytes()
    dataset["PixelData"].VR = "OW"
    return dataset


def series(change: Change | None = None, numbers: Any = range(8), one: str | None = None) -> Make:
    """Write a folder of slices, each changed first; opened by its folder or by one file."""

    def make(folder: Path) -> Path:
        target = folder / "series"
        target.mkdir()
        for number in numbers:
            dataset = plane(number)
            if change is not None:
                change(dataset, number)
            syntax = dataset.file_meta.get("TransferSyntaxUID", ExplicitVRLittleEndian)
            pydicom.dcmwrite(
                target / file_of(number),
                dataset,
                implicit_vr=syntax == ImplicitVRLittleEndian,
                little_endian=syntax != ExplicitVRBigEndian,
                force_encoding=True,
            )
        return target if one is None else target / one

    return make


def only(number: int, change: Callable[[Dataset], object]) -> Change:
    return lambda dataset, n: change(dataset) if n == number else None


def setting(**values: Any) -> Change:
    def change(dataset: Dataset, number: int) -> None:
        for keyword, value in values.items():
            if value is None:
                del dataset[keyword]
            else:
                setattr(dataset, keyword, value)

    return change


def raw_text(keyword: str, text: bytes) -> Callable[[Path], None]:
    """Overwrite a text element's bytes with others of the same length, as no library would."""

    def change(folder: Path) -> None:
        for file in folder.iterdir():
            dataset = pydicom.dcmread(file)
            old = "\\".join(str(one) for one in np.atleast_1d(dataset[keyword].value)).encode()
            raw = file.read_bytes()
            assert raw.count(old) >= 1, keyword
            file.write_bytes(raw.replace(old, text[: len(old)].ljust(len(old)), 1))

    return change


def after(make: Make, change: Callable[[Path], object]) -> Make:
    """Make a series, then change its files."""

    def remake(folder: Path) -> Path:
        path = make(folder)
        change(path if path.is_dir() else path.parent)
        return path

    return remake


def file_of(number: int) -> str:
    return f"{number * 7919 % 97:02}.dcm"


def truncate(number: int, at: int | float) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        file = folder / file_of(number)
        raw = file.read_bytes()
        file.write_bytes(raw[: round(len(raw) * at)] if isinstance(at, float) else raw[:at])

    return change


def headers() -> Iterator[Case]:
    family = "DICOM"
    yield Case(family, "good", series(), GOOD)
    yield Case(family, "good, by one file", series(one=file_of(3)), GOOD)
    bad: dict[str, tuple[Change, str]] = {
        "no position": (setting(ImagePositionPatient=None), "."),
        "no orientation": (setting(ImageOrientationPatient=None), "."),
        "neither": (setting(ImagePositionPatient=None, ImageOrientationPatient=None), "."),
        "no spacing": (setting(PixelSpacing=None), "PixelSpacing"),
        "a spacing of zero": (setting(PixelSpacing=[0, 0.8]), "PixelSpacing"),
        "a negative spacing": (setting(PixelSpacing=[0.7, -0.8]), "PixelSpacing"),
        "one spacing": (setting(PixelSpacing=[0.7]), "."),
        "directions of zero": (setting(ImageOrientationPatient=[0] * 6), "Orientation"),
        "parallel directions": (setting(ImageOrientationPatient=[1, 0, 0, 1, 0, 0]), "."),
        "long directions": (setting(ImageOrientationPatient=[2, 0, 0, 0, 2, 0]), "."),
        "five directions": (setting(ImageOrientationPatient=[1, 0, 0, 0, 1]), "."),
        "a position in 2D": (setting(ImagePositionPatient=[1, 2]), "."),
        "a slice of another direction": (
            only(3, lambda d: setattr(d, "ImageOrientationPatient", [0, 1, 0, 0, 0, -1])),
            ".",
        ),
        "a slice of another size": (only(3, lambda d: setattr(d, "Rows", 9)), "."),
        "a slice of another spacing": (only(3, lambda d: setattr(d, "PixelSpacing", [1, 1])), "."),
        "a slice aside": (
            only(3, lambda d: setattr(d, "ImagePositionPatient", [-45, -40, -292.5])),
            "displaced",
        ),
        "a slice twice": (
            only(3, lambda d: setattr(d, "ImagePositionPatient", [-50, -40, -295])),
            ".",
        ),
        "a slice without a place": (only(3, lambda d: delattr(d, "ImagePositionPatient")), "."),
        "uneven slices": (
            lambda d, n: setattr(d, "ImagePositionPatient", [-50, -40, -300 + n * n]),
            "uneven",
        ),
        "a slice without pixels": (only(3, lambda d: delattr(d, "PixelData")), "."),
        "no pixels": (setting(PixelData=None), "."),
        "no rows": (setting(Rows=None), "."),
        "rows of zero": (setting(Rows=0), "."),
        "huge rows and columns": (setting(Rows=65535, Columns=65535), "."),
        "more rows than pixels": (setting(Rows=11), "."),
        "a million frames": (setting(NumberOfFrames=1000000), "."),
        "7 bits": (setting(BitsAllocated=7), "."),
        "no bits": (setting(BitsAllocated=None), "."),
        "64 bits": (setting(BitsAllocated=64, BitsStored=64, HighBit=63), "."),
        "more bits stored than there are": (setting(BitsStored=17), "."),
        "a slope of zero": (setting(RescaleSlope=0), "RescaleSlope"),
        "colours without colours": (setting(PhotometricInterpretation="RGB"), "."),
        "a palette without a table": (setting(PhotometricInterpretation="PALETTE COLOR"), "."),
        "unknown colours": (setting(PhotometricInterpretation="SEPIA"), "."),
        "three samples of grey": (setting(SamplesPerPixel=3), "."),
    }
    for name, (change, sentence) in bad.items():
        yield Case(family, name, series(change), Refused(sentence))
    for name, numbers in (
        ("a slice missing", [0, 1, 2, 4, 5, 6, 7]),
        ("two missing", [0, 1, 4, 5, 7]),
    ):
        yield Case(family, name, series(numbers=numbers), Refused("lacks|uneven"))
    for text in (
        b"nan\\nan",
        b"inf\\0.8",
        b"1e999\\1",
        b"a\\b",
        b"\xff\xfe\\1",
        b"-0.7\\1",
        b"\0\0\0",
    ):
        make = after(series(), raw_text("PixelSpacing", text))
        yield Case(family, f"a spacing of {text!r}", make, Refused("."))
    for text in (b"nan\\nan\\nan", b"x\\y\\z", b"1e999\\0\\0"):
        make = after(series(), raw_text("ImagePositionPatient", text))
        yield Case(family, f"a position of {text!r}", make, Refused("."))


def odd() -> Iterator[Case]:
    family = "DICOM"
    stated = {"spacing": (0.8, 0.7, 2.5)}
    yield Case(
        family, "no place, spacing stated",
        series(setting(ImagePositionPatient=None, ImageOrientationPatient=None, PixelSpacing=None)),
        Reads(VALUES, AFFINE, or_refused=True), stated,
    )  # fmt: skip
    lean = AFFINE.copy()
    lean[1, 2] = -0.4
    yield Case(
        family,
        "gantry tilt",
        series(
            lambda d, n: setattr(d, "ImagePositionPatient", [-50, -40 + 0.4 * n, -300 + 2.5 * n])
        ),
        Reads(VALUES, lean),
    )
    yield Case(
        family,
        "rescaled",
        series(setting(RescaleSlope=2, RescaleIntercept=-1024)),
        Reads(VALUES * 2.0 - 1024, AFFINE),
    )
    from_white = series(setting(PhotometricInterpretation="MONOCHROME1"))
    yield Case(family, "counted from white", from_white, lambda path: Reads(VALUES, AFFINE))
    for name, syntax in {
        "implicit": ImplicitVRLittleEndian,
        "deflated": DeflatedExplicitVRLittleEndian,
    }.items():
        yield Case(
            family,
            name,
            series(lambda d, n, s=syntax: setattr(d.file_meta, "TransferSyntaxUID", s)),
            GOOD,
        )

    def big(dataset: Dataset, number: int) -> None:
        dataset.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
        dataset.PixelData = VALUES[:, :, number].T.astype(">i2").tobytes()

    yield Case(family, "big-endian", series(big), GOOD)
    for keyword in ("TransferSyntaxUID", "MediaStorageSOPClassUID"):
        make = series(lambda d, n, k=keyword: delattr(d.file_meta, k))
        yield Case(family, f"no {keyword}", make, MAYBE)

    def bare(folder: Path) -> None:
        for file in folder.iterdir():
            file.write_bytes(file.read_bytes()[132:])

    yield Case(family, "no preamble", after(series(), bare), MAYBE)
    far = series(setting(SeriesDescription="größer 頭部", SpecificCharacterSet="ISO_IR 192"))
    yield Case(family, "a description in Unicode", far, GOOD)
    yield Case(
        family, "an unknown character set", series(setting(SpecificCharacterSet="KLINGON")), GOOD
    )
    for keyword in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "InstanceNumber"):
        yield Case(family, f"no {keyword}", series(setting(**{keyword: None})), MAYBE)
    yield Case(family, "no samples", series(setting(SamplesPerPixel=0)), MAYBE)
    phases = AFFINE.copy()
    phases[2, 3] = -300
    place = series(setting(ImagePositionPatient=[-50, -40, -300]))
    stack = VALUES[:, :, ::-1]
    yield Case(family, "one place for all", place, Reads(stack, phases, or_refused=True))
    same = series(setting(SOPInstanceUID="1.2.3"))
    yield Case(family, "one UID for all", same, MAYBE)
    yield Case(family, "no modality", series(setting(Modality=None)), MAYBE)
    padded = series(lambda d, n: setattr(d, "PixelData", d.PixelData + b"\0" * 9))
    yield Case(family, "padded pixels", padded, MAYBE)

    def beside(folder: Path) -> None:
        written("notes.txt", b"hello")(folder)
        written("empty.dcm", b"")(folder)

    yield Case(family, "rubbish beside the slices", after(series(), beside), GOOD)
    torn = written("broken.dcm", b"\0" * 128 + b"DICM" + b"\xff" * 50)
    yield Case(family, "a torn file beside the slices", after(series(), torn), MAYBE)

    def twice(folder: Path) -> None:
        (folder / "copy.dcm").write_bytes((folder / file_of(3)).read_bytes())

    yield Case(family, "a slice in two copies", after(series(), twice), MAYBE)

    def second(folder: Path) -> None:
        for number in range(8):
            dataset = plane(number)
            dataset.SeriesInstanceUID = SERIES + ".1"
            dataset.SOPInstanceUID = dataset.SOPInstanceUID + ".1"
            dataset.PixelSpacing = [1, 1]
            dataset.save_as(folder / f"other{number}.dcm")

    yield Case(family, "two series", after(series(), second), Refused("."))
    yield Case(family, "two series, one chosen", after(series(), second), GOOD, {"series": SERIES})
    yield Case(family, "a series that is not there", series(), Refused("."), {"series": "1.2.3.4"})
    yield Case(family, "a series by one file of two", after(series(one=file_of(0)), second), GOOD)


def files() -> Iterator[Case]:
    family = "DICOM"
    for at in (0, 100, 131, 132, 140, 0.3, 0.6, -1):
        yield Case(family, f"all files cut at {at}", after(series(), lambda folder, at=at: [
            truncate(n, at)(folder) for n in range(8)] and None), Refused("."))  # fmt: skip
        yield Case(family, f"a file cut at {at}", after(series(), truncate(3, at)), Refused("."))
    yield Case(family, "no DICOM", written("a.dcm", b"hello, world" * 99), Refused("."))
    only_mark = written("a.dcm", b"\0" * 128 + b"DICM")
    yield Case(family, "only the mark", only_mark, Refused("."))
    nested = b"\x08\0\x05\x11SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\0\xe0\xff\xff\xff\xff"
    deep = written("a.dcm", b"\0" * 128 + b"DICM" + nested * 20000)
    yield Case(family, "20000 sequences in each other", deep, Refused("."))
    long = written(
        "a.dcm", b"\0" * 128 + b"DICM" + b"\x08\0\x60\0OB\0\0\xff\xff\xff\x7f" + b"\0" * 99
    )
    yield Case(family, "an element of 2 GB", long, Refused("."))
    for seed in range(20):

        def flip(folder: Path, seed: int = seed) -> None:
            file = folder / file_of(seed % 8)
            file.write_bytes(flip_bits(file.read_bytes(), seed, 128, 900))

        yield Case(family, f"a bit of a header, seed {seed}", after(series(), flip), MAYBE)


def directories() -> Iterator[Case]:
    family = "DICOMDIR"

    def listed(change: Callable[[Path], object] | None = None) -> Make:
        def make(folder: Path) -> Path:
            source = series()(folder)
            files = FileSet()
            for file in sorted(source.iterdir()):
                files.add(file)
            files.write(folder / "disc")
            if change is not None:
                change(folder / "disc")
            return folder / "disc" / "DICOMDIR"

        return make

    yield Case(family, "good", listed(), GOOD)
    yield Case(family, "good, by its folder", lambda folder: listed()(folder).parent, GOOD)

    def file_gone(folder: Path) -> None:
        sorted(file for file in folder.rglob("*") if file.is_file() and file.name != "DICOMDIR")[
            3
        ].unlink()

    yield Case(family, "a file gone", listed(file_gone), Refused("."))

    def all_gone(folder: Path) -> None:
        for file in folder.rglob("*"):
            if file.is_file() and file.name != "DICOMDIR":
                file.unlink()

    yield Case(family, "all files gone", listed(all_gone), Refused("."))
    for at in (0, 100, 132, 300, 0.5):

        def cut_it(folder: Path, at: int | float = at) -> None:
            raw = (folder / "DICOMDIR").read_bytes()
            keep = round(len(raw) * at) if isinstance(at, float) else at
            (folder / "DICOMDIR").write_bytes(raw[:keep])

        yield Case(family, f"cut at {at}", listed(cut_it), MAYBE)
    yield Case(family, "a letter", written("DICOMDIR", b"hello, world"), Refused("."))

    def outside(folder: Path) -> None:
        dataset = pydicom.dcmread(folder / "DICOMDIR")
        for record in dataset.DirectoryRecordSequence:
            if "ReferencedFileID" in record:
                record.ReferencedFileID = ["..", "..", "..", "etc", "passwd"]
        dataset.save_as(folder / "DICOMDIR")

    yield Case(family, "files elsewhere", listed(outside), Refused("."))


CASES = (*headers(), *odd(), *files(), *directories())
