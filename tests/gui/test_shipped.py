"""What a person sees first: the shipped models on the phantoms, with nothing chosen."""

from __future__ import annotations

import numpy as np
import pytest

from .conftest import color_at, inside, run, settle

KINDS = {"segmenter": "Segment", "tokenizer": "Tokenizer", "mim": "Masking"}


@pytest.fixture
def dock_with_defaults(viewer):
    def open_dock(name):
        _, widget = viewer.window.add_plugin_dock_widget("napari-spad", name)
        settle()
        return widget

    return open_dock


@pytest.mark.parametrize(("sample", "name"), [("ct_phantom", "CT"), ("mr_phantom", "MR")])
def test_organs_of_the_phantom(viewer, dock_with_defaults, sample, name):
    viewer.open_sample("napari-spad", sample)
    settle()
    widget = dock_with_defaults("Segment")
    assert widget.models.entry.origin == "shipped"
    run(widget)
    scan = viewer.layers[f"{name} phantom"]
    organs = np.asarray(viewer.layers[f"{name} phantom - organs"].data)
    truth = np.asarray(viewer.layers[f"{name} phantom - true organs"].data)
    ids = {label: number for number, label in widget.models.entry.card.labels.items()}
    known = viewer.layers[f"{name} phantom - true organs"].features
    for organ in ("liver", "spleen", "right_kidney", "left_kidney"):
        true = truth == int(known["index"][list(known["name"]).index(organ)])
        found = organs == ids[organ]
        dice = 2 * np.count_nonzero(true & found) / (true.sum() + found.sum())
        assert dice > 0.5, f"{organ}: Dice {dice:.2f}"
    index = inside(organs, ids["liver"])
    world = scan.data_to_world(index)
    viewer.dims.set_point(0, world[0])
    red, green, blue = color_at(viewer, world)
    assert red > green > blue


def test_reconstruction_beats_interpolation(viewer, dock_with_defaults):
    viewer.open_sample("napari-spad", "ct_phantom")
    settle()
    widget = dock_with_defaults("Tokenizer")
    run(widget)
    ours, plain = widget.figures.values["PSNR"].split(" dB (interpolated ")
    assert float(ours) > float(plain.rstrip(")"))


def test_masked_tokens_are_told_better_than_by_the_mean(viewer, dock_with_defaults):
    viewer.open_sample("napari-spad", "ct_phantom")
    settle()
    widget = dock_with_defaults("Masking")
    run(widget)
    told = float(widget.figures.values["Cross-entropy"].split()[0])
    mean = float(widget.figures.values["Plain guesses"].split()[1].rstrip(","))
    assert told < mean
