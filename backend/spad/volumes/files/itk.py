"""SimpleITK as the independent reader that proves what was written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from spad.errors import SpadError
from spad.volumes.files.assemble import lps_to_ras


def itk_image(path: Path, reader: str) -> Any:
    """Open a file with one of SimpleITK's readers.

    Args:
        path: the file; left to itself, SimpleITK knows some formats by small letters only.
        reader: "NrrdImageIO", "MetaImageIO" or "PNGImageIO".

    Returns:
        The image, which owns its voxels.

    Raises:
        SpadError: the path is not text, which would end the process.
        RuntimeError: SimpleITK cannot read the file.
    """
    import SimpleITK as sitk

    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise SpadError(
            f"{path} has a name or a folder that is not text (UTF-8), which programs built on ITK "
            "cannot open; rename it or choose another place."
        ) from error
    source = sitk.ImageFileReader()
    source.SetImageIO(reader)
    source.SetFileName(str(path))
    return source.Execute()


def from_itk(image: Any) -> tuple[np.ndarray, np.ndarray]:
    """Give SimpleITK's image as an array (i, j, k[, t][, c]) and an affine to RAS+ mm."""
    import SimpleITK as sitk

    view = sitk.GetArrayViewFromImage(image)
    count = image.GetDimension()
    array = view.transpose(*range(count - 1, -1, -1), *range(count, view.ndim))
    if count == 2:
        array = array[:, :, np.newaxis]
    if count == 4 and array.shape[3] == 1:
        array = array[:, :, :, 0]
    used = min(count, 3)
    direction = np.array(image.GetDirection()).reshape(count, count)[:used, :used]
    affine = np.eye(4)
    affine[:used, :used] = direction * np.array(image.GetSpacing())[:used]
    affine[:used, 3] = np.array(image.GetOrigin())[:used]
    if count == 2:
        affine[2, 2] = np.sign(np.linalg.det(affine[:2, :2]))
    return array, lps_to_ras(affine)
