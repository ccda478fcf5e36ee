"""The Tokenizer and Masking docks: layers, figures, plot, side by side."""

from __future__ import annotations

import numpy as np
import pytest

from napari_spad import layers

from .conftest import CODES, color_at, picture, run, settle


def covers(coarse, fine):
    """Whether a coarser layer begins or ends where the finer one does, and hides none of it."""
    ends = []
    for layer in (coarse, fine):
        start = np.array(layer.translate) - np.array(layer.scale) / 2
        ends.append((start, start + np.array(layer.scale) * layer.data.shape))
    (a, b), (c, d) = ends
    return bool(np.all(a <= c + 1e-6) and np.all(b >= d - 1e-6))


def test_tokenizer_shows_layers_and_figures(viewer, scan, dock):
    widget = dock("Tokenizer")
    run(widget)
    rebuilt, error, codes = (
        viewer.layers[f"ct - {name}"] for name in ("reconstruction", "error", "codes")
    )
    assert rebuilt.data.shape == error.data.shape == scan.data.shape
    clipped = np.clip(scan.data, -125, 275)
    assert np.allclose(np.abs(rebuilt.data - clipped), error.data, atol=0.5)
    assert covers(codes, scan)
    assert codes.data.max() < CODES
    assert tuple(rebuilt.contrast_limits) == tuple(scan.contrast_limits)
    values = widget.figures.values
    assert set(values) == {
        *("PSNR", "SSIM", "Mean error", "Tokens", "Codes used", "Perplexity", "Entropy")
    }
    assert values["Mean error"].endswith("HU")
    mean = float(values["Mean error"].split()[0])
    assert mean == pytest.approx(error.data.mean(), abs=0.1)
    used = int(values["Codes used"].split()[0])
    assert used == len(np.unique(codes.data))
    assert values["Codes used"].endswith(f"of {CODES}")


def test_usage_plot_is_sorted(viewer, scan, dock):
    widget = dock("Tokenizer")
    assert widget.usage.widget is None
    run(widget)
    (curve,) = widget.usage.widget.listDataItems()
    ranks, shares = curve.getData()
    assert len(ranks) == CODES
    assert np.all(np.diff(shares) <= 0)
    assert shares.sum() == pytest.approx(100)
    grabbed = widget.usage.grab().toImage()
    colors = {
        grabbed.pixelColor(x, y).name()
        for x in range(0, grabbed.width(), 3)
        for y in range(0, grabbed.height(), 3)
    }
    assert len(colors) > 3


def test_side_by_side_shows_four_fields(viewer, scan, dock):
    widget = dock("Tokenizer")
    run(widget)
    assert viewer.canvas.grid.enabled
    shot = picture(viewer)[..., :3].astype(float)
    height, width = shot.shape[0] // 2, shot.shape[1] // 2
    fields = [shot[y : y + height, x : x + width] for y in (0, height) for x in (0, width)]
    gray = [np.abs(field - field.mean(axis=2, keepdims=True)).max() < 8 for field in fields]
    assert gray == [True, True, False, False]
    for field in fields:
        assert field.max() > 60
    widget.compare.side_by_side.setChecked(False)
    settle()
    assert not viewer.canvas.grid.enabled


def test_fading_between_scan_and_reconstruction(viewer, scan, dock):
    widget = dock("Tokenizer")
    run(widget)
    widget.compare.side_by_side.setChecked(False)
    assert [layer.name for layer in viewer.layers if layer.visible] == ["ct", "ct - reconstruction"]
    rebuilt = viewer.layers["ct - reconstruction"]
    index = np.array(scan.data.shape) // 2
    world = scan.data_to_world(index)
    viewer.dims.point = world
    low, high = scan.contrast_limits
    for value, layer in ((0, scan), (100, rebuilt)):
        widget.compare.fade.setValue(value)
        expected = np.clip((layer.data[tuple(index)] - low) / (high - low), 0, 1)
        assert color_at(viewer, world)[0] == pytest.approx(expected, abs=0.12)


def test_masking_shows_what_was_hidden(viewer, scan, dock):
    widget = dock("Masking")
    widget.ratio.value = 0.5
    run(widget)
    mask, filled = viewer.layers["ct - mask"], viewer.layers["ct - filled in"]
    seen = viewer.layers["ct - what the model saw"]
    assert covers(mask, scan)
    assert np.mean(np.asarray(mask.data)) == pytest.approx(0.5, abs=0.1)
    assert filled.data.shape == scan.data.shape
    hidden = widget.figures.values["Hidden tokens"].split()[0].replace("\u2009", "")
    assert int(hidden) == np.count_nonzero(mask.data)
    token = np.argwhere(np.asarray(mask.data) == 1)[0]
    world = mask.data_to_world(token)
    inner = np.clip(
        np.rint(scan.world_to_data(world)).astype(int), 0, np.array(scan.data.shape) - 1
    )
    assert seen.data[tuple(inner)] == scan.contrast_limits[0]
    shown = np.asarray(seen.data) == np.asarray(scan.data)
    assert 0.3 < shown.mean() < 0.9


def test_hidden_tokens_are_yellow(viewer, scan, dock):
    widget = dock("Masking")
    run(widget)
    widget.compare.fade.setValue(0)
    mask = viewer.layers["ct - mask"]
    for value in (0, 1):
        inner = np.argwhere(np.asarray(mask.data)[:, 1:-1, 1:-1] == value)[0] + [0, 1, 1]
        world = mask.data_to_world(inner)
        viewer.dims.point = np.clip(world, *scan.extent.world)
        red, _, blue = color_at(viewer, world)
        assert (red - blue > 0.15) == bool(value)


def test_docks_agree_about_the_grid(viewer, scan, dock):
    tokenizer, masking = dock("Tokenizer"), dock("Masking")
    run(tokenizer)
    assert tokenizer.compare.side_by_side.isChecked()
    run(masking)
    assert not viewer.canvas.grid.enabled
    assert not tokenizer.compare.side_by_side.isChecked()
    shown = {layer.name for layer in viewer.layers if layer.visible}
    assert shown == {"ct", "ct - filled in", "ct - mask"}
    masking.compare.side_by_side.setChecked(True)
    shown = {layer.name for layer in viewer.layers if layer.visible}
    assert shown == {"ct", "ct - what the model saw", "ct - filled in"}


def test_a_series_is_tokenized_at_its_first_time(viewer, dock):
    viewer.open_sample("napari-spad", "nibabel_example")
    settle()
    widget = dock("Tokenizer")
    run(widget)
    assert "first time" in widget.run_row.status.text()
    assert viewer.layers["Brain MR - reconstruction"].data.shape == (24, 96, 128)


def test_the_same_seed_hides_the_same_tokens(viewer, scan, dock):
    widget = dock("Masking")
    masks = []
    for seed in (3, 3, 4):
        widget.seed.value = seed
        run(widget)
        masks.append(np.array(viewer.layers[-1].data))
    assert np.array_equal(masks[0], masks[1])
    assert not np.array_equal(masks[0], masks[2])


def test_results_of_an_oblique_scan_lie_on_it(viewer, mr_phantom, dock):
    data, kwargs, _ = layers.to_layer(mr_phantom.image, "mr")
    scan = viewer.add_image(data, **kwargs)
    widget = dock("Tokenizer")
    run(widget)
    assert np.allclose(viewer.layers["mr - reconstruction"].translate, scan.translate)
    assert covers(viewer.layers["mr - codes"], scan)
