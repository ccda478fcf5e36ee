"""The header of one DICOM file: read once, in one go, without its pixels."""

from __future__ import annotations

import io
import math
import os
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spad.errors import SpadError
from spad.volumes.files.disk import open_checked

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

DEFLATED = "1.2.840.10008.1.2.1.99"
DIRECTORY = "1.2.840.10008.1.3.10"
UNDEFINED = 0xFFFFFFFF
_LONGEST = 128
STEPS = (1 << 16, 1 << 20, 1 << 24, 1 << 27)
_PIXELS = {0x7FE00008: "FloatPixelData", 0x7FE00009: "DoubleFloatPixelData", 0x7FE00010: ""}
_VRS = set(
    b"AE AS AT CS DA DS DT FD FL IS LO LT OB OD OF OL OW PN SH SL SQ SS ST TM UI UL UN US".split()
)

_KEYWORDS = """
SpecificCharacterSet ImageType SOPClassUID SOPInstanceUID StudyDate SeriesDate AcquisitionDate
ContentDate AcquisitionDateTime StudyTime SeriesTime AcquisitionTime ContentTime AccessionNumber
Modality ConversionType Manufacturer ReferringPhysicianName StudyDescription SeriesDescription
ManufacturerModelName LossyImageCompression LossyImageCompressionRatio ConcatenationUID
PatientName PatientID PatientBirthDate PatientSex PatientAge PatientWeight PatientSize
BodyPartExamined SliceThickness SpacingBetweenSlices GantryDetectorTilt PatientPosition EchoTime
EchoNumbers InversionTime RepetitionTime TriggerTime FrameTime FrameTimeVector FrameReferenceTime
ActualFrameDuration CineRate RecommendedDisplayFrameRate NominalScannedPixelSpacing
ImagerPixelSpacing DiffusionBValue DiffusionGradientOrientation TemporalResolution
SequenceOfUltrasoundRegions StudyInstanceUID SeriesInstanceUID StudyID SeriesNumber
AcquisitionNumber InstanceNumber ImagePositionPatient ImageOrientationPatient FrameOfReferenceUID
PositionReferenceIndicator TemporalPositionIdentifier NumberOfTemporalPositions StackID
SamplesPerPixel PhotometricInterpretation PlanarConfiguration NumberOfFrames FrameIncrementPointer
Rows Columns PixelSpacing PixelAspectRatio BitsAllocated BitsStored HighBit PixelRepresentation
PixelPaddingValue PixelPaddingRangeLimit RescaleSlope RescaleIntercept RescaleType WindowCenter
WindowWidth VOILUTFunction ModalityLUTSequence PixelSpacingCalibrationType
PixelSpacingCalibrationDescription RedPaletteColorLookupTableDescriptor
GreenPaletteColorLookupTableDescriptor BluePaletteColorLookupTableDescriptor
AlphaPaletteColorLookupTableDescriptor
RedPaletteColorLookupTableData GreenPaletteColorLookupTableData BluePaletteColorLookupTableData
AlphaPaletteColorLookupTableData SegmentedRedPaletteColorLookupTableData
SegmentedGreenPaletteColorLookupTableData SegmentedBluePaletteColorLookupTableData
DetectorInformationSequence GridFrameOffsetVector DoseGridScaling DoseUnits
Units CorrectedImage DecayCorrection SeriesType RadiopharmaceuticalInformationSequence
DoseCalibrationFactor SUVType SegmentSequence ReferencedSeriesSequence
SegmentationType MaximumFractionalValue
SharedFunctionalGroupsSequence PerFrameFunctionalGroupsSequence DimensionIndexSequence
DimensionOrganizationType ExtendedOffsetTable ExtendedOffsetTableLengths
"""
KEYWORDS = tuple(_KEYWORDS.split())
"""All that reading, SUV and a segmentation that refers to the series need; the rest is skipped."""

PRIVATE = (
    *(0x00190010, 0x0019100C, 0x0019100E),  # Siemens: b-value, gradient direction
    *(0x00430010, 0x00431039),  # GE: b-value
    *(0x20010010, 0x20011003),  # Philips: b-value
    *(0x70530010, 0x70531000, 0x70531009),  # Philips PET: SUV factor, activity factor
)


@dataclass(frozen=True)
class Pixels:
    """Where a file's pixel data are.

    Attributes:
        keyword: "" for PixelData, "FloatPixelData" or "DoubleFloatPixelData".
        offset: bytes from the file's start to the value; within the decompressed data of a
            deflated file.
        length: of the value in bytes, or `UNDEFINED` for compressed frames.
        vr: "OB", "OW" or "" where the file does not say it.
    """

    keyword: str
    offset: int
    length: int
    vr: str


@dataclass(frozen=True, eq=False)
class Header:
    """What a file says about its pixels.

    Attributes:
        path: the file.
        dataset: elements named in `KEYWORDS` and `PRIVATE`, and the file's meta elements.
        syntax: transfer syntax UID; the uncompressed ones are inferred where it is not stated.
        size: bytes that the file holds.
        pixels: where its pixels are, or None.
        cut: whether the file ends, or turns to zeros, within its header.
    """

    path: Path
    dataset: Dataset
    syntax: str
    size: int
    pixels: Pixels | None
    cut: bool = False

    @property
    def sop_class(self) -> str:
        """SOPClassUID, of the file's meta elements where the data set has none."""
        return self._uid("SOPClassUID", "MediaStorageSOPClassUID")

    @property
    def sop_instance(self) -> str:
        """SOPInstanceUID, of the file's meta elements where the data set has none."""
        return self._uid("SOPInstanceUID", "MediaStorageSOPInstanceUID")

    def _uid(self, keyword: str, meta: str) -> str:
        return text(self.dataset, keyword) or text(self.dataset.file_meta, meta) or ""


@dataclass
class _Stop:
    """Stops pydicom at the pixels, which it remembers, and at zeros, as a broken copy ends."""

    tag: int = 0
    vr: str = ""
    length: int = 0
    zeros: bool = False

    def __call__(self, tag: int, vr: str | None, length: int) -> bool:
        if tag not in _PIXELS:
            self.zeros = tag == 0
            return self.zeros
        self.tag, self.vr, self.length = int(tag), vr or "", length
        return True


class _Watched(io.BytesIO):
    """Notices that somebody wanted more bytes than there are."""

    short = False

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        self.short |= size is not None and 0 < len(data) < size
        return data


def is_dicom(start: bytes) -> bool:
    """Tell by the first 132 bytes whether a file can be DICOM.

    Files without the 128 bytes of preamble and "DICM" (exports from before 1996, and some later
    ones) begin with an element of group 0002 or 0008.
    """
    if start[128:132] == b"DICM":
        return True
    if len(start) < 16:
        return False
    for order in "<>":
        group, element, vr, _ = struct.unpack(f"{order}HH2sH", start[:8])
        if group in (2, 8) and element <= 0x70:
            if vr in _VRS:
                return True
            if order == "<" and int.from_bytes(start[4:8], "little") <= 256:
                return True
    return False


def read_header(path: Path) -> Header | None:
    """Read what `KEYWORDS` names of a file; its pixels stay on the disk.

    Returns:
        The header, or None if the file is not DICOM.

    Raises:
        SpadError: the file cannot be opened, or looks like DICOM but cannot be read.
    """
    return parse_header(path, *read_block(path))


def read_block(path: Path, most: int = STEPS[0]) -> tuple[bytes, int]:
    """Give the first bytes of a file and its size."""
    with open_checked(path) as file:
        return file.read(most), os.fstat(file.fileno()).st_size


def parse_header(path: Path, block: bytes, size: int) -> Header | None:
    """Parse a header from a file's first bytes, reading on where they do not hold it all."""
    if not is_dicom(block[:132]):
        return None
    header = None
    for step in STEPS:
        last = size <= step or step == STEPS[-1]
        if len(block) < min(step, size):
            block, size = read_block(path, step)
        header = _parse(path, block, size, last)
        if last or (header is not None and (header.cut or header.pixels is not None)):
            break
    assert header is not None
    if block[128:132] != b"DICM" and not _has_identity(header.dataset):
        return None
    return header


def _has_identity(dataset: Dataset) -> bool:
    return any(key in dataset for key in ("SOPClassUID", "Modality", "Rows", "StudyInstanceUID"))


def _parse(path: Path, block: bytes, size: int, last: bool) -> Header | None:
    """Parse the start of a file; None if it breaks off there and there is more to read."""
    from pydicom.filereader import read_partial

    stop = _Stop()
    try:
        stream = io.BytesIO(block)
        deflated = DEFLATED.encode() in block[:1024]
        if deflated:
            stream = io.BytesIO(inflate(block))
        dataset = read_partial(stream, stop_when=stop, force=True, specific_tags=list(_tags()))
        dataset.buffer = None
        syntax = text(dataset.file_meta, "TransferSyntaxUID") or ""
        if deflated:
            syntax = DEFLATED
    except Exception as error:  # a parser of hostile bytes may raise anything
        if not last:
            return None
        raise SpadError(
            f"{path} looks like DICOM but its header cannot be read ({error}); expected a complete "
            "file; copy or export it again."
        ) from error
    pixels = None
    if stop.tag and stop.length:
        long = stop.vr in ("OB", "OW", "OF", "OD", "UN", "OL")
        offset = stream.tell() + (12 if long else 8)
        pixels = Pixels(_PIXELS[stop.tag], offset, stop.length, stop.vr)
    ended = last and size == len(block) and pixels is None and not deflated
    cut = stop.zeros or (ended and _ends_early(block))
    return Header(path, dataset, syntax or _inferred(dataset), size, pixels, cut)


def _ends_early(block: bytes) -> bool:
    from pydicom.filereader import read_partial

    stream = _Watched(block)
    dataset = read_partial(stream, _Stop(), force=True, specific_tags=list(_tags()))
    elements: list[Any] = [*dataset.file_meta.values(), *dataset.values()]
    lacking = any(
        element.length != UNDEFINED and len(element.value or b"") < element.length
        for element in elements
        if element.is_raw
    )
    return stream.short or lacking or stream.tell() > len(block)


def _inferred(dataset: Any) -> str:
    implicit, little = dataset.original_encoding
    if implicit:
        return "1.2.840.10008.1.2"
    return "1.2.840.10008.1.2.1" if little else "1.2.840.10008.1.2.2"


def inflate(block: bytes, most: int = 1 << 22) -> bytes:
    """Give a deflated file (PS3.5 A.5) as an uncompressed one, up to `most` bytes of its data set.

    Its transfer syntax in the meta elements becomes explicit little endian.

    Raises:
        ValueError: the meta elements do not state their length.
        zlib.error: the data are damaged.
    """
    if block[132:140] != b"\x02\0\0\0UL\4\0":
        raise ValueError("the length of its meta elements is not stated")
    length = 144 + int.from_bytes(block[140:144], "little")
    plain = zlib.decompressobj(-zlib.MAX_WBITS).decompress(block[length:], most)
    old, new = DEFLATED.encode(), b"1.2.840.10008.1.2.1"
    return block[:length].replace(old, new + b"\0" * (len(old) - len(new))) + plain


@cache
def _tags() -> tuple[int, ...]:
    from pydicom.datadict import tag_for_keyword

    tags = (tag_for_keyword(keyword) for keyword in KEYWORDS)
    return (*(int(tag) for tag in tags if tag is not None), *PRIVATE)


@cache
def _tag(key: str | int) -> int:
    """Give the tag of a keyword (a tag stands for itself); 0, which none has, for other words."""
    from pydicom.datadict import tag_for_keyword

    return key if isinstance(key, int) else int(tag_for_keyword(key) or 0)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep pydicom's warnings about odd values from the person, who gets our sentences."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def value(dataset: Any, key: str | int) -> Any:
    """Give an element's value; None where it is absent, empty or cannot be read."""
    tag = _tag(key)
    if tag not in dataset.keys():  # noqa: SIM118  (of a Dataset itself it takes ten times as long)
        return None
    try:
        found = dataset[tag].value
    except Exception:  # pydicom converts values only now and may raise anything
        return None
    return None if found is None or found == "" else found


def text(dataset: Any, key: str | int) -> str | None:
    """Give an element as text without surrounding blanks, at most 128 characters; or None."""
    found = value(dataset, key)
    if isinstance(found, bytes):
        found = found.decode("latin-1")
    said = "" if found is None else str(found).strip("\0 ")[:_LONGEST]
    if not said.isprintable():
        said = "".join(letter if letter.isprintable() else " " for letter in said)
    return said or None


def texts(dataset: Any, key: str | int) -> tuple[str, ...]:
    """Give an element of several texts (ImageType)."""
    found = value(dataset, key)
    if found is None:
        return ()
    if isinstance(found, str):
        return (found.strip(),)
    try:
        return tuple(str(part).strip() for part in found)
    except TypeError:
        return (str(found),)


def number(dataset: Any, key: str | int) -> float | None:
    """Give the first number of an element; None where there is none that is finite."""
    found = numbers(dataset, key)
    return found[0] if found else None


def numbers(dataset: Any, key: str | int, count: int | None = None) -> tuple[float, ...] | None:
    """Give an element's numbers; None where there are none, another count, or any not finite."""
    tag = _tag(key)
    if tag not in dataset.keys():  # noqa: SIM118
        return None
    try:
        raw = dataset.get_item(tag)
        # numbers as text, which pydicom would turn into objects that remember it
        found = raw.value if getattr(raw, "VR", None) in ("DS", "IS") else value(dataset, key)
        if isinstance(found, bytes | str):
            said = found.decode("latin-1") if isinstance(found, bytes) else found
            found = said.strip("\0 ").split("\\")
        parts = () if found is None else found if hasattr(found, "__iter__") else (found,)
        result = tuple(float(part) for part in parts)
    except Exception:  # as in `value`
        return None
    if not result or not all(math.isfinite(part) for part in result):
        return None
    return result if count is None or len(result) == count else None


def whole(dataset: Any, key: str | int) -> int | None:
    """Give an element's whole number, or None."""
    found = number(dataset, key)
    return int(found) if found is not None and found == int(found) else None


def item(dataset: Any, key: str | int) -> Any:
    """Give the first item of a sequence, or None."""
    found = value(dataset, key)
    try:
        return found[0] if found is not None and len(found) else None
    except (TypeError, IndexError):
        return None
