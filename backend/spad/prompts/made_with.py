"""What a session was made with: versions, device and threads, which decide the last bits."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

_TOLD = {"spad": "napari-spad", "torch": "torch", "device": "device", "threads": "threads"}


def made_with(device: str) -> dict[str, Any]:
    """Tell what decides the last bits of a result; without torch, so that the viewer can ask.

    Args:
        device: "cpu" or "cuda"; "auto" where nothing has run yet.

    Returns:
        `device`, `threads` (that torch is given, the same for a process and those it starts) and
        the versions of `spad`, `torch` and `python`; None for what is not installed as a package.
    """
    return {
        "device": device,
        "threads": _threads(),
        "spad": _version("napari-spad"),
        "torch": _version("torch"),
        "python": platform.python_version(),
    }


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """Say in a sentence where two of them differ; None where they do not, as far as is known."""
    unknown = (None, "auto")
    found = [
        key
        for key in _TOLD
        if then.get(key) not in unknown and now.get(key) not in unknown and then[key] != now[key]
    ]
    if not found:
        return None
    was, here = (", ".join(f"{_TOLD[key]} {one[key]}" for key in found) for one in (then, now))
    return f"Made with {was}; here {here}: labels may differ in a few voxels."


def _threads() -> int:
    told = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    if told.isdecimal() and int(told):
        return int(told)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
