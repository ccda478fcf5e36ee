"""`spad prepare` from the command line: store, report page, checks and refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from spad.cli import main
from spad.volumes.files import write
from spad.volumes.volume import Volume


@pytest.fixture
def source(tmp_path) -> Path:
    folder = tmp_path / "liver & co"
    folder.mkdir()
    for n in range(3):
        values = np.random.default_rng(n).normal(0, 200, (6, 20, 20)).astype(np.int16)
        affine = np.diag([-1.0, -1.0, -4.0, 1])[:, [2, 1, 0, 3]]
        write(Volume.from_array(values, affine), folder / f"ct{n}.nii.gz")
    (folder / "broken.nii.gz").write_bytes(b"nothing")
    return folder


def test_prepare_reports_checks_and_says_what_is_wrong(source, tmp_path, capsys) -> None:
    store = tmp_path / "store"
    assert main(["prepare", str(source), str(store), "--jobs", "1", "--licence", "CC <0>"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == str(store)
    assert any(line.startswith("left out broken.nii.gz: ") for line in lines)
    assert "3 volumes, 3 of them made now: 2 for training, 1 for validation" in "\n".join(lines)
    page = (store / "report.html").read_text()
    for text in ("liver_co", "CC &lt;0&gt;", "broken.nii.gz", "<th scope='row'>CT</th>"):
        assert text in page
    assert "<th scope='row'>2</th><td>3</td>" in page  # the histogram: all are of da 2
    assert "src=" not in page  # it needs no other file
    assert main(["prepare", str(store), "--check"]) == 0
    shard = next((store / "volumes").rglob("image/c/0/0/0/0"))
    shard.write_bytes(shard.read_bytes()[:-30])
    assert main(["prepare", str(store), "--check"]) == 2
    assert "1 of 3 volumes" in capsys.readouterr().err
    assert main(["prepare", str(source)]) == 2
    assert "STORE is missing" in capsys.readouterr().err
    assert main(["prepare", str(tmp_path / "gone"), str(store)]) == 2
