"""File > Open Sample: two phantoms with their true organs, and a real scan that nibabel brings."""

from __future__ import annotations

from typing import Any

from napari_spad import start, view
from napari_spad.layers import to_layer


def ct_phantom() -> list[Any]:
    """Open the CT phantom, with its true organs as a hidden layer."""
    return _phantom("ct", "CT phantom")


def mr_phantom() -> list[Any]:
    """Open the oblique MR phantom, with its true organs as a hidden layer."""
    return _phantom("mr", "MR phantom")


def nibabel_example() -> list[Any]:
    """Open the real brain MR (two times) that is part of the nibabel package."""
    from importlib.resources import as_file, files

    from spad.volumes.files import read

    start.use()
    with as_file(files("nibabel") / "tests" / "data" / "example4d.nii.gz") as path:
        volume = read(path)
    return [to_layer(volume.with_modality("MR"), "Brain MR")]


def _phantom(modality: str, name: str) -> list[Any]:
    from spad.phantoms import sample

    start.use()
    phantom = sample(modality)
    truth = f"{name} - true organs"
    view.select_soon(name)
    return [
        to_layer(phantom.image, name),
        to_layer(phantom.labels, truth, role="labels", visible=False),
    ]
