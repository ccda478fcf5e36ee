"""The robot user, its table and `spad evaluate-clicks`, `segment --clicks`, `replay`."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from spad.checkpoints.card import Card
from spad.checkpoints.file import save
from spad.cli import main
from spad.data.cohort import model_contracts
from spad.inference.models import forget
from spad.models.clicker import Clicker
from spad.phantoms import LABELS, phantom
from spad.volumes.files import write


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory):
    """A phantom with labels as a data set, and a SPAD_HOME with an untrained clicker."""
    home = tmp_path_factory.mktemp("home")
    (home / "models").mkdir()
    torch.manual_seed(0)
    card = Card("clicker", "untrained", {}, model_contracts(), segmenter="organs-tiny")
    save(home / "models" / "untrained.safetensors", Clicker(32, (4, 4, 8, 8)), card)
    data = tmp_path_factory.mktemp("data")
    made = phantom(3, "CT", spacing=(9.0, 5.8, 5.8), shape=(32, 64, 64))
    write(made.image, data / "img7.nii.gz")
    write(made.labels, data / "label7.nii.gz")
    (data / "labels.json").write_text(json.dumps({str(k): name for k, name in LABELS.items()}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPAD_HOME", str(home))
        yield data
        forget()


@pytest.mark.parametrize("start", ["empty", "automatic", "box"])
def test_figures_count_from_no_click(place: Path, tmp_path: Path, start: str) -> None:
    out, table = tmp_path / "o.json", tmp_path / "o.csv"
    code = main(
        [
            "evaluate-clicks",
            str(place),
            "--model",
            "untrained",
            "--from",
            start,
            "--clicks",
            "1",
            "2",
            "--labels",
            "liver",
            "left_kidney",
            "--out",
            str(out),
            "--csv",
            str(table),
        ]
    )
    assert code == 0
    found = json.loads(out.read_text())
    assert [c["label"] for c in found["cases"]] == ["left_kidney", "liver"]
    for case in found["cases"]:
        assert len(case["dice"]) == len(case["nsd"]) == len(case["seconds"]) == 3
        if start == "empty":
            assert case["dice"][0] == 0
    assert set(found["mean"]) == {"0", "1", "2"}
    mean = np.mean([c["dice"][2] for c in found["cases"]])
    assert found["mean"]["2"]["dice"] == pytest.approx(mean)
    assert found["cases"][0]["dice_auc"] == pytest.approx(np.trapezoid(found["cases"][0]["dice"]))
    rows = list(csv.DictReader(table.open()))
    assert len(rows) == 6
    assert rows[1]["clicks"] == "1"


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--labels", "heart"], "heart"),
        (["--cases", "99"], "99"),
        (["--from", "automatic", "--no-features"], "features"),
        (["--model", "organs-tiny"], "clicker"),
    ],
)
def test_bad_options_are_one_sentence(place: Path, capsys, more, words) -> None:
    assert (
        main(["evaluate-clicks", str(place), "--clicks", "1", "--model", "untrained", *more]) == 2
    )
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert words in said


def test_segment_by_clicks_and_replay_give_the_same_file(
    place: Path, tmp_path: Path, capsys
) -> None:
    truth = nibabel.load(place / "label7.nii.gz")
    voxels = np.argwhere(np.asarray(truth.dataobj) == 6)
    first, second = voxels[len(voxels) // 2].tolist(), voxels[10].tolist()
    mm = nibabel.affines.apply_affine(truth.affine, second).tolist()
    clicks = tmp_path / "c.json"
    clicks.write_text(
        json.dumps(
            {
                "clicks": [
                    {"label": "liver", "voxel": first, "positive": True},
                    {"label": "liver", "mm": mm},
                    {"label": "livre", "voxel": first, "positive": True},
                ]
            }
        )
    )
    out, session, report = tmp_path / "l.nii.gz", tmp_path / "s.json", tmp_path / "r.json"
    scan = str(place / "img7.nii.gz")
    assert (
        main(
            [
                "segment",
                scan,
                "--out",
                str(out),
                "--clicks",
                str(clicks),
                "--model",
                "untrained",
                "--session",
                str(session),
                "--report",
                str(report),
            ]
        )
        == 0
    )
    assert "did you mean 'liver'" in capsys.readouterr().err
    labels = nibabel.load(out)
    assert labels.shape == truth.shape
    np.testing.assert_array_equal(labels.affine, truth.affine)
    array = np.asarray(labels.dataobj)
    assert array[tuple(second)] == 6 or array[tuple(second)] == 1
    told = json.loads(report.read_text())
    assert told["prompts"] == 3
    assert told["labels"]["liver"]["id"] == 6
    again, program = tmp_path / "again.nii.gz", tmp_path / "again.py"
    code = main(["replay", str(session), "--out", str(again), "--script", str(program)])
    assert code == 0
    np.testing.assert_array_equal(np.asarray(nibabel.load(again).dataobj), array)
    assert "each met the object as it had been" in capsys.readouterr().out
    compile(program.read_text(), "again.py", "exec")


def test_a_session_of_another_scan_is_refused(place: Path, tmp_path: Path, capsys) -> None:
    clicks, session = tmp_path / "c.json", tmp_path / "s.json"
    clicks.write_text('{"clicks": [{"label": "a", "voxel": [30, 30, 15]}]}')
    arguments = ["segment", str(place / "img7.nii.gz"), "--out", str(tmp_path / "l.nii.gz")]
    arguments += ["--clicks", str(clicks), "--model", "untrained", "--session", str(session)]
    assert main(arguments) == 0
    other = phantom(4, "CT", spacing=(9.0, 5.8, 5.8), shape=(32, 64, 64)).image
    write(other, tmp_path / "other.nii.gz")
    out = tmp_path / "x.nii.gz"
    code = main(
        ["replay", str(session), "--out", str(out), "--scan", str(tmp_path / "other.nii.gz")]
    )
    assert code == 2
    assert "other voxels or geometry" in capsys.readouterr().err
    assert not out.exists()
