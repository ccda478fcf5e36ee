"""The plugin is light: no torch, and readers of formats only when they are used."""

from __future__ import annotations

import json
import subprocess
import sys

HEAVY = ("torch", "monai", "lightning", "SimpleITK", "nibabel", "pydicom", "pyqtgraph")
LIMIT_SECONDS = 0.7
SCRIPT = """
import json, sys, time
import napari.viewer, qtpy.QtWidgets
before = set(sys.modules)
start = time.process_time()
import napari_spad.reader, napari_spad.writer, napari_spad.samples
import napari_spad.widgets.scan, napari_spad.widgets.segment, napari_spad.widgets.tokenizer
import napari_spad.widgets.masking, napari_spad.widgets.train
spent = time.process_time() - start
print(json.dumps({"seconds": spent, "new": sorted(set(sys.modules) - before)}))
"""


def test_plugin_imports_are_few_and_fast():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, timeout=120
    )
    found = json.loads(done.stdout.splitlines()[-1])
    roots = {name.partition(".")[0] for name in found["new"]}
    assert not roots & set(HEAVY)
    assert found["seconds"] < LIMIT_SECONDS
