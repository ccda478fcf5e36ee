"""Next doubt in a real viewer: of an object on any scan, of the automatic result where there is."""

from __future__ import annotations

import dataclasses

import numpy as np

from napari_spad import layers
from spad.prompts.part import Part

from .conftest import said, settle, wait_for

BOX = (slice(8, 16), slice(20, 44), slice(20, 44))


def switched_on(viewer, volume):
    """Show a scan, and give the Click part of the Segment dock, switched on."""
    data, kwargs, _ = layers.to_layer(volume, "scan")
    viewer.add_image(data, **kwargs)
    _, widget = viewer.window.add_plugin_dock_widget("napari-spad", "Segment")
    settle()
    part = widget.click
    part.models.setCurrentText("small-clicks")
    part.button.click()
    settle()
    assert part.on, part.status.text()
    return part


def test_pet_has_doubts_of_objects_alone(viewer, clicker, ct_phantom):
    part = switched_on(viewer, dataclasses.replace(ct_phantom.image, modality_hint="PT"))
    session = part.session
    wait_for(lambda: session._ahead is None, 60)
    part._choose("tumour")
    for press in (lambda: part.press("doubt"), part.automatic_button.click):
        press()
        wait_for(lambda: part.status.text().startswith("No automatic model knows PET scans, so "))
        assert said() == part.status.text()
        part.status.setText("")
    mask = np.ones([one.stop - one.start for one in BOX], bool)
    session._objects.start_with("tumour", Part(tuple(one.start for one in BOX), mask), "a mask")
    part.press("doubt")
    assert part.status.text() == "Looking for doubtful places ..."
    wait_for(lambda: part.status.text().startswith("A doubtful place is marked in yellow"), 60)
    first = part.prompts.doubt
    voxel = np.array(session.turned.voxel(first))
    low, high = (np.array([getattr(one, end) for one in BOX]) for end in ("start", "stop"))
    assert ((voxel >= low - 2) & (voxel < high + 2)).all()
    assert np.minimum(voxel - low, high - 1 - voxel).min() <= 2
    part.press("doubt")
    assert not np.array_equal(part.prompts.doubt, first)
