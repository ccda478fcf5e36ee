"""Paths rather than contents: names, links, folders, permissions, and folders of masks."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import nibabel
import numpy as np

from .arrays import npy
from .case import AFFINE, GOOD, LABELS, VALUES, Case, Make, Reads, Refused, written
from .metaimage import good as metaimage
from .nifti import good as nifti
from .nrrd import good as nrrd
from .pictures import GREY
from .pictures import good as picture
from .pictures import picture as shown
from .zarrs import GOOD as ZARR
from .zarrs import good as ome_zarr

FAMILY = "Places"


def no_links() -> str | None:
    return "symbolic links need rights on Windows" if sys.platform == "win32" else None


def no_rights() -> str | None:
    if sys.platform == "win32" or os.geteuid() == 0:
        return "root may read anything"
    return None


def masks(change: object = None, names: tuple[str, ...] = ("liver", "spleen")) -> Make:
    """Write one mask file per organ, as TotalSegmentator does."""

    def make(folder: Path) -> Path:
        path = folder / "segmentations"
        path.mkdir()
        for n, name in enumerate(names):
            mask = np.equal(LABELS, n + 1).astype(np.uint8)
            nibabel.save(nibabel.Nifti1Image(mask, AFFINE), path / f"{name}.nii.gz")
        if callable(change):
            change(path)
        return path

    return make


def save(path: Path, values: np.ndarray, affine: np.ndarray = AFFINE) -> None:
    nibabel.save(nibabel.Nifti1Image(values, affine), path)


def names() -> Iterator[Case]:
    for name in ("Müller größer", "頭部 CT", "скан", "a b  c", "🩻", "x" * 200, "-rf", "%s %d {0}"):
        yield Case(FAMILY, f"a name of {name[:20]!r}", nifti(f"{name}.nii.gz"), GOOD)

        def inside(folder: Path, name: str = name) -> Path:
            (folder / name).mkdir()
            return nrrd()(folder / name)

        yield Case(FAMILY, f"a folder of {name[:20]!r}", inside, GOOD)
    yield Case(FAMILY, "MetaImage of a name", metaimage("größer 頭.mha"), GOOD)
    yield Case(FAMILY, "a pair of a name", metaimage("größer 頭.mhd"), GOOD)

    def detached(folder: Path) -> Path:
        path = nrrd("scan.nhdr")(folder)
        (folder / "scan.raw").rename(folder / "größer 頭.raw")
        path.write_bytes(path.read_bytes().replace(b"scan.raw", "größer 頭.raw".encode()))
        return path.rename(folder / "größer 頭.nhdr")

    yield Case(FAMILY, "a detached NRRD of a name", detached, GOOD)
    yield Case(FAMILY, "a picture of a name", picture("größer 頭.png"), shown(GREY))
    stated = {"spacing": (0.8, 0.7, 2.5)}
    yield Case(FAMILY, "an array of a name", npy(name="größer 頭.npy"), ZARR, stated)
    yield Case(FAMILY, "capitals", lambda folder: nifti()(folder).rename(folder / "SCAN.NII"), GOOD)
    yield Case(
        FAMILY,
        "no suffix",
        lambda folder: nifti()(folder).rename(folder / "scan"),
        Refused("no reader knows"),
    )
    yield Case(
        FAMILY,
        "only a suffix",
        lambda folder: nifti()(folder).rename(folder / ".nii"),
        Refused("."),
    )
    yield Case(FAMILY, "an unknown suffix", written("a.xyz", b"hello"), Refused("no reader knows"))
    yield Case(FAMILY, "absent", lambda folder: folder / "absent.nii", Refused("does not exist"))
    yield Case(FAMILY, "NUL in the name", lambda folder: folder / "a\0b.nii", Refused("."))
    yield Case(
        FAMILY, "a name too long", lambda folder: folder / ("x" * 5000 + ".nii"), Refused(".")
    )
    below = lambda folder: nifti()(folder) / "scan.nii"  # noqa: E731
    yield Case(FAMILY, "below a file", below, Refused("."))


def links() -> Iterator[Case]:
    def link(folder: Path) -> Path:
        (folder / "data").mkdir()
        (folder / "link.nii").symlink_to(nifti()(folder / "data"))
        return folder / "link.nii"

    def dangling(folder: Path) -> Path:
        (folder / "link.nii").symlink_to(folder / "nowhere.nii")
        return folder / "link.nii"

    def loop(folder: Path) -> Path:
        (folder / "a.nii").symlink_to(folder / "b.nii")
        (folder / "b.nii").symlink_to(folder / "a.nii")
        return folder / "a.nii"

    def folder_loop(folder: Path) -> Path:
        (folder / "a").mkdir()
        (folder / "a" / "again").symlink_to(folder / "a")
        (folder / "a" / "up").symlink_to(folder)
        return folder / "a"

    def to_zarr(folder: Path) -> Path:
        (folder / "link.zarr").symlink_to(ome_zarr()(folder))
        return folder / "link.zarr"

    yield Case(FAMILY, "a link", link, GOOD, skip=no_links)
    yield Case(FAMILY, "a link to OME-Zarr", to_zarr, ZARR, skip=no_links)
    yield Case(FAMILY, "a link to nothing", dangling, Refused("."), skip=no_links)
    yield Case(FAMILY, "links in a circle", loop, Refused("."), skip=no_links)
    yield Case(FAMILY, "folders in a circle", folder_loop, Refused("."), skip=no_links)


def folders() -> Iterator[Case]:
    def plain(folder: Path) -> Path:
        (folder / "empty").mkdir()
        return folder / "empty"

    def letters(folder: Path) -> Path:
        written("a.txt", b"hello")(folder)
        written("b.pdf", b"%PDF-1.4")(folder)
        return folder

    def named(name: str) -> Make:
        def make(folder: Path) -> Path:
            (folder / name).mkdir()
            return folder / name

        return make

    def several(folder: Path) -> Path:
        nifti("a.nii")(folder)
        nifti("b.nii")(folder)
        return folder

    def fifo(folder: Path) -> Path:
        os.mkfifo(folder / "scan.nii")
        return folder / "scan.nii"

    yield Case(FAMILY, "an empty folder", plain, Refused("without scans"))
    yield Case(FAMILY, "a folder of letters", letters, Refused("without scans"))
    yield Case(FAMILY, "a folder of several scans", several, Refused("several scans"))
    for name in ("a.nii.gz", "a.nrrd", "a.mha", "a.dcm", "a.png", "a.npy", "a.zarr"):
        yield Case(FAMILY, f"a folder named {name}", named(name), Refused("."))
    yield Case(FAMILY, "a file named a.zarr", written("a.zarr", b"hello"), Refused("is a file"))
    pipe = lambda: "pipes need POSIX" if sys.platform == "win32" else None  # noqa: E731
    yield Case(FAMILY, "a pipe", fifo, Refused("not a regular file"), skip=pipe)


def permissions() -> Iterator[Case]:
    def locked(make: Make) -> Make:
        def remake(folder: Path) -> Path:
            path = make(folder)
            path.chmod(0)
            return path

        return remake

    yield Case(FAMILY, "a file that may not be read", locked(nifti()), Refused("."), skip=no_rights)
    plain = locked(lambda folder: masks()(folder))
    yield Case(FAMILY, "a folder that may not be read", plain, Refused("."), skip=no_rights)


def organs() -> Iterator[Case]:
    family = "Mask folder"
    yield Case(family, "good", masks(), Reads(LABELS, AFFINE, labels=True))

    def damaged(path: Path) -> None:
        (path / "spleen.nii.gz").write_bytes((path / "spleen.nii.gz").read_bytes()[:60])

    def other_shape(path: Path) -> None:
        save(path / "spleen.nii.gz", np.ones((3, 4, 5), np.uint8))

    def other_place(path: Path) -> None:
        save(
            path / "spleen.nii.gz", np.equal(LABELS, 2).astype(np.uint8), np.diag([1.0, 1, 2.5, 1])
        )

    def overlapping(path: Path) -> None:
        save(path / "spleen.nii.gz", np.ones_like(LABELS))

    def no_mask(path: Path) -> None:
        save(path / "spleen.nii.gz", VALUES)

    def fractions(path: Path) -> None:
        save(path / "spleen.nii.gz", np.linspace(0, 1, LABELS.size).reshape(LABELS.shape))

    def in_time(path: Path) -> None:
        save(path / "spleen.nii.gz", np.ones((*LABELS.shape, 2), np.uint8))

    for name, change in {
        "a damaged mask": damaged,
        "another shape": other_shape,
        "another place": other_place,
        "a scan among masks": no_mask,
        "fractions": fractions,
        "times": in_time,
    }.items():
        yield Case(family, name, masks(change), Refused("."))
    second = np.full_like(LABELS, 2)
    yield Case(family, "masks that overlap", masks(overlapping), Reads(second, AFFINE, labels=True))
    said = ("left größer", "頭部")
    yield Case(family, "names of organs", masks(names=said), Reads(LABELS, AFFINE, labels=True))


CASES = (*names(), *links(), *folders(), *permissions(), *organs())
