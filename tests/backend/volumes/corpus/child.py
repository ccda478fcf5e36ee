"""Reads every file of the corpus in one process and reports outcome, time and memory of each."""

from __future__ import annotations

import gc
import importlib
import json
import re
import resource
import sys
import time
import traceback
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np

HEAVY = (
    *("nibabel", "nrrd", "SimpleITK", "pydicom", "highdicom", "PIL.Image", "tifffile", "zarr"),
    *("dask.array", "skimage.draw", "scipy.ndimage", "gdcm", "openjpeg", "isal.igzip"),
)
_LONGEST = 2000


def main() -> None:
    kind, listed, results = sys.argv[1:]
    entries = [one for one in json.loads(Path(listed).read_text()) if "skip" not in one]
    warm(entries, kind)
    # collecting before each file would else walk through all that was imported
    gc.freeze()
    read = through_napari if kind == "napari" else through_library
    with open(results, "w", encoding="utf-8") as file:
        for entry in entries:
            result = read(entry)
            result["id"] = entry["id"]
            file.write(json.dumps(result) + "\n")
            file.flush()


def warm(entries: list[dict[str, Any]], kind: str) -> None:
    """Import what is heavy, and read one good file of each family, before anything is measured."""
    from spad.volumes.files import read

    more = ("napari.layers", "napari.utils.notifications", "napari_spad.layers")
    for name in (*HEAVY, *(more if kind == "napari" else ())):
        try:
            importlib.import_module(name)
        except ImportError:
            continue
    seen = set()
    for entry in entries:
        if " good" in entry["id"] and entry["id"] not in seen:
            seen.add(entry["id"])
            try:
                read(entry["path"], **options(entry))
            except Exception:
                continue


def options(entry: dict[str, Any]) -> dict[str, Any]:
    found = dict(entry["options"])
    if "spacing" in found:
        found["spacing"] = tuple(found["spacing"])
    return found


def through_library(entry: dict[str, Any]) -> dict[str, Any]:
    result = once(entry)
    # a busy machine is no fault of the reader's
    if result["seconds"] > 1:
        result["seconds"] = min(result["seconds"], once(entry)["seconds"])
    return result


def once(entry: dict[str, Any]) -> dict[str, Any]:
    from spad.errors import SpadError
    from spad.volumes.files import read

    gc.collect()
    before = reset_peak()
    start = time.perf_counter()
    volume, refusal, failure = None, None, None
    try:
        volume = read(entry["path"], **options(entry))
    except SpadError as error:
        refusal = str(error)
    except BaseException as error:
        failure = "".join(traceback.format_exception(error))[-3000:]
    seconds = time.perf_counter() - start
    growth = (peak() - before) / 2**20
    result = {"seconds": seconds, "growth_mb": growth, "message": refusal or failure or ""}
    if failure is not None:
        return {**result, "outcome": "raised", "good": False, "why": failure}
    if refusal is not None:
        why = judge_refusal(entry, refusal)
        return {**result, "outcome": "refused", "good": why is None, "why": why}
    try:
        why = judge_volume(entry, volume)
        if why is not None and entry.get("or_noted") and volume.notes:
            why = None
    except BaseException as error:
        why = "".join(traceback.format_exception(error))[-3000:]
    return {**result, "outcome": "reads", "good": why is None, "why": why}


def judge_refusal(entry: dict[str, Any], message: str) -> str | None:
    """Say what is wrong with a refusal, None if it is right."""
    if entry["expect"] == "reads" and not entry["or_refused"]:
        return f"refused although it can be read: {message}"
    if entry["expect"] == "refused" and not re.search(entry["match"], message):
        return f"refused for another reason than {entry['match']!r}: {message}"
    return judge_sentence(entry["place"], message)


def judge_sentence(place: str, message: str) -> str | None:
    rest = message.replace(place, "")
    for fails, what in (
        ("\n" in rest or "\r" in rest, "has several lines"),
        (not message.startswith("/") and place not in message, "does not name a path"),
        (not message.endswith("."), "does not end with a period"),
        (bool(re.search(r"[a-z]{2}\.\s+[A-Z]", rest)), "is more than one sentence"),
        (len(rest) > _LONGEST and "xxxx" not in rest, "is too long"),
        ("expected" not in rest, "does not say what was expected"),
    ):
        if fails:
            return f"the sentence {what}: {message!r}"
    return None


def judge_volume(entry: dict[str, Any], volume: Any) -> str | None:
    """Compare a volume with the truth."""
    from spad.volumes.axes import to_file_order

    if entry["expect"] == "refused":
        return f"read although it cannot be right (shape {volume.array.shape})"
    truth = np.load(entry["truth"])
    found = np.asarray(to_file_order(np.asarray(volume.array), volume.source))
    found = found * volume.slope + volume.intercept
    values = truth["values"]
    if values.size and tuple(n for n in found.shape if n > 1) != tuple(
        n for n in values.shape if n > 1
    ):
        return f"shape {found.shape}, not {values.shape}"
    if not np.allclose(volume.source.affine, truth["affine"], rtol=1e-4, atol=1e-4):
        return f"affine {volume.source.affine.tolist()}, not {truth['affine'].tolist()}"
    if entry["values_matter"] and not np.allclose(
        found.reshape(values.shape).astype(float), values.astype(float), rtol=1e-5, equal_nan=True
    ):
        return "other voxels"
    if entry["labels"] is not None and volume.is_labels != entry["labels"]:
        return f"labels: {volume.is_labels}"
    wrong = [note for note in volume.notes if "\n" in note or not note.endswith(".")]
    return f"a note is no sentence: {wrong[0]!r}" if wrong else None


def through_napari(entry: dict[str, Any]) -> dict[str, Any]:
    from napari.utils.notifications import notification_manager

    from napari_spad.reader import get_reader, read_layers

    notification_manager.records.clear()
    tracemalloc.start()
    start = time.perf_counter()
    try:
        reader = get_reader(entry["path"]) or read_layers
        layers = reader(entry["path"])
    except BaseException as error:
        tracemalloc.stop()
        why = "".join(traceback.format_exception(error))[-3000:]
        return {"outcome": "raised", "good": False, "why": why, "seconds": 0, "growth_mb": 0}
    growth = tracemalloc.get_traced_memory()[1] / 2**20
    tracemalloc.stop()
    result: dict[str, Any] = {"seconds": time.perf_counter() - start, "growth_mb": growth}
    errors = [str(one.message) for one in notification_manager.records if one.severity >= "error"]
    if [len(layer) for layer in layers] == [1] and layers[0][0] is None:
        why = None if len(errors) == 1 else f"{len(errors)} notifications for no layer"
        return {**result, "outcome": "refused", "good": why is None, "why": why}
    why = f"a layer and an error: {errors[0]}" if errors else None
    if not all(len(layer) == 3 and layer[2] in ("image", "labels") for layer in layers):
        why = f"no layers but {layers!r:.300}"
    return {**result, "outcome": "reads", "good": why is None, "why": why}


def reset_peak() -> int:
    """Forget the peak of memory (Linux), and give the bytes held now."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return peak()
    return held("VmRSS")


def peak() -> int:
    try:
        return held("VmHWM")
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
            1 if sys.platform == "darwin" else 1024
        )


def held(key: str) -> int:
    status = Path("/proc/self/status").read_text()
    return int(re.search(rf"{key}:\s+(\d+) kB", status)[1]) * 1024


if __name__ == "__main__":
    main()
