"""Write the two phantom scans and their labels that stand beside this script."""

from __future__ import annotations

import sys
from pathlib import Path

from spad.phantoms import sample
from spad.volumes.files import write

FOLDER = Path(__file__).resolve().parent


def main(folder: Path = FOLDER) -> list[Path]:
    """Write `ct_phantom` and `mr_phantom`, each an image, labels and the labels' names.

    Args:
        folder: where to.

    Returns:
        The volume files written.
    """
    written = []
    for modality in ("ct", "mr"):
        made = sample(modality)
        written.append(write(made.image, folder / f"{modality}_phantom.nii.gz"))
        written.append(write(made.labels, folder / f"{modality}_phantom_labels.nii.gz"))
    return written


if __name__ == "__main__":
    for path in main(*map(Path, sys.argv[1:2])):
        print(path)
