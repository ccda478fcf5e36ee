"""A session that the command line wrote is opened in the dock and gone on with."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np

import spad
from spad.prompts import kept
from spad.prompts.session_file import read_record

from .conftest import answered, mouse, settle, show, wait_for
from .test_clicks import played_again

SPLEEN = 1


def test_a_session_of_the_command_line_goes_on_in_the_dock(
    viewer, home, clicker, dock, ct_phantom, tmp_path
):
    file = spad.write(ct_phantom.image, tmp_path / "ct.nii.gz")
    centre = np.argwhere(ct_phantom.labels.array == SPLEEN).mean(0)
    affine = ct_phantom.image.affine
    mm = affine[:3, :3] @ centre.round() + affine[:3, 3]
    clicks = {"clicks": [{"label": "spleen", "mm": mm.tolist()}]}
    (tmp_path / "clicks.json").write_text(json.dumps(clicks))
    session = tmp_path / "s.session.json"
    options = ["--clicks", tmp_path / "clicks.json", "--session", session]
    options += ["--out", tmp_path / "labels.nii.gz", "--model", "small-clicks"]
    subprocess.run(
        [sys.executable, "-m", "spad", "segment", file, *options],
        env=os.environ | {"SPAD_HOME": str(home)},
        check=True,
        timeout=120,
    )
    viewer.open(file, plugin="napari-spad")
    part = dock("Segment").click
    scan = viewer.layers[0]
    # one that was made with another file of its model is refused before anything is added
    content = json.loads(session.read_text())
    content["models"]["clicker"]["sha256"] = "0" * 64
    foreign = tmp_path / "f.session.json"
    foreign.write_text(json.dumps(content))
    kept.labels_path(foreign).write_bytes(kept.labels_path(session).read_bytes())
    part.open_session(foreign)
    wait_for(lambda: "another file of the clicker 'small-clicks'" in part.status.text(), 20)
    assert len(viewer.layers) == 1
    assert part.session is None
    # the other comes back
    part.open_session(session)
    wait_for(lambda: part.session is not None, 20)
    settle(0.1)
    labels = spad.read(tmp_path / "labels.nii.gz").array
    found = part.session
    np.testing.assert_array_equal(found.session.labels, labels)
    assert labels.any()
    assert len(found.objects["spleen"].prompts) == 1
    part._choose("spleen")
    index = found.turned.index(found.objects["spleen"].prompts[0].voxels)[0]
    mouse(viewer, show(viewer, scan, index + np.array([0, 0, 4])))
    answered(part)
    wait_for(lambda: part.saving.path is not None and not part.saving.pending, 20)
    # and is kept in a place of its own, since the first file is a person's
    assert part.saving.path.parent != tmp_path
    record = read_record(part.saving.path)
    assert {"torch", "spad", "threads", "device"} <= set(record.settings)
    assert record.settings["torch"] == read_record(session).settings["torch"]
    again, done = played_again(part, record)
    assert done.steps == 2
    assert not done.differing
    np.testing.assert_array_equal(again.labels, found.session.labels)
