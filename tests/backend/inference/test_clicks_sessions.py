"""Sessions of clicks played again: by their script, and where the arithmetic is another."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import spad
from spad.checkpoints.card import Card
from spad.checkpoints.file import save
from spad.inference.clicks import ClickSession, encoding
from spad.prompts.prompt import Prompt, point
from spad.prompts.session import Object
from spad.prompts.session_file import Record, labels_type, replay, scan_entry
from spad.prompts.session_script import script
from spad.prompts.steps import voxels_entry
from spad.volumes.volume import Volume

from .conftest import CT, MR
from .test_clicks import alike_clicker, dice, scan_with

BLOCK, TUMOUR = 300, 7
BOX = ((12, 26), (20, 42), (20, 42))


@pytest.fixture(scope="module")
def clicker(home: Path) -> str:
    """A clicker on the features of the segmenter "block"."""
    contracts = {"CT": CT, "MR": MR, "*": MR}
    card = Card("clicker", "again", {}, contracts, segmenter="block", licence="none")
    save(home / "models" / "again.safetensors", alike_clicker(), card)
    return "again"


@pytest.fixture
def threads() -> Iterator[None]:
    """Leave the number of threads as it was."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def played(scan: Volume, clicker: str) -> tuple[Record, np.ndarray]:
    """Make a session as the viewer does, and its labels.

    A locked object that was painted and never clicked on, a click that came before the features, a
    stroke that became a prompt, undo and redo.
    """
    with ClickSession(scan, clicker, "CT", labels_type=np.uint16) as clicks:
        session = clicks.session
        mask = np.ones((6, 10, 10), bool)
        session.log.append(voxels_entry("Paint", (14, 25, 20), mask, np.full(mask.sum(), TUMOUR)))
        session.labels[14:20, 25:35, 20:30] = TUMOUR
        # the viewer knows the object by its label; no step names it
        session.objects["tumour"] = Object(TUMOUR, "tumour")
        session.locked = {"tumour"}
        session.add("block", BLOCK)
        clicks.tells_features = False
        clicks.prompt(point((22, 35, 37)), label="block")
        session.log[-1]["features"] = False
        clicks.tells_features = True
        stroke = Prompt("scribble", tuple((12, y, 16) for y in range(21, 41)))
        mask = np.ones((1, 20, 1), bool)
        block = session.objects["block"]
        things = {"block": Object(BLOCK, "block", (*block.prompts, stroke), by_hand=True)}
        session.voxels("Paint", (12, 21, 16), mask, np.full(20, BLOCK), things)
        clicks.prompt(point((30, 50, 50)), label="block")
        clicks.undo()
        clicks.undo()
        clicks.redo()
        clicks.prompt(point((13, 22, 36)), label="block")
        names = {one.label: one.name for one in session.objects.values()}
        steps = json.loads(json.dumps(session.log))
        settings = {"modality": "CT", "features": True, "organs": True}
        record = Record(
            scan_entry(scan),
            {"clicker": {"name": clicker}, "segmenter": None},
            settings,
            steps,
            names,
        )
        return record, session.labels.copy()


def again(
    record: Record, scan: Volume, clicker: str, near: tuple[float, float, float] | None = None
) -> tuple[np.ndarray, tuple[int, ...]]:
    """Play a session; with features that were computed from another place on, if one is given."""
    with ClickSession(scan, clicker, "CT", labels_type=labels_type(record)) as clicks:
        if near is not None:
            work = encoding(scan, clicks.model, clicks.scan, "auto", 0)
            assert work is not None
            assert len(list(work.windows(near))) > 1
            clicks.features = work.features

        def configure(step) -> None:
            clicks.tells_features = bool(step.get("features", True))

        done = replay(record, clicks.session, configure)
        return clicks.session.labels.copy(), done.differing


@pytest.fixture(scope="module")
def made(clicker: str, tmp_path_factory) -> tuple[Volume, Record, np.ndarray]:
    scan = spad.read(
        spad.write(scan_with(BOX, (40, 90, 90))[0], tmp_path_factory.mktemp("scan") / "scan.nii.gz")
    )
    return scan, *played(scan, clicker)


def test_a_replay_is_bit_for_bit(made, clicker: str) -> None:
    scan, record, labels = made
    found, differing = again(record, scan, clicker)
    assert differing == ()
    np.testing.assert_array_equal(found, labels)
    assert np.count_nonzero(labels == TUMOUR) == 600
    assert np.count_nonzero(labels == BLOCK) > 1000
    assert found.dtype == np.uint16
    # with features the first click gives another object, so it matters that they are left out
    told = [{key: one for key, one in step.items() if key != "features"} for step in record.steps]
    with_them, _ = again(Record(record.scan, record.models, {}, told, record.names), scan, clicker)
    assert (with_them != labels).any()


def test_the_script_makes_the_labels_of_the_replay(made, clicker: str, tmp_path, monkeypatch):
    _, record, labels = made
    text = script(record, tmp_path / "mine.session.json", record.scan["path"])
    monkeypatch.chdir(tmp_path)
    exec(compile(text, "script", "exec"), {})
    written = spad.read(tmp_path / "mine.session_labels.nii.gz")
    np.testing.assert_array_equal(written.array, labels)


def test_other_threads_and_another_order_of_windows_hardly_matter(made, clicker: str, threads):
    scan, record, labels = made
    torch.set_num_threads(3)
    found, _ = again(record, scan, clicker, near=(0.9, 0.1, 0.95))
    for label in (BLOCK, TUMOUR):
        assert dice(found == label, labels == label) >= 0.999
