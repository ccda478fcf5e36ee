"""Time and weigh reading: ours, nibabel, SimpleITK and napari-nifti, each in its own process."""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

SHAPE = (512, 512, 300)
SPACING = (0.75, 0.75, 1.5)
SMALL = (64, 64, 8)
FORMATS = {
    "nii": "scan.nii",
    "nii.gz": "scan.nii.gz",
    "nrrd raw": "scan.nrrd",
    "nrrd gzip": "packed.nrrd",
    "mha raw": "scan.mha",
    "mha zlib": "packed.mha",
    "DICOM": "dicom",
    "DICOM JPEG 2000": "jpeg2000",
}
READERS = {
    "ours": tuple(FORMATS),
    "ours, as a layer": tuple(FORMATS),
    "nibabel": ("nii", "nii.gz"),
    "SimpleITK": tuple(FORMATS),
    "napari-nifti": ("nii", "nii.gz", "nrrd raw", "nrrd gzip"),
}
UNCOMPRESSED = ("nii", "nrrd raw", "mha raw", "DICOM")


@dataclass(frozen=True)
class Figures:
    """One reader on one format: the best of several runs.

    Attributes:
        full: seconds until all voxels are in memory.
        first: seconds until the middle slice is there.
        peak: bytes of memory above the start, as a share of the array's bytes.
    """

    full: float
    first: float
    peak: float


def phantom(shape: tuple[int, int, int]) -> np.ndarray:
    """Make a scan that compresses as a CT does: air, a smooth body with organs, noise of 12 HU."""
    rng = np.random.default_rng(0)
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n, dtype=np.float32) for n in shape), indexing="ij")
    body = (x / 0.85) ** 2 + (y / 0.65) ** 2 < 1
    scan = np.full(shape, -1000, np.float32)
    scan[body] = 40
    scan += np.where(body, 60 * np.sin(5 * x) * np.cos(4 * y) * np.cos(3 * z), 0)
    spine = (x / 0.12) ** 2 + ((y - 0.4) / 0.12) ** 2 < 1
    scan[spine] = 500
    noise = np.where(body, 12, 4).astype(np.float32)
    for slab in range(shape[2]):
        scan[:, :, slab] += noise[:, :, slab] * rng.standard_normal(shape[:2], np.float32)
    return np.round(scan).astype(np.int16)


def write_all(folder: Path, scan: np.ndarray) -> None:
    """Write a scan in every format with libraries that are not ours."""
    import nibabel
    import nrrd
    import SimpleITK

    image = nibabel.Nifti1Image(scan, np.diag([*SPACING, 1]))
    for form in ("nii", "nii.gz"):
        nibabel.save(image, folder / FORMATS[form])
    header = {"space": "LPS", "space directions": np.diag(SPACING), "space origin": (0, 0, 0)}
    for form, encoding in (("nrrd raw", "raw"), ("nrrd gzip", "gzip")):
        nrrd.write(str(folder / FORMATS[form]), scan, {**header, "encoding": encoding})
    itk = SimpleITK.GetImageFromArray(scan.T)
    itk.SetSpacing(SPACING)
    for form, packed in (("mha raw", False), ("mha zlib", True)):
        SimpleITK.WriteImage(itk, str(folder / FORMATS[form]), useCompression=packed)
    write_dicom(folder / FORMATS["DICOM"], scan, None)
    write_dicom(folder / FORMATS["DICOM JPEG 2000"], scan, "1.2.840.10008.1.2.4.90")


def write_dicom(folder: Path, scan: np.ndarray, syntax: str | None) -> None:
    """Write a CT series, one file per slice."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    folder.mkdir()
    series, study, frame = generate_uid(), generate_uid(), generate_uid()
    for number in range(scan.shape[2]):
        dataset = Dataset()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, generate_uid()
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, series
        dataset.FrameOfReferenceUID, dataset.Modality = frame, "CT"
        dataset.InstanceNumber = number + 1
        dataset.ImagePositionPatient = [0, 0, number * SPACING[2]]
        dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        dataset.PixelSpacing, dataset.SliceThickness = [SPACING[1], SPACING[0]], SPACING[2]
        dataset.Columns, dataset.Rows = scan.shape[:2]
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.BitsAllocated = dataset.BitsStored = 16
        dataset.HighBit, dataset.PixelRepresentation = 15, 1
        dataset.RescaleSlope, dataset.RescaleIntercept = 1, 0
        dataset.PixelData = np.ascontiguousarray(scan[:, :, number].T).tobytes()
        dataset["PixelData"].VR = "OW"
        if syntax is not None:
            dataset.compress(syntax, generate_instance_uid=False)
        dataset.save_as(folder / f"{number:04}.dcm", enforce_file_format=True)


def opener(reader: str) -> Callable[[str], Any]:
    """Give what opens a path: an array that may still be lazy, depth last except for ours."""
    kept: list[Any] = []

    def ours(path: str) -> Any:
        from spad.volumes.files import read

        return np.moveaxis(read(path).array, 0, -1)

    def as_layer(path: str) -> Any:
        from napari_spad.layers import to_layer
        from spad.volumes.files import read

        return np.moveaxis(to_layer(read(path), "scan")[0], 0, -1)

    def with_nibabel(path: str) -> Any:
        import nibabel

        return nibabel.load(path).dataobj

    def with_simpleitk(path: str) -> Any:
        import SimpleITK

        if os.path.isdir(path):
            files = SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(path)
        # a view does not keep its image alive
        kept.append(SimpleITK.ReadImage(files if os.path.isdir(path) else path))
        return SimpleITK.GetArrayViewFromImage(kept[-1]).T

    def with_napari_nifti(path: str) -> Any:
        from napari_nifti._reader import napari_get_reader

        return np.moveaxis(napari_get_reader(path)(path)[0][0], 0, -1)

    return {
        "ours": ours,
        "ours, as a layer": as_layer,
        "nibabel": with_nibabel,
        "SimpleITK": with_simpleitk,
        "napari-nifti": with_napari_nifti,
    }[reader]


def measure(reader: str, what: str, small: str, path: str) -> None:
    """Read once and print seconds and bytes as JSON; runs in a process of its own."""
    read = opener(reader)
    touch(read(small))
    before = peak(forget=True)
    start = time.perf_counter()
    found = read(path)
    shown = np.array(found[..., SHAPE[2] // 2]) if what == "first" else touch(found)
    seconds = time.perf_counter() - start
    grown = peak() - before
    print(json.dumps({"seconds": seconds, "bytes": grown, "check": int(np.sum(shown))}))


def peak(forget: bool = False) -> int:
    """Give the largest amount of memory held so far in bytes, or since it was last forgotten."""
    try:
        if forget:
            Path("/proc/self/clear_refs").write_text("5")
        status = Path("/proc/self/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024
    except OSError:
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def touch(found: Any) -> np.ndarray:
    """Have every page of an array in memory, without a copy where it is one already."""
    array = np.asarray(found)
    array = array[tuple(slice(None, None, -1 if step < 0 else 1) for step in array.strides)]
    return np.ravel(array, order="K")[:: 2048 // array.itemsize].astype(np.int64)


def figures(reader: str, form: str, folder: Path, python: str, runs: int) -> Figures | str:
    """Measure one reader on one format; give a line if it cannot be measured."""
    best: dict[str, dict[str, float]] = {}
    for what in ("full", "first"):
        for _ in range(runs):
            paths = [str(folder / size / FORMATS[form]) for size in ("small", "large")]
            command = [python, __file__, "--measure", reader, what, *paths]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                return (done.stderr.strip().splitlines() or ["no result"])[-1]
            result = json.loads(done.stdout.splitlines()[-1])
            old = best.setdefault(what, result)
            for key in ("seconds", "bytes"):
                old[key] = min(old[key], result[key])
    size = int(np.prod(SHAPE)) * 2
    return Figures(best["full"]["seconds"], best["first"]["seconds"], best["full"]["bytes"] / size)


def main() -> None:
    """Measure and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3, help="runs of each (default: 3)")
    parser.add_argument("--folder", type=Path, help="where the scans are kept (default: temporary)")
    parser.add_argument("--napari-nifti", metavar="PYTHON", help="an interpreter that has it")
    parser.add_argument("--formats", nargs="+", default=list(FORMATS), choices=list(FORMATS))
    parser.add_argument("--measure", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(*options.measure)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        prepare(folder)
        report(folder, options)


def prepare(folder: Path) -> None:
    """Write the scans where they are not there yet, and read them once into the page cache."""
    for size, shape in (("small", SMALL), ("large", SHAPE)):
        if not (folder / size / "jpeg2000").is_dir():
            (folder / size).mkdir(parents=True, exist_ok=True)
            write_all(folder / size, phantom(shape))
    for file in folder.rglob("*"):
        if file.is_file():
            file.read_bytes()


def report(folder: Path, options: argparse.Namespace) -> None:
    """Measure each reader on each format and print rows, then what was left out and the aims."""
    print(f"Python {platform.python_version()}, {platform.system()} {platform.machine()}, ")
    print(
        f"{os.cpu_count()} cores; a scan of {' x '.join(map(str, SHAPE))} int16; warm page cache;"
    )
    print(f"best of {options.runs}. Peak is memory above the start over the array's own bytes.\n")
    print(
        "| format | reader | full load (s) | middle slice (s) | peak / array | ours is faster by |"
    )
    print("|---|---|---|---|---|---|")
    lines, found = [], {}
    for form in options.formats:
        for reader, forms in READERS.items():
            if form not in forms:
                continue
            python = sys.executable
            if reader == "napari-nifti" and options.napari_nifti:
                python = options.napari_nifti
            result = figures(reader, form, folder, python, options.runs)
            if isinstance(result, str):
                lines.append(f"{form}, {reader}: left out ({result}).")
                continue
            found[form, reader] = result
            ours = found[form, "ours"]
            ratio = "" if reader.startswith("ours") else (
                f"{result.full / ours.full:.1f}, {result.first / ours.first:.1f}"
            )  # fmt: skip
            print(
                f"| {form} | {reader} | {result.full:.2f} | {result.first:.3f} "
                f"| {result.peak:.2f} | {ratio} |", flush=True
            )  # fmt: skip
    print("\n".join(["", *lines, *aims(found)]))


def aims(found: dict[tuple[str, str], Figures]) -> list[str]:
    """Say which of the aims of issue 3 are met."""
    said = []
    if ("nii.gz", "nibabel") in found:
        share = found["nii.gz", "ours"].full / found["nii.gz", "nibabel"].full
        said.append(f".nii.gz in {share:.2f} of nibabel's time (aim: 0.5): {share <= 0.5}")
    for form in FORMATS:
        if (form, "ours") not in found:
            continue
        ours = found[form, "ours"]
        most = 1.3 if form in UNCOMPRESSED else 2.3
        said.append(f"{form}: peak {ours.peak:.2f} (aim: {most}): {ours.peak <= most}")
        if form in UNCOMPRESSED:
            said.append(f"{form}: slice in {ours.first:.3f} s (aim: 0.2): {ours.first < 0.2}")
    return said


if __name__ == "__main__":
    main()
