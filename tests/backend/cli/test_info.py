"""`spad info`."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest

from .conftest import Command, assert_one_line

KEYS = {
    *("path", "format", "axes", "shape", "spacing", "orientation", "affine", "depth_axis"),
    *("oblique", "da", "modality", "modality_source", "intensity"),
}


class TestInfo:
    def test_json(self, process: Command, scan: Path) -> None:
        end = process("info", scan, "--json")
        assert end.code == 0
        assert end.err == ""
        facts = json.loads(end.out, parse_constant=lambda name: pytest.fail(f"{name} in JSON"))
        assert set(facts) >= KEYS
        image = nibabel.load(scan)
        assert facts["shape"] == list(image.shape)
        assert facts["orientation"] == "".join(nibabel.aff2axcodes(image.affine))
        assert np.allclose(facts["affine"], image.affine)
        assert np.allclose(facts["spacing"], image.header.get_zooms())
        assert facts["modality"] == "CT"

    def test_readable(self, command: Command, scan: Path) -> None:
        end = command("info", scan)
        assert end.code == 0
        assert "spacing" in end.out
        assert "5.8 x 5.8 x 9" in end.out
        assert "CT" in end.out

    @pytest.mark.parametrize(
        ("name", "content"),
        [
            ("absent.nii.gz", None),
            ("empty.nii.gz", b""),
            ("text.nii", b"no image"),
            ("page.html", b"<html>"),
            ("cut.nii.gz", b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03 cut off"),
        ],
    )
    def test_bad_files(
        self, command: Command, tmp_path: Path, name: str, content: bytes | None
    ) -> None:
        path = tmp_path / name
        if content is not None:
            path.write_bytes(content)
        end = command("info", path, "--json")
        assert_one_line(end, 2)
        assert name in end.err
