"""Fixtures that all tests share: the real scans, where they are, and small phantoms."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from spad.phantoms import Phantom

SHARED_DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Give the folder of real scans; skip the test where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the folder of real scans (../shared/data) is absent")
    return SHARED_DATA


@pytest.fixture(scope="session")
def ct_phantom() -> Phantom:
    """Give a small CT phantom (32 x 64 x 64, 9 x 5.8 x 5.8 mm) with labels."""
    from spad.phantoms import phantom

    return phantom(1, "CT", spacing=(9.0, 5.8, 5.8), shape=(32, 64, 64))


@pytest.fixture(scope="session")
def mr_phantom() -> Phantom:
    """Give a small, oblique MR phantom (24 x 64 x 64, 12 x 5.8 x 5.8 mm) with labels."""
    from spad.phantoms import phantom

    return phantom(2, "MR", spacing=(12.0, 5.8, 5.8), shape=(24, 64, 64), tilt_degrees=12.0)


@pytest.fixture
def trash(tmp_path, monkeypatch):
    """Have deleted folders go to a trash of the test's own."""
    if sys.platform == "linux":
        from send2trash import plat_other

        home = tmp_path / "share"
        monkeypatch.setattr(plat_other, "XDG_DATA_HOME", bytes(home))
        monkeypatch.setattr(plat_other, "HOMETRASH_B", bytes(home / "Trash"))
    return tmp_path / "share" / "Trash"
