"""The cockpit in the Tokenizer dock: tokens, codes, errors, sliders, a second model, the page."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from napari_spad import layers
from napari_spad.view import show_plane

from .conftest import CODES, click, color_at, run, settle, wait_for

OTHER_CODES = 40


@pytest.fixture(scope="session")
def more_models(small_models, tmp_path_factory):
    """The small models, and two more tokenizers: one of other codes, one for colours."""
    import torch

    from spad.checkpoints.card import Card
    from spad.checkpoints.file import save
    from spad.models.tokenizer import Tokenizer
    from spad.volumes.intensity import CT, MR

    home = tmp_path_factory.mktemp("more") / "home"
    shutil.copytree(small_models, home)
    torch.manual_seed(1)
    card = {"architecture": {}, "intensity": {"CT": CT, "MR": MR}, "licence": "none"}
    for name, channels, codes in (("other-tokens", 1, OTHER_CODES), ("colours", 3, CODES)):
        model = Tokenizer(in_channels=channels, channels=(8, 16, 32), codes=codes)
        save(home / "models" / f"{name}.safetensors", model, Card("tokenizer", name, **card))
    return home


@pytest.fixture
def home(more_models, monkeypatch):
    monkeypatch.setenv("SPAD_HOME", str(more_models))
    return more_models


@pytest.fixture
def cockpit(viewer, scan, dock):
    """The dock with a scan that was tokenized, one picture on top of the other."""
    widget = dock("Tokenizer")
    run(widget)
    widget.compare.side_by_side.setChecked(False)
    wait_for(lambda: widget.codebook._tiles is not None)
    return widget


@pytest.fixture
def tokens(ct_phantom, more_models):
    """What the library says of the same scan."""
    from spad.inference.tokens import tokenize

    return tokenize(ct_phantom.image, more_models / "models" / "small-tokens.safetensors", "cpu")


def on_screen(volume, array):
    """Bring an array on a volume's grid, or with codes last, onto the screen's axes."""
    from spad.volumes.axes import canonical_order

    order, flips = canonical_order(volume.affine, depth_first=False)
    array = array.transpose(*order, *range(3, array.ndim))
    return array[tuple(slice(None, None, -1 if flip else 1) for flip in flips)]


def press(plot, x, y):
    """Click with the mouse on a place of a plot, in its own numbers."""
    from qtpy.QtCore import QPointF, Qt
    from qtpy.QtTest import QTest
    from qtpy.QtWidgets import QScrollArea

    area = plot
    while not isinstance(area, QScrollArea):
        area = area.parentWidget()
    area.ensureWidgetVisible(plot)
    settle(0.1)
    where = plot.widget.mapFromScene(plot.widget.plotItem.vb.mapViewToScene(QPointF(x, y)))
    QTest.mouseClick(plot.widget.viewport(), Qt.MouseButton.LeftButton, pos=where)
    settle(0.05)


def place_of(layer, index):
    return np.array(layer.data_to_world(np.asarray(index)))


def test_a_click_tells_the_token_and_lights_up_its_code(viewer, cockpit, tokens):
    codes = viewer.layers["ct - codes"]
    middle = np.array(codes.data.shape) // 2
    world = place_of(codes, middle)
    viewer.dims.point = world
    before = color_at(viewer, world)
    click(viewer, world)
    p = on_screen(tokens.codes, tokens.probabilities)
    best = np.argsort(-p[tuple(middle)])[:5]
    readout = cockpit.codebook.readout
    spacing = " × ".join(f"{mm:.1f}" for mm in codes.scale)
    assert readout.place.text() == f"Token {tuple(map(int, middle))}, {spacing} mm"
    told = [line.text().split()[:2] for line in readout.codes]
    assert [int(code) for code, _ in told] == best.tolist()
    shares = [float(share) for _, share in told]
    assert shares == pytest.approx((100 * p[tuple(middle)][best]).tolist(), abs=0.02)
    entropy = -(p[tuple(middle)] * np.log(p[tuple(middle)])).sum()
    assert float(readout.entropy.text().split()[1]) == pytest.approx(entropy, abs=0.01)
    assert cockpit.codebook.chosen == best[0] == codes.data[tuple(middle)]
    light = viewer.layers["ct - where the code is"]
    assert np.allclose(light.data, p[..., best[0]], atol=1e-6)
    assert np.allclose(light.translate, codes.translate)
    after = color_at(viewer, world)
    assert after[0] - before[0] > 0.1
    assert after[0] > after[2]
    rest = {layer.name for layer in viewer.layers if layer.visible}
    assert rest == {"ct", "ct - reconstruction", "ct - where the code is"}


def test_codes_are_chosen_in_mosaic_and_bars(viewer, cockpit, tokens, more_models):
    from spad.inference.decoding import alone

    book, ranking = cockpit.codebook, np.argsort(-tokens.usage, kind="stable")
    tiles = alone(more_models / "models" / "small-tokens.safetensors", tokens.report["da"], "CT")
    assert book._tiles == pytest.approx(tiles[:, tiles.shape[1] // 2], abs=0.02)
    high, wide = book._tiles.shape[1:3]
    press(book.mosaic, 2.5 * wide, 1.5 * high)
    assert book.chosen == ranking[16 + 2]
    lit = viewer.layers["ct - where the code is"].data.copy()
    grabbed = book.code.tile.pixmap().toImage()
    wanted = 255 * book._tiles[book.chosen].mean()
    sides = range(2, grabbed.width(), 4)
    mean = np.mean([grabbed.pixelColor(x, y).red() for x in sides for y in sides])
    assert mean == pytest.approx(wanted, abs=6)
    press(cockpit.usage, 5, 0.1)
    assert book.chosen == ranking[4]
    assert not np.allclose(viewer.layers["ct - where the code is"].data, lit)
    book.code.after.click()
    assert book.chosen == ranking[5]
    book.code.number.setValue(int(ranking[-1]))
    assert book.chosen == ranking[-1]
    top, bottom = book.mosaic.widget.plotItem.vb.viewRange()[1]
    assert top <= (CODES // 16 - 1) * high < bottom
    dead = set(range(CODES)) - set(np.unique(viewer.layers["ct - codes"].data).tolist())
    assert tokens.report["dead_codes"] == sorted(dead)
    assert book.dead.text().startswith(f"{len(dead)} of {CODES} codes are dead")


def test_a_code_takes_the_place_of_the_codes_side_by_side(viewer, cockpit):
    cockpit.compare.side_by_side.setChecked(True)
    cockpit.choose_code(3)
    shown = [layer.name for layer in viewer.layers if layer.visible]
    assert shown == ["ct", "ct - reconstruction", "ct - error", "ct - where the code is"]
    cockpit.entropy_button.click()
    shown = [layer.name for layer in viewer.layers if layer.visible]
    assert shown == ["ct", "ct - reconstruction", "ct - error", "ct - entropy"]


def test_the_profile_leads_to_its_slice(viewer, cockpit, scan):
    error = np.asarray(viewer.layers["ct - error"].data)
    profile = cockpit.errors.profile
    (curve,) = profile.widget.listDataItems()
    assert curve.getData()[1] == pytest.approx(error.mean(axis=(1, 2)), rel=1e-3)
    press(profile, 17, float(curve.getData()[1].mean()))
    assert viewer.dims.current_step[0] == 17
    show_plane(viewer, "Coronal")
    (curve,) = profile.widget.listDataItems()
    assert curve.getData()[1] == pytest.approx(error.mean(axis=(0, 2)), rel=1e-3)
    press(profile, 30, float(curve.getData()[1].mean()))
    assert viewer.dims.current_step[1] == 30


def test_error_by_organ(viewer, cockpit, ct_phantom):
    data, kwargs, _ = layers.to_layer(ct_phantom.labels, "truth", role="labels")
    truth = viewer.add_labels(data, **kwargs)
    wait_for(lambda: cockpit.errors.table.rowCount() > 0)
    error = np.asarray(viewer.layers["ct - error"].data)
    figures = cockpit.errors.table.figures
    assert len(figures) == len(np.unique(data)) - 1
    for one in figures.values():
        inside = np.asarray(truth.data) == one["id"]
        assert one["voxels"] == np.count_nonzero(inside)
        assert one["mean"] == pytest.approx(float(error[inside].mean()), rel=1e-3)
    means = [one["mean"] for one in figures.values()]
    assert means == sorted(means, reverse=True)


def test_sliders_decode_and_the_newest_wins(viewer, cockpit, tokens, ct_phantom, more_models):
    from spad.inference.decoding import decode

    rebuilt, error = viewer.layers["ct - reconstruction"], viewer.layers["ct - error"]
    before = np.array(rebuilt.data)
    came = []
    cockpit.sliders.slice_decoded.connect(lambda *what: came.append(what))
    cockpit.sliders.temperature_slider.setValue(60)
    settle(0.2)
    cockpit.sliders.temperature_slider.setValue(-80)
    cockpit.sliders.top_k_slider.setValue(50)
    wait_for(lambda: not cockpit.sliders.busy)
    settle()
    t, k = cockpit.sliders.temperature, cockpit.sliders.top_k
    assert (t, k) == (pytest.approx(10**-0.8), round(CODES**0.5))
    model = more_models / "models" / "small-tokens.safetensors"
    wanted = decode(ct_phantom.image, tokens.probabilities, model, t, k, "cpu")
    values = on_screen(wanted.reconstruction, wanted.reconstruction.array)
    # bfloat16 rounds otherwise with another number of threads
    assert np.abs(rebuilt.data - values).mean() < 0.2 < np.abs(rebuilt.data - before).mean()
    assert np.abs(error.data - on_screen(wanted.error, wanted.error.array)).mean() < 0.2
    assert came
    axis, index, pixels = came[-1]
    assert (axis, index) == (0, viewer.dims.current_step[0])
    assert pixels.shape == before[0].shape
    assert f"PSNR {wanted.report['psnr']:.1f} dB" in cockpit.sliders.status.text()
    assert len(cockpit.errors.profile.widget.listDataItems()) == 2
    cockpit.sliders.reset_button.click()
    assert np.array_equal(rebuilt.data, before)
    assert len(cockpit.errors.profile.widget.listDataItems()) == 1


def test_two_tokenizers_side_by_side(viewer, cockpit):
    assert cockpit.seconds.findText("small-tokens") < 0
    cockpit.seconds.setCurrentText("other-tokens")
    cockpit.second_button.click()
    wait_for(lambda: not cockpit.run_row.running)
    shown = [layer.name for layer in viewer.layers if layer.visible]
    by = "by other-tokens"
    assert shown == [
        *("ct - reconstruction", "ct - error", f"ct - reconstruction {by}", f"ct - error {by}")
    ]
    assert viewer.canvas.grid.enabled
    words = [label.text() for label in cockpit.figures.findChildren(type(cockpit.about))]
    assert {"small-tokens", "other-tokens"} <= set(words)
    assert any(one.endswith(f"of {OTHER_CODES}") for one in words)
    assert any(one.endswith(f"of {CODES}") for one in words)
    assert len(cockpit.errors.profile.widget.listDataItems()) == 2
    assert cockpit.everything()["second"]["model"] == "other-tokens"


def test_swipe_and_blink(viewer, cockpit, scan):
    from qtpy.QtCore import Qt
    from qtpy.QtTest import QTest
    from qtpy.QtWidgets import QApplication

    rebuilt = viewer.layers["ct - reconstruction"]
    low, high = scan.contrast_limits
    middle = np.array(scan.data.shape) // 2
    count = len(viewer.layers)
    cockpit.compare.swipe.setValue(50)
    for aside, layer in ((-12, rebuilt), (12, scan)):
        index = middle + np.array([0, 0, aside])
        viewer.dims.set_point(0, place_of(scan, index)[0])
        expected = np.clip((np.asarray(layer.data)[tuple(index)] - low) / (high - low), 0, 1)
        assert color_at(viewer, place_of(scan, index))[0] == pytest.approx(expected, abs=0.12)
    assert rebuilt.data.shape == scan.data.shape
    cockpit.compare.swipe.setValue(100)
    assert len(viewer.layers) == count
    assert rebuilt.visible
    seen = []
    rebuilt.events.visible.connect(lambda event: seen.append(rebuilt.visible))
    canvases = [w for w in QApplication.allWidgets() if type(w).__name__.startswith("CanvasBack")]
    canvas = next(w for w in canvases if w.isVisible())
    for _ in range(2):
        seen.clear()
        canvas.setFocus()
        QTest.keyClick(canvas, Qt.Key.Key_B, Qt.KeyboardModifier.ControlModifier)
        settle(1.3)
        if not cockpit.compare.blink_button.isChecked():
            break
        assert set(seen) == {True, False}
    assert not cockpit.compare.blink_button.isChecked()
    assert rebuilt.visible


def test_the_page_is_a_picture_and_its_figures(viewer, cockpit, tmp_path, monkeypatch):
    from qtpy.QtGui import QImage
    from qtpy.QtWidgets import QFileDialog

    cockpit.choose_code(5)
    folded = {name: part.unfolded for name, part in cockpit.sections.items()}
    assert not all(folded.values())
    where = tmp_path / "my page"
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(where), ""))
    cockpit.export_button.click()
    page, figures = tmp_path / "my page.png", tmp_path / "my page.json"
    image = QImage(str(page))
    height, width = viewer.canvas.size
    assert image.width() > width + 2 * cockpit.errors.width()
    assert image.height() >= height
    colors = {
        image.pixelColor(x, y).name()
        for x in range(0, image.width(), 7)
        for y in range(0, image.height(), 7)
    }
    assert len(colors) > 100
    found = json.loads(figures.read_text())
    assert (found["scan"], found["code"]) == ("ct", 5)
    assert len(found["tokenize"]["usage"]) == CODES
    assert {"psnr", "dead_codes", "slice_error", "trilinear"} <= set(found["tokenize"])
    assert folded == {name: part.unfolded for name, part in cockpit.sections.items()}
    assert str(tmp_path) not in figures.read_text()


def test_a_picture_in_colours(viewer, dock):
    from spad.volumes.volume import Volume

    rng = np.random.default_rng(0)
    array = rng.integers(0, 256, (3, 1, 70, 90), dtype=np.uint8)
    affine = np.diag([-1.0, -1.0, -1.0, 1.0])[:, [2, 1, 0, 3]]
    picture = Volume.from_array(array, affine, axes="czyx", rgb=True)
    data, kwargs, _ = layers.to_layer(picture, "photo")
    shown = viewer.add_image(data, **kwargs)
    widget = dock("Tokenizer")
    assert widget.scans.layer == shown
    run(widget)
    assert "choose a tokenizer of three channels" in widget.run_row.status.text()
    widget.models.setCurrentText("colours")
    run(widget)
    rebuilt, error = (viewer.layers[f"photo - {name}"] for name in ("reconstruction", "error"))
    assert rebuilt.rgb
    assert rebuilt.data.shape == shown.data.shape
    gap = np.abs(np.asarray(rebuilt.data, float) - shown.data).mean(-1)
    assert np.allclose(error.data, gap, atol=0.6)
    assert float(widget.figures.values["Mean error"]) == pytest.approx(gap.mean(), abs=0.5)
    widget.sliders.top_k_slider.setValue(0)
    wait_for(lambda: not widget.sliders.busy)
    assert rebuilt.data.dtype == np.uint8
    assert "PSNR" in widget.sliders.status.text()
