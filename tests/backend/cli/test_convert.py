"""`spad convert`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK

from .conftest import Command, assert_one_line


class TestConvert:
    @pytest.mark.parametrize("ending", [".nii", ".nrrd", ".nhdr", ".mha", ".mhd", ".hdr"])
    def test_itk_finds_the_same_grid_and_values(
        self, command: Command, scan: Path, tmp_path: Path, ending: str
    ) -> None:
        out = tmp_path / f"copy{ending}"
        end = command("convert", scan, out)
        assert end.code == 0, end.err
        assert str(out) in end.out
        before, after = SimpleITK.ReadImage(str(scan)), SimpleITK.ReadImage(str(out))
        assert after.GetSize() == before.GetSize()
        for part in ("GetSpacing", "GetOrigin", "GetDirection"):
            assert np.allclose(getattr(after, part)(), getattr(before, part)(), atol=1e-5)
        values = SimpleITK.GetArrayFromImage(before)
        assert np.allclose(SimpleITK.GetArrayFromImage(after), values, atol=1e-3)

    def test_labels_keep_their_names(self, command: Command, tmp_path: Path) -> None:
        data = np.zeros((4, 5, 6), np.int64)
        data[1:3, 1:3] = 2
        nibabel.save(nibabel.Nifti1Image(data, np.eye(4), dtype=np.int64), tmp_path / "a.nii.gz")
        (tmp_path / "a.labels.json").write_text('{"2": "liver"}')
        assert command("convert", tmp_path / "a.nii.gz", tmp_path / "b.seg.nrrd").code == 0
        assert command("convert", tmp_path / "b.seg.nrrd", tmp_path / "c.mha").code == 0
        assert json.loads((tmp_path / "c.labels.json").read_text()) == {"2": "liver"}
        image = SimpleITK.ReadImage(str(tmp_path / "c.mha"))
        assert image.GetPixelID() == SimpleITK.sitkUInt8
        assert np.array_equal(SimpleITK.GetArrayFromImage(image).T, data)

    def test_an_array_needs_its_spacing(self, command: Command, tmp_path: Path) -> None:
        np.save(tmp_path / "a.npy", np.arange(60, dtype=np.int16).reshape(3, 4, 5))
        end = command("convert", tmp_path / "a.npy", tmp_path / "a.nii")
        assert_one_line(end, 2)
        assert "--spacing" in end.err
        said = ("--spacing", "0.5", "0.7", "4")
        assert command("convert", tmp_path / "a.npy", tmp_path / "a.nii", *said).code == 0
        image = SimpleITK.ReadImage(str(tmp_path / "a.nii"))
        assert np.allclose(image.GetSpacing(), (0.5, 0.7, 4))
        assert np.array_equal(
            SimpleITK.GetArrayFromImage(image).ravel(), np.arange(60, dtype=np.int16)
        )

    def test_refused(self, command: Command, scan: Path, tmp_path: Path) -> None:
        for out, sentence in (
            ("a.xyz", "ends in"),
            ("a.stl", "labels only"),
            ("absent/a.nii", "does not exist"),
        ):
            end = command("convert", scan, tmp_path / out)
            assert_one_line(end, 2)
            assert sentence in end.err
        end = command("convert", scan, scan)
        assert_one_line(end, 2)
        assert list(tmp_path.glob("a*")) == []

    def test_spacing_that_no_scan_has(self, command: Command, scan: Path, tmp_path: Path) -> None:
        end = command("convert", scan, tmp_path / "a.nii", "--spacing", "0", "1", "1")
        assert_one_line(end, 2)
        assert "0 x 1 x 1 mm" in end.err

    def test_a_name_too_long_is_one_line(
        self, command: Command, scan: Path, tmp_path: Path
    ) -> None:
        assert_one_line(command("convert", scan, tmp_path / ("x" * 300 + ".nii")), 2)

    def test_names_that_the_terminal_cannot_show(self, tmp_path: Path) -> None:
        data = np.zeros((4, 5, 6), np.uint8)
        data[1:3] = 1
        path = tmp_path / "頭.nii.gz"
        nibabel.save(nibabel.Nifti1Image(data, np.eye(4)), path)
        done = subprocess.run(
            [sys.executable, "-m", "spad", "info", str(path)],
            capture_output=True,
            env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"},
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert rb"\u982d.nii.gz" in done.stdout
