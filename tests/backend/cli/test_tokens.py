"""`spad tokenize` and `spad mask`."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest

import spad
from spad.phantoms import Phantom

from .conftest import Command, assert_one_line, files_in

TOKENIZE_KEYS = {
    *("model", "da", "grid", "psnr", "ssim", "l1", "l1_unit", "codes_used", "perplexity"),
    *("mean_entropy", "mean_kl_to_uniform", "position_information", "trilinear"),
}
MASK_KEYS = {
    *("ratio", "seed", "masked", "visible", "cross_entropy", "kl", "baseline_mean"),
    *("baseline_neighbour", "l1_masked", "l1_unit"),
}


def strict_json(path: Path) -> dict:
    return json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f"{name} in JSON"))


class TestTokenize:
    def test_reconstruction_and_report(self, command: Command, scan: Path, tmp_path: Path) -> None:
        out, report = tmp_path / "rec.nii.gz", tmp_path / "rec.json"
        end = command("tokenize", scan, "--out", out, "--report", report, "--device", "cpu")
        assert end.code == 0, end.err
        assert files_in(tmp_path) == {"rec.nii.gz", "rec.json"}
        figures = strict_json(report)
        assert set(figures) >= TOKENIZE_KEYS
        assert figures["l1_unit"] == "HU"
        source, written = nibabel.load(scan), nibabel.load(out)
        assert written.shape == source.shape
        assert np.allclose(written.affine, source.affine, atol=1e-5)
        clipped = np.clip(source.get_fdata(), -125, 275)
        error = np.abs(written.get_fdata() - clipped).mean()
        assert figures["l1"] == pytest.approx(error, rel=0.02)
        assert f"PSNR {figures['psnr']:.2f} dB" in end.out
        assert "tokenize:" in end.err

    def test_named_model(self, command: Command, scan: Path, tmp_path: Path) -> None:
        out, report = tmp_path / "rec.nii", tmp_path / "rec.json"
        options = ("--model", "small-tokenizer", "--report", report)
        assert command("tokenize", scan, "--out", out, *options).code == 0
        assert strict_json(report)["model"] == "small-tokenizer"

    def test_model_of_another_kind(self, command: Command, scan: Path, tmp_path: Path) -> None:
        out = tmp_path / "rec.nii.gz"
        end = command("tokenize", scan, "--out", out, "--model", "small-mim")
        assert_one_line(end, 2)
        assert "tokenizer is needed" in end.err
        assert files_in(tmp_path) == set()

    def test_unknown_model(self, command: Command, scan: Path, tmp_path: Path) -> None:
        end = command("tokenize", scan, "--out", tmp_path / "rec.nii.gz", "--model", "tokeniser")
        assert_one_line(end, 2)
        assert "small-tokenizer" in end.err

    @pytest.mark.parametrize("name", ["rec.png", "rec", "no/rec.nii.gz", "."])
    def test_place_that_cannot_be_written(
        self, command: Command, scan: Path, tmp_path: Path, name: str
    ) -> None:
        assert_one_line(command("tokenize", scan, "--out", tmp_path / name), 2)
        assert files_in(tmp_path) == set()

    def test_report_in_a_missing_folder_is_found_before_the_work(
        self, command: Command, scan: Path, tmp_path: Path
    ) -> None:
        report = tmp_path / "no" / "rec.json"
        end = command("tokenize", scan, "--out", tmp_path / "rec.nii.gz", "--report", report)
        assert_one_line(end, 2)
        assert files_in(tmp_path) == set()

    def test_read_only_folder(
        self, command: Command, scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Root may write anywhere, so the folder's mode alone would show nothing.
        monkeypatch.setattr("os.access", lambda path, mode: Path(path) != tmp_path)
        end = command("tokenize", scan, "--out", tmp_path / "rec.nii.gz")
        assert_one_line(end, 2)
        assert "read-only" in end.err

    def test_scan_is_not_overwritten(
        self, command: Command, ct_phantom: Phantom, tmp_path: Path
    ) -> None:
        scan = spad.write(ct_phantom.image, tmp_path / "scan.nii.gz")
        before = scan.read_bytes()
        assert_one_line(command("tokenize", scan, "--out", scan), 2)
        link = tmp_path / "link.nii.gz"
        link.symlink_to(scan)
        assert_one_line(command("tokenize", scan, "--out", link), 2)
        assert scan.read_bytes() == before

    def test_broken_scan_as_a_person_sees_it(self, process: Command, tmp_path: Path) -> None:
        scan = tmp_path / "scan.nii.gz"
        scan.write_bytes(b"\x1f\x8b\x08 nothing")
        end = process("tokenize", scan, "--out", tmp_path / "rec.nii.gz")
        assert_one_line(end, 2)
        assert files_in(tmp_path) == {"scan.nii.gz"}


class TestMask:
    def test_reconstruction_and_report(self, command: Command, scan: Path, tmp_path: Path) -> None:
        out, report = tmp_path / "rec.nii.gz", tmp_path / "rec.json"
        end = command("mask", scan, "--out", out, "--report", report, "--ratio", "0.4", "--seed", 3)
        assert end.code == 0, end.err
        figures = strict_json(report)
        assert set(figures) >= MASK_KEYS
        assert (figures["ratio"], figures["seed"]) == (0.4, 3)
        tokens = figures["masked"] + figures["visible"]
        assert figures["visible"] == int(tokens * 0.6)
        assert nibabel.load(out).shape == nibabel.load(scan).shape

    def test_same_seed_same_result(self, command: Command, scan: Path, tmp_path: Path) -> None:
        voxels = []
        for name, seed in (("a.nii", 1), ("b.nii", 1), ("c.nii", 2)):
            assert command("mask", scan, "--out", tmp_path / name, "--seed", seed).code == 0
            voxels.append(nibabel.load(tmp_path / name).get_fdata())
        assert np.array_equal(voxels[0], voxels[1])
        assert not np.array_equal(voxels[0], voxels[2])

    def test_painted(self, command: Command, scan: Path, truth: Path, tmp_path: Path) -> None:
        out, report = tmp_path / "rec.nii.gz", tmp_path / "rec.json"
        end = command("mask", scan, "--out", out, "--paint", truth, "--report", report)
        assert end.code == 0, end.err
        assert strict_json(report)["masked"] > 0

    def test_scan_as_paint(self, command: Command, scan: Path, tmp_path: Path) -> None:
        image = tmp_path / "image.nii.gz"
        spad.write(spad.Volume.from_array(np.full((2, 3, 4), 0.5, np.float32), np.eye(4)), image)
        end = command("mask", scan, "--out", tmp_path / "rec.nii.gz", "--paint", image)
        assert_one_line(end, 2)

    @pytest.mark.parametrize("ratio", ["0", "-1", "1.5", "nan", "half"])
    def test_ratio_that_is_no_share(
        self, command: Command, scan: Path, tmp_path: Path, ratio: str
    ) -> None:
        end = command("mask", scan, "--out", tmp_path / "rec.nii.gz", f"--ratio={ratio}")
        assert end.code == 2
        assert "Traceback" not in end.err
        assert files_in(tmp_path) == set()
