"""OME-Zarr folders: zarr writes them, their JSON and chunks are changed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from .arrays import AFFINE, GOOD, SCAN
from .case import Case, Make, Reads, Refused, flip_bits

AXES = [{"name": name, "type": "space", "unit": "millimeter"} for name in "zyx"]
SCALE = {"type": "scale", "scale": [2.5, 0.7, 0.8]}


def good(version: str = "0.4", array: np.ndarray = SCAN) -> Make:
    def make(folder: Path) -> Path:
        path = folder / "scan.zarr"
        group = zarr.open_group(path, mode="w", zarr_format=2 if version == "0.4" else 3)
        group.create_array("0", shape=array.shape, dtype=array.dtype, chunks=(4, 10, 12))[...] = (
            array
        )
        datasets = [{"path": "0", "coordinateTransformations": [SCALE]}]
        metadata = {"multiscales": [{"version": version, "axes": AXES, "datasets": datasets}]}
        group.attrs.update(
            metadata if version == "0.4" else {"ome": {"version": version, **metadata}}
        )
        return path

    return make


def edited(change: Callable[[dict[str, Any]], object], version: str = "0.4") -> Make:
    """Change the image's entry in the group's metadata."""

    def make(folder: Path) -> Path:
        path = good(version)(folder)
        file = path / (".zattrs" if version == "0.4" else "zarr.json")
        found = json.loads(file.read_text())
        scope = found if version == "0.4" else found["attributes"]["ome"]
        change(scope["multiscales"][0])
        file.write_text(json.dumps(found))
        return path

    return make


def array(version: str = "0.4", **changes: Any) -> Make:
    """Change the array's metadata."""

    def make(folder: Path) -> Path:
        path = good(version)(folder)
        file = path / "0" / (".zarray" if version == "0.4" else "zarr.json")
        file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
        return path

    return make


def changed(change: Callable[[Path], object], version: str = "0.4") -> Make:
    def make(folder: Path) -> Path:
        path = good(version)(folder)
        change(path)
        return path

    return make


def scaled(steps: list[Any]) -> Callable[[dict[str, Any]], object]:
    return lambda image: image["datasets"][0].update(coordinateTransformations=steps)


def metadata() -> Iterator[Case]:
    family = "OME-Zarr"
    for version in ("0.4", "0.5"):
        yield Case(family, f"good, {version}", good(version), GOOD)
        for name, steps in {
            "zero": [{"type": "scale", "scale": [0, 1, 1]}],
            "negative": [{"type": "scale", "scale": [1, -1, 1]}],
            "NaN": [{"type": "scale", "scale": [1, float("nan"), 1]}],
            "infinite": [{"type": "scale", "scale": [1, 1, float("inf")]}],
            "short": [{"type": "scale", "scale": [1, 1]}],
            "text": [{"type": "scale", "scale": ["a", 1, 1]}],
            "absent": [],
            "in a file": [{"type": "scale", "path": "elsewhere"}],
            "unknown": [{"type": "rotation"}],
            "no object": ["scale"],
        }.items():
            make = edited(scaled(steps), version)
            yield Case(family, f"a scale that is {name}, {version}", make, Refused("."))
    for name, change in {
        "no axes": lambda image: image.pop("axes"),
        "two axes": lambda image: image["axes"].pop(),
        "axes of one name": lambda image: image.update(axes=[AXES[0]] * 3),
        "nameless axes": lambda image: image.update(axes=[{}, {}, {}]),
        "axes that are numbers": lambda image: image.update(axes=[1, 2, 3]),
        "an unknown unit": lambda image: image.update(axes=[{**AXES[0], "unit": "ell"}, *AXES[1:]]),
        "no datasets": lambda image: image.pop("datasets"),
        "an absent dataset": lambda image: image["datasets"][0].update(path="7"),
        "a dataset outside": lambda image: image["datasets"][0].update(path="../../etc"),
        "a dataset without a path": lambda image: image["datasets"][0].pop("path"),
    }.items():
        yield Case(family, name, edited(change), Refused("."))
    for name in (".zattrs", ".zgroup", "0/.zarray"):
        for content in (b"", b"{", b"[]", b"\xff\xfe", b"null"):
            yield Case(
                family,
                f"{name} of {content!r}",
                changed(
                    lambda path, name=name, content=content: (path / name).write_bytes(content)
                ),
                Reads(SCAN.T, AFFINE, or_refused=True) if name == ".zgroup" else Refused("."),
            )


def arrays() -> Iterator[Case]:
    family = "OME-Zarr"
    huge = [90000, 90000, 90000]
    bad: dict[str, dict[str, Any]] = {
        "a negative shape": {"shape": [-8, 10, 12]},
        "a shape of zero": {"shape": [0, 10, 12]},
        "a shape that is text": {"shape": ["a", 10, 12]},
        "a huge shape": {"shape": huge},
        "a huge chunk": {"shape": huge, "chunks": huge},
        "huge chunks of a small array": {"chunks": huge},
        "chunks of zero": {"chunks": [0, 10, 12]},
        "an unknown codec": {"compressor": {"id": "rar"}},
        "an unknown type": {"dtype": "<x9"},
        "objects": {"dtype": "|O"},
        "a larger type": {"dtype": "<i8"},
        "version 9": {"zarr_format": 9},
    }
    for name, changes in bad.items():
        yield Case(family, name, array(**changes), Refused("."))
    for name, changes in {
        "a negative shape": {"shape": [-8, 10, 12]},
        "a huge shape": {"shape": huge},
        "unknown codecs": {"codecs": [{"name": "rar"}]},
        "an unknown type": {"data_type": "int7"},
        "no chunk grid": {"chunk_grid": {}},
    }.items():
        yield Case(family, f"{name}, 0.5", array("0.5", **changes), Refused("."))
    filled = SCAN.copy()
    filled[4:] = 0
    yield Case(
        family,
        "an absent chunk",
        changed(lambda path: (path / "0" / "1.0.0").unlink()),
        Reads(filled.T, AFFINE),
    )
    for name, keep in (("empty", 0), ("cut", 20), ("nearly whole", -20)):
        yield Case(
            family,
            f"a chunk that is {name}",
            changed(
                lambda path, keep=keep: (path / "0" / "0.0.0").write_bytes(
                    (path / "0" / "0.0.0").read_bytes()[:keep]
                )
            ),
            Refused("."),
        )
    other = array(dimension_separator="/")
    yield Case(family, "chunks of other names", other, Refused("under other names"))
    yield Case(family, "no level", changed(lambda path: shutil.rmtree(path / "0")), Refused("."))
    none = good(array=np.full(SCAN.shape, np.nan, "f4"))
    yield Case(family, "all NaN", none, Refused("no finite voxel"))
    yield Case(family, "a level alone", lambda folder: good()(folder) / "0", GOOD)
    for seed in range(6):
        yield Case(
            family,
            f"a bit of the array's metadata, seed {seed}",
            changed(
                lambda path, seed=seed: (path / "0/.zarray").write_bytes(
                    flip_bits((path / "0/.zarray").read_bytes(), seed, 0, 400)
                )
            ),
            oracle,
        )


def oracle(path: Path) -> Reads | Refused:
    try:
        values = zarr.open(path, mode="r")["0"][...]
    except Exception:
        return Refused(".")
    return Reads(values.T, AFFINE, or_refused=True)


CASES = (*metadata(), *arrays())
