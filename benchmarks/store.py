"""Random crops from a store against the same voxels as `.npy` memory maps: how fast, how much read.

Warm: the files are in the page cache, as they are once a run has seen them. Cold: they are dropped
from it before each crop, and the bytes that come from the disk are counted (Linux).
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from spad.cli.tables import table
from spad.data.store import Store, open_store
from spad.data.store_writer import prepare_store
from spad.phantoms import phantom
from spad.volumes.files import write

REAL = Path(__file__).resolve().parents[2] / "shared" / "data"
CROP = (64, 128, 128)
PROCESSES = (1, 8)
Reader = Callable[[int, tuple[slice, ...]], torch.Tensor]


def main() -> None:
    """Make both forms of the same scans and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", type=Path, help="scans (default: btcv, else phantoms)")
    parser.add_argument("--seconds", type=float, default=5.0, help="for each figure")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as folder:
        place = Path(folder)
        source = options.source or (REAL / "btcv" if REAL.is_dir() else _phantoms(place / "scans"))
        store = prepare_store(source, place / "store", jobs=os.cpu_count() or 1).store
        _as_npy(store, place / "npy")
        voxels = sum(row.nbytes for row in store.rows)
        print(f"{len(store.rows)} volumes, {voxels / 1e6:.0f} MB of voxels, crops of {CROP}")
        rows = []
        for kind in ("store", "npy"):
            size = sum(f.stat().st_size for f in _files(place, kind))
            cells = [kind, f"{size / 1e6:.0f} MB"]
            cells += [f"{_together(place, kind, n, options.seconds):.0f}" for n in PROCESSES]
            speed, read = _cold(place, kind, options.seconds)
            rows.append([*cells, f"{speed:.0f}", "-" if read is None else f"{read / 1e6:.2f} MB"])
        warm = [f"crops/s, {n} process{'es' * (n > 1)}" for n in PROCESSES]
        print(table(["form", "on disk", *warm, "crops/s, cold", "read per crop, cold"], rows))
        wanted = np.mean([_bytes_of(store, number) for number in range(len(store.rows))])
        print(f"a crop holds {wanted / 1e6:.2f} MB on average; {os.cpu_count()} cores")


def _phantoms(folder: Path) -> Path:
    folder.mkdir()
    for seed in range(4):
        made = phantom(seed, "CT", spacing=(2.0, 1.5, 1.5), shape=(150, 220, 256))
        write(made.image, folder / f"img{seed:02d}.nii.gz")
    return folder


def _as_npy(store: Store, folder: Path) -> None:
    folder.mkdir()
    for number, row in enumerate(store.rows):
        np.save(folder / f"{number}.npy", store.image(row)[:, :, :, :].numpy())


def _files(place: Path, kind: str) -> list[Path]:
    if kind == "npy":
        return sorted((place / "npy").iterdir())
    return [f for f in sorted((place / "store" / "volumes").rglob("image/c/**/*")) if f.is_file()]


def _reader(place: Path, kind: str) -> tuple[Reader, Sequence[tuple[int, ...]]]:
    store = open_store(place / "store")
    shapes = [row.shape for row in store.rows]
    if kind == "store":
        images = [store.image(row) for row in store.rows]
        return lambda number, crop: images[number][crop], shapes
    maps = [np.load(place / "npy" / f"{n}.npy", mmap_mode="r") for n in range(len(shapes))]
    return lambda number, crop: torch.from_numpy(np.array(maps[number][crop])), shapes


def _draw(rng: np.random.Generator, shapes: Sequence[tuple[int, ...]]) -> tuple[int, tuple]:
    number = int(rng.integers(len(shapes)))
    starts = [
        int(rng.integers(max(n - c, 0) + 1)) for n, c in zip(shapes[number][1:], CROP, strict=True)
    ]
    return number, (slice(None), *(slice(a, a + c) for a, c in zip(starts, CROP, strict=True)))


def _bytes_of(store: Store, number: int) -> int:
    row = store.rows[number]
    inside = [min(n, c) for n, c in zip(row.shape[1:], CROP, strict=True)]
    return int(np.prod(inside)) * np.dtype(row.dtype).itemsize


def _together(place: Path, kind: str, processes: int, seconds: float) -> float:
    """Give the crops per second of so many processes, each counted once it has warmed up."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(processes) as pool:
        tasks = [(place, kind, seed, seconds) for seed in range(processes)]
        speeds = pool.starmap(_speed, tasks, chunksize=1)
        pool.close()
        pool.join()
    return sum(speeds)


def _speed(place: Path, kind: str, seed: int, seconds: float) -> float:
    torch.set_num_threads(1)
    read, shapes = _reader(place, kind)
    rng = np.random.default_rng(seed)
    for number in range(len(shapes)):
        read(number, (slice(None), slice(0, 1), slice(0, 1), slice(0, 1)))
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        read(*_draw(rng, shapes))
        count += 1
    return count / (time.perf_counter() - start)


def _cold(place: Path, kind: str, seconds: float) -> tuple[float, float | None]:
    """Give crops per second and bytes from the disk per crop when nothing is cached."""
    files, rng = _files(place, kind), np.random.default_rng(99)
    count, spent, before = 0, 0.0, _from_disk()
    os.sync()
    while spent < seconds and count < 200:
        _forget(files)
        read, shapes = _reader(place, kind)
        drawn = _draw(rng, shapes)
        start = time.perf_counter()
        read(*drawn)
        spent += time.perf_counter() - start
        count += 1
        del read
    after = _from_disk()
    read_bytes = None if before is None or after is None else (after - before) / count
    return count / spent, read_bytes


def _forget(files: Sequence[Path]) -> None:
    for file in files:
        descriptor = os.open(file, os.O_RDONLY)
        try:
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def _from_disk() -> int | None:
    try:
        lines = Path("/proc/self/io").read_text().splitlines()
    except OSError:
        return None
    return int(next(line for line in lines if line.startswith("read_bytes")).split()[1])


if __name__ == "__main__":
    main()
