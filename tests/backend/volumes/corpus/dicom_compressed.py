"""DICOM series in compressed transfer syntaxes, with and without a decoder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless, RLELossless

from .case import AFFINE, VALUES, Case, Make, Reads, Refused, flip_bits
from .dicom import Change, after, file_of, series, truncate


def encoded(syntax: str, data: Callable[[int], bytes]) -> Change:
    def change(dataset: Dataset, number: int) -> None:
        dataset.file_meta.TransferSyntaxUID = syntax
        dataset.PixelData = encapsulate([data(number)])
        dataset["PixelData"].VR = "OB"
        dataset["PixelData"].is_undefined_length = True

    return change


BIG = np.tile(VALUES, (4, 4, 1))
"""Voxels of a scan that is large enough for the encoders."""


def packed(syntax: str) -> Change:
    """Compress a slice with pydicom's encoders."""

    def change(dataset: Dataset, number: int) -> None:
        enlarge(dataset, number)
        dataset.compress(syntax, generate_instance_uid=False)

    return change


def enlarge(dataset: Dataset, number: int) -> None:
    dataset.Columns, dataset.Rows = BIG.shape[:2]
    dataset.PixelData = BIG[:, :, number].T.tobytes()


def transcoded(kind: str) -> Make:
    """Compress a series with GDCM, which writes what pydicom cannot."""

    def change(folder: Path) -> None:
        import gdcm

        for file in folder.iterdir():
            reader, writer = gdcm.ImageReader(), gdcm.ImageWriter()
            reader.SetFileName(str(file))
            assert reader.Read()
            coder = gdcm.ImageChangeTransferSyntax()
            coder.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, kind)))
            coder.SetInput(reader.GetImage())
            assert coder.Change()
            writer.SetFile(reader.GetFile())
            writer.SetImage(coder.GetOutput())
            writer.SetFileName(str(file))
            assert writer.Write()

    return after(series(enlarge), change)


def compressed() -> Iterator[Case]:
    family = "DICOM compressed"
    good = Reads(BIG, AFFINE)
    for name, make in {
        "RLE": series(packed(RLELossless)),
        "JPEG 2000": series(packed(JPEG2000Lossless)),
        "JPEG-LS": transcoded("JPEGLSLossless"),
        "lossless JPEG": transcoded("JPEGLosslessProcess14_1"),
    }.items():
        yield Case(family, f"good, {name}", make, good)
        for share in (0.6, 0.9, 0.98):
            yield Case(
                family, f"{name} cut at {share}", after(make, truncate(3, share)), Refused(".")
            )
    for name, syntax in {
        "MPEG-4": "1.2.840.10008.1.2.4.102",
        "HEVC": "1.2.840.10008.1.2.4.107",
        "JPEG XL": "1.2.840.10008.1.2.4.110",
        "JPEG, process 9": "1.2.840.10008.1.2.4.52",
        "JPIP": "1.2.840.10008.1.2.4.94",
        "an unknown one": "1.2.3.4.5",
    }.items():
        make = series(encoded(syntax, lambda n: b"\0\1\2\3" * 50))
        yield Case(family, f"without a decoder: {name}", make, Refused("."))
    for name, data in {
        "nothing": lambda n: b"\0\0",
        "a letter": lambda n: b"hello, world" * 9,
        "uncompressed voxels": lambda n: VALUES[:, :, n].T.tobytes(),
    }.items():
        for syntax in (RLELossless, JPEG2000Lossless, JPEGLSLossless, "1.2.840.10008.1.2.4.70"):
            said = getattr(syntax, "name", "JPEG lossless")
            yield Case(family, f"{name} as {said}", series(encoded(syntax, data)), Refused("."))

    def lying(dataset: Dataset, number: int) -> None:
        dataset.compress(RLELossless, generate_instance_uid=False)
        dataset.NumberOfFrames = 5

    yield Case(family, "fewer frames than claimed", series(lying), Refused("."))

    def sized(dataset: Dataset, number: int) -> None:
        packed(JPEG2000Lossless)(dataset, number)
        dataset.Rows = 9

    yield Case(family, "another size inside", series(sized), Refused("."))

    def huge(dataset: Dataset, number: int) -> None:
        dataset.compress(RLELossless, generate_instance_uid=False)
        dataset.Rows = dataset.Columns = 65535

    yield Case(family, "huge and RLE", series(huge), Refused("."))
    for seed in range(6):

        def flip(folder: Path, seed: int = seed) -> None:
            file = folder / file_of(seed)
            raw = file.read_bytes()
            file.write_bytes(flip_bits(raw, seed, len(raw) - 900, len(raw) - 10))

        make = after(series(packed(JPEG2000Lossless)), flip)
        yield Case(family, f"a bit of JPEG 2000, seed {seed}", make,
                   Reads(BIG, AFFINE, or_refused=True, values_matter=False))  # fmt: skip


CASES = (*compressed(),)
