"""`spad segment` on one scan and on several."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest

import spad
from spad.phantoms import Phantom
from spad.volumes.volume import Volume

from .conftest import Command, assert_one_line, files_in

KEYS = {"model", "why_model", "device", "seconds", "peak_memory_mb", "labels"}
MODEL = ("--model", "small-segmenter")


@pytest.fixture
def scans(scan: Path, tmp_path: Path) -> Path:
    """Give a folder with two scans."""
    folder = tmp_path / "scans"
    folder.mkdir()
    for name in ("one_ct.nii.gz", "two_ct.nii.gz"):
        shutil.copy(scan, folder / name)
    return folder


class TestOneScan:
    def test_labels_and_report(self, command: Command, scan: Path, tmp_path: Path) -> None:
        out, report = tmp_path / "organs.nii.gz", tmp_path / "organs.json"
        end = command("segment", scan, "--out", out, "--report", report, *MODEL)
        assert end.code == 0, end.err
        assert files_in(tmp_path) == {"organs.nii.gz", "organs.labels.json", "organs.json"}
        source, labels = nibabel.load(scan), nibabel.load(out)
        assert labels.shape == source.shape
        assert np.allclose(labels.affine, source.affine, atol=1e-5)
        figures = json.loads(report.read_text())
        assert set(figures) >= KEYS
        assert set(figures["seconds"]) == {"load", "prepare", "model", "finish", "total"}
        array, voxel_ml = np.asarray(labels.dataobj), np.prod(labels.header.get_zooms()) / 1000
        for name, label in figures["labels"].items():
            voxels = int((array == label["id"]).sum())
            assert label["voxels"] == voxels
            assert label["volume_ml"] == pytest.approx(voxels * voxel_ml, rel=1e-5)
            line = next(line for line in end.out.splitlines() if line.startswith(name))
            assert line.split()[1] == f"{label['volume_ml']:.1f}"

    def test_into_a_folder(self, command: Command, scan: Path, tmp_path: Path) -> None:
        end = command("segment", scan, "--out", tmp_path / "new", *MODEL)
        assert end.code == 0, end.err
        labels = {"new/abdomen_ct_labels.nii.gz", "new/abdomen_ct_labels.labels.json"}
        assert files_in(tmp_path) == {"new", *labels}

    def test_same_result_with_the_python_function(
        self, command: Command, scan: Path, tmp_path: Path
    ) -> None:
        out = tmp_path / "organs.nii"
        assert command("segment", scan, "--out", out, *MODEL).code == 0
        direct = spad.segment(spad.read(scan), model="small-segmenter")
        assert np.array_equal(spad.read(out).array, direct.array)

    def test_a_box_of_the_file_and_the_confidence(
        self, command: Command, scan: Path, tmp_path: Path
    ) -> None:
        out, part, sure = (tmp_path / f"{name}.nii.gz" for name in ("all", "part", "sure"))
        assert command("segment", scan, "--out", out, *MODEL).code == 0
        box = ("--box", "3:20,5:30,2:9", "--confidence", sure)
        end = command("segment", scan, "--out", part, *box, *MODEL)
        assert end.code == 0, end.err
        whole, found = (np.asarray(nibabel.load(path).dataobj) for path in (out, part))
        inside = np.zeros(whole.shape, bool)
        inside[3:20, 5:30, 2:9] = True
        assert not found[~inside].any()
        assert np.mean(found[inside] == whole[inside]) > 0.9
        image = nibabel.load(sure)
        assert np.allclose(image.affine, nibabel.load(scan).affine, atol=1e-5)
        values = image.get_fdata()
        assert np.allclose(values[~inside], 1)
        assert 1 / 3 - 0.01 <= values[inside].min() < 1

    @pytest.mark.parametrize("box", ["1:2,3:4", "0:5,0:5,0:9999", "a:b,0:1,0:1", "5:5,0:1,0:1"])
    def test_a_box_that_is_none(
        self, command: Command, scan: Path, tmp_path: Path, box: str
    ) -> None:
        end = command("segment", scan, "--out", tmp_path / "x.nii.gz", "--box", box, *MODEL)
        assert_one_line(end, 2)
        assert box in end.err
        assert files_in(tmp_path) == set()

    def test_channels_are_one_case(self, command: Command, scan: Path, tmp_path: Path) -> None:
        out = tmp_path / "x.nii.gz"
        end = command("segment", scan, scan, "--channels", "--out", out, *MODEL)
        assert end.code == 2
        assert "has 2 channels, but the model was made for 1" in end.err
        assert command("segment", scan, "--channels", "--out", out, *MODEL).code == 0

    def test_modality_that_nothing_tells(self, command: Command, tmp_path: Path) -> None:
        plain = Volume.from_array(
            np.random.default_rng(0).random((8, 32, 32), np.float32), np.diag([3.0, 2, 2, 1])
        )
        scan, out = spad.write(plain, tmp_path / "scan.nii.gz"), tmp_path / "organs.nii.gz"
        end = command("segment", scan, "--out", out, *MODEL)
        assert_one_line(end, 2)
        assert "--modality" in end.err
        assert files_in(tmp_path) == {"scan.nii.gz"}
        assert command("segment", scan, "--out", out, "--modality", "MR", *MODEL).code == 0

    def test_broken_scan_leaves_nothing(self, command: Command, tmp_path: Path) -> None:
        (tmp_path / "scan.nii.gz").write_bytes(b"")
        end = command("segment", tmp_path / "scan.nii.gz", "--out", tmp_path / "new", *MODEL)
        assert_one_line(end, 2)
        assert files_in(tmp_path) == {"scan.nii.gz"}

    def test_cuda_where_there_is_none(self, command: Command, scan: Path, tmp_path: Path) -> None:
        import torch

        if torch.cuda.is_available():
            pytest.skip("this machine has a GPU")
        out = tmp_path / "organs.nii.gz"
        assert_one_line(command("segment", scan, "--out", out, "--device", "cuda", *MODEL), 2)


class TestSeveralScans:
    def test_labels_and_report(self, command: Command, scans: Path, tmp_path: Path) -> None:
        out, report = tmp_path / "labels", tmp_path / "report.json"
        files = sorted(scans.iterdir())
        end = command("segment", *files, "--out", out, "--report", report, *MODEL)
        assert end.code == 0, end.err
        assert {path.name for path in out.glob("*.nii.gz")} == {
            "one_ct_labels.nii.gz",
            "two_ct_labels.nii.gz",
        }
        cases = json.loads(report.read_text())["cases"]
        assert [case["case"] for case in cases] == ["one_ct", "two_ct"]
        assert all(set(case) >= KEYS for case in cases)

    def test_the_others_are_done_when_one_is_broken(
        self, command: Command, scans: Path, tmp_path: Path
    ) -> None:
        (scans / "broken.nii.gz").write_bytes(b"\x1f\x8b")
        out, report = tmp_path / "labels", tmp_path / "report.json"
        files = sorted(scans.iterdir())
        end = command("segment", *files, "--out", out, "--report", report, *MODEL)
        assert end.code == 2
        assert "broken.nii.gz" in end.err
        assert "Traceback" not in end.err
        assert len(list(out.glob("*_labels.nii.gz"))) == 2
        broken, *done = json.loads(report.read_text())["cases"]
        assert set(broken) == {"case", "error"}
        assert len(done) == 2

    def test_a_box_for_several(self, command: Command, scans: Path) -> None:
        box = ("--box", "0:5,0:5,0:5", "--out", scans / "labels")
        end = command("segment", *sorted(scans.iterdir()), *box, *MODEL)
        assert_one_line(end, 2)

    def test_scans_of_one_name(self, command: Command, scan: Path, scans: Path) -> None:
        shutil.copy(scan, scans / "one_ct.nii")
        files = [scans / "one_ct.nii", scans / "one_ct.nii.gz"]
        assert_one_line(command("segment", *files, "--out", scans / "labels", *MODEL), 2)

    def test_a_file_for_several(self, command: Command, scans: Path, truth: Path) -> None:
        before = truth.read_bytes()
        assert_one_line(command("segment", *scans.iterdir(), "--out", truth, *MODEL), 2)
        assert truth.read_bytes() == before

    def test_written_labels_are_evaluated_against_the_truth(
        self, command: Command, scan: Path, ct_phantom: Phantom, tmp_path: Path
    ) -> None:
        assert command("segment", scan, "--out", tmp_path / "found", *MODEL).code == 0
        (tmp_path / "truth").mkdir()
        spad.write(ct_phantom.labels, tmp_path / "truth" / "abdomen_ct.nii.gz")
        out = tmp_path / "figures.json"
        end = command("evaluate", tmp_path / "found", tmp_path / "truth", "--out", out)
        assert end.code == 0, end.err
        (case,) = json.loads(out.read_text())["cases"]
        assert case["case"] == "abdomen_ct"
        assert case["matched_by"] == "name"
