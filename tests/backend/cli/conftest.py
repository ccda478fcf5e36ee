"""Small models with random weights under a home of their own, phantom scans as files, a runner."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

import spad
from spad.checkpoints.card import Card
from spad.checkpoints.file import save
from spad.cli import main
from spad.models.segmenter import Segmenter
from spad.models.tokenizer import Tokenizer
from spad.models.vit import MaskedImageModel
from spad.phantoms import Phantom
from spad.volumes.intensity import CT, MR, Intensity

CODES = 16
VIT = {"dim": 24, "depth": 4, "heads": 2, "position_grid": (2, 4, 4)}


@dataclass(frozen=True)
class End:
    """How a command ended."""

    code: int
    out: str
    err: str


Command = Callable[..., End]


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a home with the models small-tokenizer, small-mim and small-segmenter."""
    home = tmp_path_factory.mktemp("home")
    models = home / "models"
    models.mkdir()
    torch.manual_seed(0)
    contracts = {"CT": CT, "MR": MR, "*": Intensity("percentiles", 0.5, 99.5)}

    def card(kind: str, **more: object) -> Card:
        provenance = {"data": "none", "weights": "random"}
        return Card(
            kind, f"small-{kind}", {}, contracts, licence="none", provenance=provenance, **more
        )

    tokenizer = Tokenizer(1, (8, 8, 8), codes=CODES)
    save(models / "small-tokenizer.safetensors", tokenizer, card("tokenizer"))
    mim = MaskedImageModel({"in_channels": 1, **VIT}, codes=CODES)
    save(models / "small-mim.safetensors", mim, card("mim", tokenizer="small-tokenizer"))
    segmenter = Segmenter(
        1, 3, VIT, blocks=(0, 1, 2, 3), decoder_channels=(8, 8, 8, 8), encoder_channels=(4, 8)
    )
    names = {"labels": {1: "spleen", 2: "right_kidney"}}
    save(models / "small-segmenter.safetensors", segmenter, card("segmenter", **names))
    return home


@pytest.fixture
def command(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """Run a command in this process."""
    monkeypatch.setenv("SPAD_HOME", str(home))

    def run(*arguments: object) -> End:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return End(code, printed.out, printed.err)

    return run


@pytest.fixture
def process(home: Path) -> Command:
    """Run a command as a person does, in a process of its own."""
    backend = str(Path(spad.__file__).parents[1])
    environment = os.environ | {"SPAD_HOME": str(home), "PYTHONPATH": backend}

    def run(*arguments: object, **options: object) -> End:
        found = subprocess.run(
            [sys.executable, "-m", "spad", *map(str, arguments)],
            capture_output=True,
            text=True,
            env=environment,
            timeout=120,
            check=False,
            **options,
        )
        return End(found.returncode, found.stdout, found.stderr)

    return run


@pytest.fixture(scope="session")
def scan(ct_phantom: Phantom, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a phantom CT as a file in a folder of its own."""
    return spad.write(ct_phantom.image, tmp_path_factory.mktemp("ct") / "abdomen_ct.nii.gz")


@pytest.fixture(scope="session")
def truth(ct_phantom: Phantom, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the phantom's labels as a file in a folder of its own."""
    return spad.write(ct_phantom.labels, tmp_path_factory.mktemp("labels") / "truth.nii.gz")


def files_in(folder: Path) -> set[str]:
    """Everything in a folder, hidden files too."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def assert_one_line(end: End, code: int) -> None:
    """Check that a command ended with a code and one line on standard error, nothing else."""
    assert end.code == code, end
    assert end.err.count("\n") == 1, end.err
    assert "Traceback" not in end.err
    assert end.out == ""
