"""The table of organs as a CSV file, with all figures and all their digits."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import QFileDialog

from napari_spad import notify
from spad import jsonfile
from spad.errors import SpadError

if TYPE_CHECKING:
    from qtpy.QtWidgets import QWidget

MEASURES = ("volume_ml", "mean", "sd", "diameter_mm", "slices", "voxels")
AGREEMENT = ("reference_ml", "difference_ml", "dice", "assd", "hd", "hd95", "nsd_1mm", "nsd_3mm")


def table_text(figures: Mapping[str, Mapping[str, Any]], scan: str, unit: str) -> str:
    """Write the figures of organs as CSV.

    Args:
        figures: NAME to id and figures, as the table has them.
        scan: name of the scan, a column of its own, so that tables can be joined.
        unit: of the intensities, "HU" or "".

    Returns:
        A header and one line for each organ; what is missing is empty. Distances are in mm, those
        of the comparison are there only if any organ was compared.
    """
    keys = [key for key in MEASURES if any(key in one for one in figures.values())]
    keys += [key for key in AGREEMENT if any(key in one for one in figures.values())]
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["scan", "organ", "id", *(_title(key, unit) for key in keys)])
    for name, one in figures.items():
        label = one["id"] or ""
        writer.writerow([scan, name, label, *(one.get(key) for key in keys)])
    return file.getvalue()


def ask_and_save(
    parent: QWidget, figures: Mapping[str, Mapping[str, Any]], scan: str, unit: str
) -> None:
    """Ask where the table goes, and save it there."""
    stem = re.sub(r'[<>:"/\\|?*\s]+', "_", scan).strip("_.") or "scan"
    path, _ = QFileDialog.getSaveFileName(
        parent, "Save the table", f"{stem}_organs.csv", "Table (*.csv)"
    )
    if not path:
        return
    target = Path(path if path.lower().endswith(".csv") else f"{path}.csv")
    if str(target) != path and target.exists():
        # the dialog asked about another name
        notify.error(
            f"{target} is there already and nobody said to replace it; give the whole name to "
            "replace it."
        )
        return
    try:
        jsonfile.write_text(target, table_text(figures, scan, unit))
    except SpadError as error:
        notify.error(str(error))
        return
    notify.info(f"Saved {target}.")


def _title(key: str, unit: str) -> str:
    """Name a column, with the unit that its key leaves out."""
    if key in ("mean", "sd"):
        return f"{key}_{unit}".rstrip("_").lower()
    return f"{key}_mm" if key in ("assd", "hd", "hd95") else key
