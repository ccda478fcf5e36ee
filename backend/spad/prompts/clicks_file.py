"""`CLICKS.json`: prompts for several labels of one scan, by voxel of the file or by mm."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from spad.errors import SpadError
from spad.prompts.prompt import Prompt, Voxel
from spad.volumes.volume import Volume


@dataclass(frozen=True)
class Told:
    """An entry of the file: a prompt for a label, or a mask file to start it from."""

    label: str
    prompt: Prompt | None
    mask: Path | None = None


def read_clicks(path: str | Path, scan: Volume) -> list[Told]:
    """Read `{"clicks": [{"label", "voxel" | "mm", "positive", "kind"}, ...]}`.

    `voxel` counts in the file's own order (nibabel's `dataobj`, SimpleITK's GetPixel), `mm` is RAS+
    by `img.affine`, rounded to the nearest voxel. One position is a point; a list of positions is
    a scribble, or what `kind` says ("box", "lasso"). `{"label", "mask": FILE}` starts a label from
    a mask on the scan's grid; a relative path is one beside the clicks file.

    Args:
        path: the file.
        scan: the scan that the clicks are for, as `spad.read` gives it.

    Raises:
        SpadError: the file is no such JSON, or a position lies outside the scan.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        entries = list(content["clicks"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SpadError(
            f"{path} cannot be read as clicks ({error}); expected JSON such as "
            '{"clicks": [{"label": "liver", "voxel": [120, 80, 40], "positive": true}]}.'
        ) from error
    return [_told(entry, number, path, scan) for number, entry in enumerate(entries, 1)]


def _told(entry: Any, number: int, path: Path, scan: Volume) -> Told:
    where = f"Click {number} of {path.name}"
    if not isinstance(entry, Mapping) or not isinstance(entry.get("label"), str):
        raise SpadError(f"{where} has no label; expected a name such as 'liver' under 'label'.")
    label = entry["label"]
    if "mask" in entry:
        file = path.parent / str(entry["mask"])
        return Told(label, None, file)
    given = [key for key in ("voxel", "mm") if key in entry]
    if len(given) != 1:
        raise SpadError(
            f"{where} has {' and '.join(given) or 'no position'}; expected either 'voxel' (three "
            "indices of the file) or 'mm' (three coordinates, RAS+)."
        )
    try:
        array = np.asarray(entry[given[0]], dtype=float)
        single = array.ndim == 1
        array = array.reshape(-1, 3)
    except (TypeError, ValueError) as error:
        raise SpadError(f"{where} has no positions of three numbers under '{given[0]}'.") from error
    kind = entry.get("kind", "point" if single else "scribble")
    if given[0] == "voxel":
        if scan.source.format == "dicom":
            raise SpadError(
                f"{where} counts voxels, but a DICOM folder has no file order; give 'mm'."
            )
        voxels = from_file_voxels(array, scan)
    else:
        voxels = from_mm(array, scan)
    prompt = Prompt(str(kind), voxels, bool(entry.get("positive", True)))
    try:
        prompt.check_inside(scan.spatial_shape)
    except SpadError as error:
        raise SpadError(f"{where}: {error}") from None
    return Told(label, prompt)


def from_mm(positions: np.ndarray, scan: Volume) -> tuple[Voxel, ...]:
    """Bring (n, 3) RAS+ mm to the nearest voxels of `scan.array`."""
    inverse = np.linalg.inv(scan.affine)
    return _rounded(np.asarray(positions, float) @ inverse[:3, :3].T + inverse[:3, 3])


def from_file_voxels(positions: np.ndarray, scan: Volume) -> tuple[Voxel, ...]:
    """Bring (n, 3) indices of the scan's file (i, j, k) to those of `scan.array`."""
    return _rounded(
        np.asarray(positions, float) @ _to_array(scan)[:3, :3].T + _to_array(scan)[:3, 3]
    )


def to_file_voxels(voxels: np.ndarray, scan: Volume) -> np.ndarray:
    """Bring (n, 3) indices of `scan.array` to those of its file."""
    inverse = np.linalg.inv(_to_array(scan))
    return np.rint(np.asarray(voxels, float) @ inverse[:3, :3].T + inverse[:3, 3]).astype(int)


def _to_array(scan: Volume) -> np.ndarray:
    """(4, 4), from indices of the file to those of `scan.array`."""
    return np.asarray(np.linalg.inv(scan.affine) @ scan.source.affine)


def _rounded(voxels: np.ndarray) -> tuple[Voxel, ...]:
    whole = np.floor(voxels + 0.5 + 1e-6).astype(int)
    return tuple((int(z), int(y), int(x)) for z, y, x in whole)
