"""Time what a person waits for: the plugin's imports after napari's own, and `spad info`."""

from __future__ import annotations

import argparse
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PLUGIN_AFTER_NAPARI = """
import time
import napari.viewer
import qtpy.QtWidgets
from importlib import import_module
from npe2 import PluginManifest
manifest = PluginManifest.from_distribution("napari-spad")
start = time.perf_counter()
modules = {command.python_name.partition(":")[0] for command in manifest.contributions.commands}
for name in sorted(modules):
    import_module(name)
print(time.perf_counter() - start)
"""


def plugin_seconds() -> float:
    """Give the seconds that all modules named in the manifest take to import after napari."""
    command = [sys.executable, "-W", "ignore", "-c", PLUGIN_AFTER_NAPARI]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout)


def info_seconds(scan: Path) -> float:
    """Give the seconds of one `spad info` from its start to its end."""
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "spad", "info", str(scan)], stdout=subprocess.DEVNULL, check=True
    )
    return time.perf_counter() - start


def report(what: str, seconds: list[float]) -> None:
    """Print the median and the range of some timings, the first (cold) one apart."""
    cold, *warm = seconds
    print(
        f"{what}: median {statistics.median(warm):.2f} s "
        f"({min(warm):.2f} to {max(warm):.2f} s in {len(warm)} runs; the first took {cold:.2f} s)"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=7, help="timings of each (default: 7)")
    parser.add_argument("--scan", type=Path, help="for `spad info` (default: a small phantom)")
    options = parser.parse_args()
    print(f"Python {platform.python_version()}, {platform.system()} {platform.machine()}")
    with tempfile.TemporaryDirectory() as folder:
        scan = options.scan or _phantom(Path(folder))
        report("plugin imports", [plugin_seconds() for _ in range(options.runs + 1)])
        report("spad info", [info_seconds(scan) for _ in range(options.runs + 1)])


def _phantom(folder: Path) -> Path:
    from spad.phantoms import sample
    from spad.volumes.files import write

    return write(sample("ct").image, folder / "scan.nii.gz")


if __name__ == "__main__":
    main()
