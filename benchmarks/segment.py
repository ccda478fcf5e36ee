"""Time and peak memory of `spad segment`, from the start of its process to its end.

Without files, the scans are phantoms of 256 x 256 x 150 voxels of 1.5 x 1.5 x 3 mm and of
512 x 512 x 300 of 0.75 x 0.75 x 1.5 mm. A file is resampled to each of these sizes (the first voxel
along each axis stays, the last is near the last), so that a real scan can be measured at both.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from spad.cli.tables import table
from spad.phantoms import phantom
from spad.volumes.files import read, write
from spad.volumes.volume import Volume

SIZES = {
    "256": ((150, 256, 256), (3.0, 1.5, 1.5)),
    "512": ((300, 512, 512), (1.5, 0.75, 0.75)),
}
_SEED, _SAMPLE_SECONDS = 7, 0.02


def scan_of(source: Path | None, size: str) -> Volume:
    """Make a CT of one of the sizes."""
    shape, spacing = SIZES[size]
    if source is None:
        return phantom(_SEED, "CT", spacing, shape).image
    scan = read(source)
    index = np.ix_(
        *(np.arange(new) * old // new for old, new in zip(scan.spatial_shape, shape, strict=True))
    )
    signs = scan.affine[:3, :3] / np.linalg.norm(scan.affine[:3, :3], axis=0)
    affine = scan.affine.copy()
    affine[:3, :3] = signs * spacing
    array = np.ascontiguousarray(scan.array[index])
    return Volume.from_array(
        array, affine, modality_hint="CT", slope=scan.slope, intercept=scan.intercept
    )


def measured(command: Sequence[str]) -> tuple[float, float, float]:
    """Run a command; give its seconds, its processor seconds and its peak memory in MB."""
    start = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    process, peak, used = psutil.Process(child.pid), 0.0, 0.0
    while child.poll() is None:
        try:
            with process.oneshot():
                peak = max(peak, process.memory_info().rss / 1e6)
                times = process.cpu_times()
                used = times.user + times.system
        except psutil.Error:
            break
        time.sleep(_SAMPLE_SECONDS)
    if child.wait() != 0:
        raise SystemExit(f"it failed: {' '.join(command)}")
    return time.perf_counter() - start, used, peak


def row_of(scan: Path, options: argparse.Namespace, folder: Path) -> list[str]:
    """Measure a scan: a row of the table."""
    report = folder / "report.json"
    command = [sys.executable, "-m", "spad", "segment", str(scan), "--modality", "CT"]
    command += ["--out", str(folder / "labels.nii.gz"), "--report", str(report)]
    command += ["--device", options.device]
    if options.model:
        command += ["--model", options.model]
    runs = []
    for _ in range(options.runs):
        figures = measured([*command, *options.more])
        runs.append((*figures, json.loads(report.read_text())))
    seconds, used, peak, found = min(runs, key=lambda run: run[0])
    stages: dict[str, Any] = found["seconds"]
    rest = seconds - stages["total"]
    names = ("load", "prepare", "model", "finish")
    return [
        *(f"{stages[name]:.1f}" for name in names),
        *(f"{rest:.1f}", f"{seconds:.1f}", f"{used:.1f}", f"{peak:.0f}"),
        f"{found['peak_memory_mb']:.0f}" if found["device"] == "cuda" else "",
        found["device"],
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scans", nargs="*", type=Path, help="default: phantoms")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--model", help="default: that for CT")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--runs", type=int, default=1, help="the fastest counts (default: 1)")
    parser.add_argument("--keep", type=Path, help="keep the scans in this folder for the next run")
    parser.add_argument("--more", nargs="*", default=[], help="further options of `spad segment`")
    options = parser.parse_args()
    print(
        f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}; "
        f"load of the machine {os.getloadavg()[0]:.1f}"
    )
    rows = []
    with tempfile.TemporaryDirectory(prefix="spad-bench-") as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(exist_ok=True)
        for source in options.scans or [None]:
            for size in options.sizes:
                name = source.name.split(".")[0] if source else "phantom"
                scan = folder / f"{name}-{size}.nii.gz"
                if not scan.exists():
                    write(scan_of(source, size), scan)
                rows.append([scan.name.split(".")[0], *row_of(scan, options, Path(temporary))])
    heads = ["scan", "load s", "prepare s", "model s", "finish s", "start, read, write s", "all s"]
    print(table([*heads, "processor s", "peak MB", "GPU MB", "device"], rows))


if __name__ == "__main__":
    main()
