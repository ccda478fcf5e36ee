"""`spad compare`: options, the printed table, and what is kept."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import spad
from spad.phantoms import phantom

from .conftest import Command, assert_one_line, files_in

SMALL = (
    *("--preset", "tiny", "--model.channels", "[8, 8, 8]", "--model.codes", 16),
    *("--data.tokens", "[2, 2]", "--precision", "float32", "--schedule.validation_batches", 1),
    *("--loss.critic_channels", "[16, 16]"),
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder with three phantom scans, one of them for validation."""
    folder = tmp_path_factory.mktemp("data")
    for number in (1, 2, 3):
        made = phantom(number, "CT", spacing=(9.0, 5.8, 5.8), shape=(32, 64, 64))
        spad.write(made.image, folder / f"img{number:04d}.nii.gz")
    (folder / "split.json").write_text('{"train": ["0001", "0002"], "validation": ["0003"]}')
    return folder


def test_table_of_tokenizers(command: Command, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ("compare", "tokenizers", "--data", data, "--out", out, "--steps", 1, *SMALL)
    end = command(*words)
    assert end.code == 0, end.err
    lines = end.out.splitlines()
    assert lines[-1] == str(out)
    assert all(word in lines[0] for word in ("codes used", "perplexity", "PSNR", "diverged"))
    rows = json.loads((out / "table.json").read_text())["rows"]
    assert [line.split()[0] for line in lines[2 : 2 + len(rows)]] == [row["name"] for row in rows]
    assert {"nearest", "gumbel", "soft", "table.json", "table.csv", "usage.png"} <= files_in(out)
    again = command(*words)
    assert (again.code, again.out) == (0, end.out)


def test_a_row_that_fell_short_is_told_below_the_table() -> None:
    from spad.cli.compare import _readable
    from spad.training.compare.tokenizers import FIGURES, Row

    figures = dict.fromkeys(FIGURES)
    text = _readable([Row("soft", 0, figures, True, "The loss became nan.", "Few codes.")])
    assert text.splitlines()[-2:] == ["soft: The loss became nan.", "soft: Few codes."]
    assert "yes" in text.splitlines()[2]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("segmenters",), "segmenters"),
        (("tokenizers", "--steps", 0), "--steps"),
        (("tokenizers", "--steps", 1, "--minutes", 1), "--minutes"),
        (("tokenizers", "--model.quantizer", "soft"), "leave --model.quantizer out"),
        (("tokenizers", "--nothing", 1), "'nothing'"),
        (("segmentation", "--ratios", 1.5), "--ratios"),
        (("segmentation", "--rows", "unet"), "no row 'unet'"),
        (("segmentation", "--recipe", "mim"), "for mim"),
        (("segmentation", "--jobs", 0), "--jobs"),
        (("pretraining", "--init", "none-such"), "'none-such'"),
        (("pretraining", "--steps", 1), "has no labels for"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, tuple) else "",
)
def test_wrong_options(
    command: Command, data: Path, tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    end = command("compare", *words, "--data", data, "--out", tmp_path / "out")
    assert_one_line(end, 2)
    assert said in end.err
    assert files_in(tmp_path) == set()


def test_data_that_are_not_there(command: Command, tmp_path: Path) -> None:
    end = command("compare", "tokenizers", "--data", tmp_path / "none", "--out", tmp_path / "out")
    assert_one_line(end, 2)
