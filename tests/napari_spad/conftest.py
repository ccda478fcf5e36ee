"""Each test starts without any open scan."""

from __future__ import annotations

import pytest

from napari_spad import grids


@pytest.fixture(autouse=True)
def no_open_scans(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grids, "_registry", grids._Registry())
