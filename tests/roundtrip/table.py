"""Print the largest affine and value error of each cell: `python tests/roundtrip/table.py`."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from formats import FORMATS
from scans import VARIANTS, truths
from trips import Errors, trip

from napari_spad import grids


def main() -> int:
    """Print the matrix as Markdown; a cell is "mm / value" over eight orientations."""
    sys.stdout.write("| format | " + " | ".join(VARIANTS) + " |\n")
    sys.stdout.write("|---" * (len(VARIANTS) + 1) + "|\n")
    worst = Errors(0.0, 0.0)
    for form in FORMATS:
        cells = []
        for variant in VARIANTS:
            cell = None
            for truth in truths(variant):
                grids._registry.__init__()
                with tempfile.TemporaryDirectory() as folder:
                    errors = trip(form, truth, Path(folder))
                if errors is not None:
                    cell = errors if cell is None else cell.worst(errors)
            cells.append("-" if cell is None else f"{cell.affine:.0e} / {cell.value:g}")
            worst = worst if cell is None else worst.worst(cell)
        sys.stdout.write(f"| {form.name} | " + " | ".join(cells) + " |\n")
    sys.stdout.write(f"largest: {worst.affine:.1e} mm, {worst.value:g}\n")
    return int(worst.affine > 2e-5 or worst.value > 0)


if __name__ == "__main__":
    sys.exit(main())
