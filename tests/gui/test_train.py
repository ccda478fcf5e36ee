"""The Train dock: start a real run, watch it, stop it, use its model."""

from __future__ import annotations

import numpy as np
import pytest

from napari_spad import layers
from spad.checkpoints import zoo
from spad.training import runs

from .conftest import settle, wait_for


@pytest.fixture
def run_home(tmp_path, monkeypatch, home):
    """A SPAD_HOME of the test's own."""
    monkeypatch.setenv("SPAD_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def scan(viewer, ct_phantom):
    data, kwargs, _ = layers.to_layer(ct_phantom.image, "ct")
    return viewer.add_image(data, **kwargs)


def test_start_says_what_is_missing(viewer, run_home, dock, ct_phantom, tmp_path):
    widget = dock("Train")
    assert not widget.start_button.isEnabled()
    assert "Choose a folder" in widget.cases.text()
    widget.folder.setText(str(tmp_path / "nowhere"))
    assert "is no folder" in widget.start_button.toolTip()
    widget.source.setCurrentText("the open layers")
    assert "labels" in widget.start_button.toolTip()
    widget.recipe.setCurrentText("tokenizer")
    assert widget.start_button.toolTip() == "Open a scan first."
    data, kwargs, _ = layers.to_layer(ct_phantom.image, "ct")
    viewer.add_image(data, **kwargs)
    assert widget.start_button.isEnabled()
    assert "1 scan: ct" in widget.cases.text()


def test_curves_of_a_run_are_drawn_as_it_goes_on(viewer, run_home, dock):
    run = runs.create(
        run_home / "runs" / "organs", {"recipe": "segmentation", "task": "segmentation"}
    )
    widget = dock("Train")
    with runs.RunWriter(run) as writer:
        writer.append_metrics(10, "train", {"loss": 2.0})
        widget.refresh()
        wait_for(lambda: widget.runs.table.rowCount() == 1, 10)
        widget.runs.table.selectRow(0)
        writer.append_metrics(20, "train", {"loss": 1.0})
        writer.append_metrics(20, "validation", {"loss": 1.5, "dice": 0.25})
        widget.refresh()
        settle()
        assert widget.runs.table.item(0, 1).text() == "running"
        assert widget.runs.stop_button.isEnabled()
        assert not widget.runs.resume_button.isEnabled()
        widget.figure.setCurrentText("loss")
        settle()
        items = {item.name(): item.getData() for item in widget.plot.widget.listDataItems()}
        assert items["train"][0].tolist() == [10, 20]
        assert items["train"][1].tolist() == [2.0, 1.0]
        assert items["validation"][1].tolist() == [1.5]
        writer.append_metrics(30, "train", {"loss": 0.5})
        wait_for(lambda: len(_curve(widget, "train")) == 3, 10)
    widget.refresh()
    assert widget.runs.table.item(0, 1).text() == "finished"
    assert not widget.runs.stop_button.isEnabled()
    assert widget.runs.stop_button.toolTip() == "It is finished."


def _curve(widget, name):
    found = {item.name(): item for item in widget.plot.widget.listDataItems()}
    return found[name].getData()[0]


def test_loss_and_rate_are_drawn_beside_the_chosen_figure(viewer, run_home, dock):
    run = runs.create(run_home / "runs" / "organs", {"task": "segmentation"})
    widget = dock("Train")
    with runs.RunWriter(run) as writer:
        for step in (10, 20):
            writer.append_metrics(step, "train", {"loss": 20 / step, "lr": step * 1e-4})
        writer.append_metrics(20, "validation", {"dice": 0.25})
        widget.refresh()
        widget.runs.table.selectRow(0)
        settle()
        assert widget.figure.currentText() == "dice"
        drawn = {
            name: plot.widget.listDataItems()[0].getData()[1].tolist()
            for name, plot in widget.overview.items()
        }
        assert drawn == {"loss": [2.0, 1.0], "lr": [0.001, 0.002]}
        assert widget.status.text() == "loss 1, lr 0.002, dice 0.25"


def test_pictures_are_shown_as_they_come(viewer, run_home, dock):
    run = runs.create(run_home / "runs" / "tokens", {"task": "tokenizer"})
    widget = dock("Train")
    with runs.RunWriter(run) as writer:
        widget.refresh()
        widget.runs.table.selectRow(0)
        settle()
        assert not widget.samples.isVisible()
        for step in (10, 20):
            writer.add_sample(step, np.full((40, 90, 3), 12 * step, np.uint8))
        widget.refresh()
        settle()
        assert widget.samples.isVisible()
        assert "step 20: scan, reconstruction" in widget.samples.caption.text()
        color = widget.samples.picture.pixmap().toImage().pixelColor(5, 5)
        assert color.red() == 240
        widget.samples.slider.setValue(0)
        assert "step 10" in widget.samples.caption.text()
        writer.add_sample(30, np.zeros((40, 90, 3), np.uint8))
        widget.refresh()
        assert "step 10" in widget.samples.caption.text(), "a person looks at it"
        widget.samples.slider.setValue(2)
        writer.add_sample(40, np.zeros((40, 90, 3), np.uint8))
        widget.refresh()
        assert "step 40" in widget.samples.caption.text()


def test_a_run_is_deleted_to_the_trash(viewer, run_home, dock, trash):
    run = runs.create(run_home / "runs" / "old", {"task": "mim"})
    widget = dock("Train")
    assert not widget.runs.discard_button.isEnabled()
    widget.refresh()
    widget.runs.table.selectRow(0)
    settle()
    widget.runs.discard_button.click()
    assert not run.exists()
    assert widget.runs.table.rowCount() == 0
    assert "in the trash" in widget.status.text()


def test_a_run_elsewhere_can_be_attached(viewer, run_home, dock, tmp_path_factory):
    run = runs.create(tmp_path_factory.mktemp("else") / "mine", {"recipe": "mim", "task": "mim"})
    widget = dock("Train")
    widget.runs.attach(run)
    wait_for(lambda: widget.runs.run == run, 10)
    assert "mine" in widget.runs.table.item(0, 0).text()


@pytest.mark.slow
def test_a_real_run_from_the_open_layers(viewer, run_home, dock, scan):
    widget = dock("Train")
    widget.recipe.setCurrentText("tokenizer")
    widget.source.setCurrentText("the open layers")
    widget.init.setCurrentText("random weights")
    widget.amount_unit.setCurrentText("steps")
    widget.amount.setValue(2000)
    widget.start_button.click()
    wait_for(lambda: widget._curves is not None and bool(widget._curves.names), 240)
    run = widget.runs.run
    assert runs.read_state(run).state == "running"
    wait_for(widget.runs.stop_button.isEnabled, 10)
    widget.runs.stop_button.click()
    wait_for(lambda: runs.read_state(run).state == "stopped", 60)
    widget.refresh()
    wait_for(widget.runs.use_button.isEnabled, 10)
    widget.use(run, "mine")
    assert zoo.find("mine").kind == "tokenizer"
    _, tokenizer = viewer.window.add_plugin_dock_widget("napari-spad", "Tokenizer")
    names = [tokenizer.models.itemText(n) for n in range(tokenizer.models.count())]
    assert "mine" in names
    assert np.isfinite(_curve(widget, "train")).all()
