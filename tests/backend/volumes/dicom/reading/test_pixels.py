"""Voxels come out as stored, by every transfer syntax that a decoder is there for."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gdcm
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.pixels import pixel_array
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    generate_uid,
)

from spad.errors import SpadError
from spad.volumes import files
from spad.volumes.axes import to_file_order
from spad.volumes.files.dicom import codestream, pixels
from spad.volumes.files.dicom.reader import read
from spad.volumes.files.options import Options

SHIPPED = Path(pydicom.__file__).parent / "data" / "test_files"
BY_GDCM = {
    "JPEG lossless SV1": (gdcm.TransferSyntax.JPEGLosslessProcess14_1, "1.2.840.10008.1.2.4.70"),
    "JPEG lossless": (gdcm.TransferSyntax.JPEGLosslessProcess14, "1.2.840.10008.1.2.4.57"),
    "JPEG-LS": (gdcm.TransferSyntax.JPEGLSLossless, "1.2.840.10008.1.2.4.80"),
    "JPEG 2000": (gdcm.TransferSyntax.JPEG2000Lossless, "1.2.840.10008.1.2.4.90"),
    "RLE": (gdcm.TransferSyntax.RLELossless, "1.2.840.10008.1.2.5"),
}


@pytest.fixture
def shipped(tmp_path: Path) -> Callable[[str], Path]:
    """Give a file that comes with pydicom, away from the odd ones beside it."""

    def copy(name: str) -> Path:
        (tmp_path / "shipped").mkdir()
        return shutil.copy(SHIPPED / f"{name}.dcm", tmp_path / "shipped" / "file")

    return copy


def in_file_order(volume: Any) -> np.ndarray:
    return to_file_order(volume.array, volume.source)


def compress(path: Path, syntax: int) -> None:
    reader = gdcm.ImageReader()
    reader.SetFileName(str(path))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(syntax))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(path))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("name", BY_GDCM)
def test_lossless_syntaxes(scanner: Any, plane: Any, name: str, signed: bool) -> None:
    syntax, uid = BY_GDCM[name]
    low = -900 if signed else 0
    dtype = np.int16 if signed else np.uint16
    scanner.series(9, values=lambda k: plane(12, 17, k, low, 2000).astype(dtype))
    for path in scanner.files():
        compress(path, syntax)
        assert pydicom.dcmread(path).file_meta.TransferSyntaxUID == uid
    volume = read(scanner.folder, Options())
    assert volume.array.dtype == dtype
    for k in range(9):
        np.testing.assert_array_equal(in_file_order(volume)[:, :, k].T, plane(12, 17, k, low, 2000))


def test_openjpeg_writes_and_we_read(scanner: Any, plane: Any) -> None:
    scanner.series(3, values=lambda k: plane(64, 48, k, 0, 4000).astype(np.uint16))
    for path in scanner.files():
        ds = pydicom.dcmread(path)
        ds.compress(
            "1.2.840.10008.1.2.4.90", encoding_plugin="pylibjpeg", generate_instance_uid=False
        )
        ds.save_as(path)
    volume = read(scanner.folder, Options())
    np.testing.assert_array_equal(in_file_order(volume)[:, :, 2].T, plane(64, 48, 2, 0, 4000))


@pytest.mark.parametrize(
    "uid", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian]
)
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.uint32])
def test_uncompressed_syntaxes(scanner: Any, plane: Any, uid: UID, dtype: Any) -> None:
    def edit(ds: Any, k: int) -> None:
        ds.file_meta.TransferSyntaxUID = uid
        if uid == ExplicitVRBigEndian:
            ds.PixelData = (
                plane(12, 17, k, 0, 200).astype(np.dtype(dtype).newbyteorder(">")).tobytes()
            )
            ds["PixelData"].VR = "OB" if dtype == np.uint8 else "OW"

    scanner.series(3, values=lambda k: plane(12, 17, k, 0, 200).astype(dtype), edit=edit)
    volume = read(scanner.folder, Options())
    assert volume.array.dtype == dtype
    assert volume.array.dtype.isnative
    for k in range(3):
        np.testing.assert_array_equal(in_file_order(volume)[:, :, k].T, plane(12, 17, k, 0, 200))


def test_files_without_preamble(scanner: Any, plane: Any) -> None:
    scanner.series(3)
    for path in scanner.files():
        ds = pydicom.dcmread(path)
        bare = pydicom.Dataset(ds)
        pydicom.dcmwrite(
            path, bare, implicit_vr=True, little_endian=True, enforce_file_format=False
        )
        assert path.read_bytes()[128:132] != b"DICM"
    volume = read(scanner.folder, Options())
    np.testing.assert_array_equal(in_file_order(volume)[:, :, 1].T, plane(12, 17, 1))
    assert read(scanner.files()[1], Options()).array.shape[0] == 3


def test_one_file_without_preamble_or_suffix(scanner: Any) -> None:
    scanner.series(3)
    for path in scanner.files():
        path.write_bytes(path.read_bytes()[132:])
    assert files.read(scanner.files()[0]).array.shape[0] == 3


def test_a_copy_that_broke_off_to_zeros_is_named_at_once(scanner: Any) -> None:
    scanner.series(3)
    path = scanner.files()[1]
    path.write_bytes(path.read_bytes()[:700] + bytes(1 << 26))
    start = time.monotonic()
    with pytest.raises(SpadError, match=path.name):
        read(scanner.folder, Options())
    assert time.monotonic() - start < 2


@pytest.mark.parametrize("signed", [False, True])
def test_unused_bits_are_cleared(scanner: Any, plane: Any, signed: bool) -> None:
    """12 bits of 16, with rubbish above them, as overlays of old files are."""
    low = -2048 if signed else 0
    rubbish = np.random.default_rng(1).integers(0, 16, (12, 17)).astype(np.uint16) << 12

    def values(k: int) -> np.ndarray:
        stored = plane(12, 17, k, low, 2047).astype(np.int16).view(np.uint16) & 0xFFF
        return (stored | rubbish).view(np.int16 if signed else np.uint16)

    scanner.series(2, values=values, BitsStored=12, HighBit=11)
    array = in_file_order(read(scanner.folder, Options()))
    for k in range(2):
        np.testing.assert_array_equal(array[:, :, k].T, plane(12, 17, k, low, 2047))


def test_bits_that_end_at_the_highest(scanner: Any, plane: Any) -> None:
    scanner.series(
        2,
        values=lambda k: plane(12, 17, k, 0, 4095).astype(np.uint16) << 4,
        BitsStored=12,
        HighBit=15,
    )
    array = in_file_order(read(scanner.folder, Options()))
    np.testing.assert_array_equal(array[:, :, 1].T, plane(12, 17, 1, 0, 4095))


def test_one_rescale_stays_beside_stored_integers(scanner: Any, plane: Any) -> None:
    scanner.series(
        3, RescaleSlope=0.5, RescaleIntercept=-1024, WindowCenter=[40, 500], WindowWidth=[400, 1500]
    )
    volume = read(scanner.folder, Options())
    assert volume.array.dtype == np.int16
    assert (volume.slope, volume.intercept) == (0.5, -1024)
    assert volume.window == (-160, 240)
    np.testing.assert_array_equal(in_file_order(volume)[:, :, 0].T, plane(12, 17, 0))


def test_different_rescales_become_values(scanner: Any, plane: Any) -> None:
    def edit(ds: Any, k: int) -> None:
        ds.RescaleSlope = [1.5, 2.0, 0.25][k]

    scanner.series(3, edit=edit, Modality="MR")
    volume = read(scanner.folder, Options())
    assert volume.array.dtype == np.float32
    assert (volume.slope, volume.intercept) == (1, 0)
    for k, slope in enumerate((1.5, 2.0, 0.25)):
        np.testing.assert_array_equal(
            in_file_order(volume)[:, :, k].T, plane(12, 17, k).astype(np.float32) * slope
        )
    assert any("different rescale factors" in note for note in volume.notes)


def test_a_slope_of_zero_is_refused(scanner: Any) -> None:
    scanner.series(3, RescaleSlope=0)
    with pytest.raises(SpadError, match="RescaleSlope of 0"):
        read(scanner.folder, Options())


def test_slices_of_two_types_keep_their_values(scanner: Any, plane: Any) -> None:
    scanner.series(
        4, values=lambda k: plane(12, 17, k, 0, 900).astype(np.uint16 if k % 2 else np.int16)
    )
    volume = read(scanner.folder, Options())
    assert volume.array.dtype == np.int32
    np.testing.assert_array_equal(in_file_order(volume)[:, :, 3].T, plane(12, 17, 3, 0, 900))


def test_what_a_person_should_know_is_noted(scanner: Any) -> None:
    scanner.series(
        2, PhotometricInterpretation="MONOCHROME1", PixelPaddingValue=-2000,
        LossyImageCompression="01",
    )  # fmt: skip
    notes = " ".join(read(scanner.folder, Options()).notes)
    for words in ("MONOCHROME1", "-2000 (PixelPaddingValue)", "compressed with loss"):
        assert words in notes


@pytest.mark.parametrize(
    "name",
    [
        *("CT_small", "MR_small_RLE", "MR_small_bigendian", "MR_small_jp2klossless"),
        *("MR_small_jpeg_ls_lossless", "J2K_pixelrep_mismatch", "693_J2KI", "JPGExtended"),
        *("examples_overlay", "JPEGLSNearLossless_08", "JPEGLSNearLossless_16", "image_dfl"),
    ],
)
def test_grey_files_of_pydicom_as_itk_reads_them(name: str, shipped: Any) -> None:
    volume = read(shipped(name), Options())
    theirs = sitk.GetArrayFromImage(sitk.ReadImage(str(SHIPPED / f"{name}.dcm")))
    ours = to_file_order(volume.values(), volume.source)
    np.testing.assert_array_equal(ours.transpose(2, 1, 0), theirs)


@pytest.mark.parametrize(
    "name",
    [
        *("SC_rgb_rle", "SC_rgb_dcmtk_+eb+cr", "SC_rgb_jpeg_gdcm", "SC_rgb_gdcm_KY"),
        *("SC_rgb_dcmtk_+eb+cy+np", "SC_rgb_dcmtk_+eb+cy+s4", "SC_rgb_small_odd_big_endian"),
        *("SC_ybr_full_422_uncompressed", "examples_palette", "ExplVR_BigEnd", "SC_rgb_jpeg_dcmd"),
        "SC_jpeg_no_color_transform",
    ],
)
def test_coloured_files_of_pydicom_as_itk_reads_them(name: str, shipped: Any) -> None:
    volume = read(shipped(name), Options())
    assert volume.rgb
    assert volume.axes == "czyx"
    assert volume.unit is None
    theirs = sitk.GetArrayFromImage(sitk.ReadImage(str(SHIPPED / f"{name}.dcm")))
    np.testing.assert_array_equal(in_file_order(volume).transpose(2, 1, 0, 3), theirs)


@pytest.mark.parametrize("name", ["SC_rgb_rle_16bit_2frame", "SC_rgb_rle_2frame"])
def test_coloured_frames_as_pydicom_reads_them(name: str, shipped: Any) -> None:
    volume = read(shipped(name), Options())
    theirs = pixel_array(SHIPPED / f"{name}.dcm")
    np.testing.assert_array_equal(in_file_order(volume).transpose(2, 1, 0, 3), theirs)


def test_planar_colours(scanner: Any) -> None:
    colours = np.random.default_rng(0).integers(0, 255, (12, 17, 3)).astype(np.uint8)

    def edit(ds: Any, k: int) -> None:
        ds.PlanarConfiguration = 1
        ds.PixelData = colours.transpose(2, 0, 1).tobytes()

    scanner.series(1, values=lambda k: colours, edit=edit, Modality="OT")
    array = in_file_order(read(scanner.folder, Options()))
    np.testing.assert_array_equal(array[:, :, 0].transpose(1, 0, 2), colours)


@pytest.mark.parametrize("kept", [0, 1, 40, 407])
def test_truncated_pixels(scanner: Any, kept: int) -> None:
    scanner.series(3)
    path = scanner.files()[1]
    data = path.read_bytes()
    path.write_bytes(data[: len(data) - 408 + kept])
    with pytest.raises(SpadError, match=f"holds {kept} bytes of pixels, but its header claims 408"):
        read(scanner.folder, Options())


@pytest.mark.parametrize("part", [0.2, 0.5, 0.9, 0.98])
@pytest.mark.parametrize("name", ["JPEG 2000", "JPEG-LS", "RLE"])
def test_truncated_compressed_pixels(scanner: Any, plane: Any, name: str, part: float) -> None:
    scanner.series(2, values=lambda k: plane(64, 64, k, 0, 3000).astype(np.uint16))
    path = scanner.files()[0]
    compress(path, BY_GDCM[name][0])
    data = path.read_bytes()
    start = data.rindex(b"\xe0\x7f\x10\x00")
    path.write_bytes(data[: start + int((len(data) - start) * part)])
    with pytest.raises(SpadError) as error:
        read(scanner.folder, Options())
    assert "\n" not in str(error.value)
    assert path.name in str(error.value)


@pytest.mark.parametrize("one_file", [False, True])
def test_a_file_that_ends_in_its_header(scanner: Any, one_file: bool) -> None:
    """Wherever it breaks off: the rest is never taken for a complete series."""
    scanner.series(3)
    cut, other, _ = scanner.files()
    data = cut.read_bytes()
    for length in range(140, len(data) - 408, 31):
        cut.write_bytes(data[:length])
        with pytest.raises(SpadError, match=r"no pixel data in im0001|cut off.*im0001"):
            read(other if one_file else scanner.folder, Options())


@pytest.mark.parametrize(
    "claim",
    [
        {"Rows": 65535, "Columns": 65535},
        {"NumberOfFrames": 2_000_000_000},
        {"NumberOfFrames": 3000},
        {"Rows": 65535},
    ],
)
@pytest.mark.parametrize("compressed", [False, True])
def test_nothing_is_taken_for_a_false_claim(
    scanner: Any, claim: dict[str, int], compressed: bool
) -> None:
    scanner.series(1, values=lambda k: np.zeros((64, 64), np.uint16))
    (path,) = scanner.files()
    if compressed:
        compress(path, BY_GDCM["JPEG 2000"][0])
    scanner.change(path, **claim)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(SpadError) as error:
        read(path, Options())
    assert "\n" not in str(error.value)
    if sys.platform == "linux":
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


@pytest.mark.parametrize(
    "elements",
    [
        {"BitsAllocated": 12},
        {"BitsAllocated": 0},
        {"BitsStored": 17},
        {"HighBit": 40},
        {"SamplesPerPixel": 2},
        {"PhotometricInterpretation": "CMYK"},
        {"Rows": 0},
        {"Columns": None},
        {"BitsAllocated": None},
    ],
)
def test_impossible_pixel_elements(scanner: Any, elements: dict[str, Any]) -> None:
    scanner.series(1)
    scanner.change(scanner.files()[0], **elements)
    with pytest.raises(SpadError) as error:
        read(scanner.folder, Options())
    assert "\n" not in str(error.value)
    assert "expected" in str(error.value)


def test_a_missing_decoder_is_named(scanner: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import pydicom.pixels.decoders as decoders

    scanner.series(2, values=lambda k: np.zeros((8, 8), np.uint16))
    for path in scanner.files():
        compress(path, BY_GDCM["JPEG 2000"][0])
    monkeypatch.setattr(decoders.JPEG2000LosslessDecoder, "_available", {})
    with pytest.raises(SpadError, match="JPEG 2000 Image Compression \\(Lossless Only\\)") as error:
        read(scanner.folder, Options())
    assert "install pylibjpeg-openjpeg" in str(error.value)


def test_twelve_bit_jpeg_without_gdcm(shipped: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codestream, "_has_gdcm", lambda: False)
    with pytest.raises(SpadError, match="install python-gdcm"):
        read(shipped("JPGExtended"), Options())


def test_an_unknown_syntax_is_named(scanner: Any) -> None:
    scanner.series(1)
    (path,) = scanner.files()
    compress(path, BY_GDCM["JPEG 2000"][0])
    data = path.read_bytes().replace(b"1.2.840.10008.1.2.4.90", b"1.2.840.10008.1.2.4.99")
    path.write_bytes(data)
    with pytest.raises(SpadError, match=r"1\.2\.840\.10008\.1\.2\.4\.99"):
        read(path, Options())


def test_a_code_stream_of_another_size_is_refused(scanner: Any) -> None:
    scanner.series(1, values=lambda k: np.zeros((64, 32), np.uint16))
    (path,) = scanner.files()
    compress(path, BY_GDCM["JPEG-LS"][0])
    scanner.change(path, Rows=2048)
    with pytest.raises(SpadError, match="image of 32 x 64 voxels, but its header says 32 x 2048"):
        read(path, Options())


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"\xff\xc4\0", b"\xff\0\0"),
        (b"\xff\xc4\0", b"\x1b\xc4\0"),
        (b"\xff\xc3\0\x0b\x10", b"\xff\xc3\0\x0b\xc3"),
    ],
)
def test_damaged_jpeg_does_not_end_the_process(scanner: Any, old: bytes, new: bytes) -> None:
    scanner.series(1, values=lambda k: np.zeros((64, 32), np.uint16))
    (path,) = scanner.files()
    compress(path, BY_GDCM["JPEG lossless"][0])
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new, 1))
    code = "import sys, spad; spad.read(sys.argv[1])"
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True)
    assert done.returncode == 1
    assert "SpadError" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("name", "decoder"),
    [("JPEG 2000", "JPEG2000LosslessDecoder"), ("JPEG-LS", "JPEGLSLosslessDecoder")],
)
def test_gdcm_does_not_decode_what_others_can(
    scanner: Any, monkeypatch: pytest.MonkeyPatch, name: str, decoder: str
) -> None:
    import pydicom.pixels.decoders as decoders

    asked = []
    available = {**getattr(decoders, decoder)._available, "gdcm": lambda *_: asked.append(1)}
    monkeypatch.setattr(getattr(decoders, decoder), "_available", available)
    scanner.series(2, values=lambda k: np.full((64, 32), k, np.uint16))
    for path in scanner.files():
        compress(path, BY_GDCM[name][0])
    assert in_file_order(read(scanner.folder, Options()))[0, 0].tolist() == [0, 1]
    assert not asked


def test_memory_that_is_not_there(scanner: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(shape: Any, dtype: Any) -> None:
        raise MemoryError

    scanner.series(3)
    monkeypatch.setattr(pixels.np, "empty", none)
    with pytest.raises(SpadError, match="GiB of memory"):
        read(scanner.folder, Options())


def test_peak_memory_is_one_array(scanner: Any) -> None:
    """Measured in a process of its own: 64 MiB of voxels in 64 files."""
    scanner.series(64, values=lambda k: np.full((1024, 512), k, np.int16), uid=generate_uid())
    code = (
        "import resource, sys; from pathlib import Path\n"
        "from spad.volumes.files.dicom.reader import read\n"
        "from spad.volumes.files.options import Options\n"
        "import pydicom.filereader\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = peak(); v = read(Path(sys.argv[1]), Options())\n"
        "print((peak() - before) * 1024 / v.array.nbytes)"
    )
    if sys.platform != "linux":
        pytest.skip("ru_maxrss is in bytes elsewhere")
    done = subprocess.run(
        [sys.executable, "-c", code, str(scanner.folder)],
        capture_output=True, text=True, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert float(done.stdout) < 1.3


def test_a_modality_table_gives_the_values(scanner: Any) -> None:
    table = pydicom.Dataset()
    table.LUTDescriptor = [256, 0, 16]
    table.LUTData = (np.arange(256, dtype="<u2") * 100 + 7).tobytes()
    table["LUTData"].VR = "OW"
    table.ModalityLUTType = "OD"
    stored = np.random.default_rng(0).integers(0, 255, (12, 17)).astype(np.uint8)
    scanner.series(2, values=lambda k: stored, ModalityLUTSequence=[table])
    volume = read(scanner.folder, Options())
    assert (volume.slope, volume.intercept) == (1, 0)
    array = in_file_order(volume)[:, :, 0].T
    np.testing.assert_array_equal(array, stored.astype(np.int64) * 100 + 7)


def test_a_damaged_modality_table_is_refused(scanner: Any) -> None:
    table = pydicom.Dataset()
    table.LUTDescriptor = [256, 0, 16]
    scanner.series(2, ModalityLUTSequence=[table])
    with pytest.raises(SpadError, match="modality lookup table that cannot be applied"):
        read(scanner.folder, Options())


@pytest.mark.parametrize("shape", [(8, 5, 7), (8, 7, 9), (3, 5, 7)])
def test_single_bits_in_parts_of_bytes_are_refused(
    scanner: Any, shape: tuple[int, int, int]
) -> None:
    scanner.series(1, values=lambda k: np.zeros((10, 70), np.uint8))
    (path,) = scanner.files()
    frames, rows, columns = shape
    bits = bytes(-(-frames * rows * columns // 16) * 2)
    scanner.change(
        path, NumberOfFrames=frames, Rows=rows, Columns=columns, BitsAllocated=1, BitsStored=1,
        HighBit=0, PixelData=bits, Modality="OT", ImagePositionPatient=None,
    )  # fmt: skip
    with pytest.raises(SpadError, match="not whole bytes"):
        read(path, Options())


@pytest.mark.parametrize(
    ("element", "dtype"), [("FloatPixelData", "f4"), ("DoubleFloatPixelData", "f8")]
)
def test_real_numbers(scanner: Any, element: str, dtype: str) -> None:
    values = np.random.default_rng(0).normal(size=(12, 17)).astype(dtype)

    def edit(ds: Any, k: int) -> None:
        del ds.PixelData
        setattr(ds, element, (values + k).tobytes())

    scanner.series(2, edit=edit, Modality="MR")
    volume = read(scanner.folder, Options())
    assert volume.array.dtype == dtype
    np.testing.assert_array_equal(in_file_order(volume)[:, :, 1].T, values + 1)
