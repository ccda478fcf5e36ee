"""The Train dock: two clicks from open layers to an installed model, and watching any run."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from napari_spad import layers, training_data
from napari_spad.before_after import Row
from napari_spad.training_data import OpenCase
from spad.checkpoints import zoo
from spad.training import runs

from .conftest import settle, wait_for


@pytest.fixture
def open_scan(viewer, phantoms):
    """Open a phantom's scan, and its labels unless told otherwise."""

    def open_one(number, *, labels=True):
        made, name = phantoms[number], f"scan{number}"
        data, kwargs, _ = layers.to_layer(made.image, name)
        scan = viewer.add_image(data, **kwargs)
        if not labels:
            return scan, None
        data, kwargs, _ = layers.to_layer(made.labels, f"{name} labels", role="labels")
        return scan, viewer.add_labels(data, **kwargs)

    return open_one


class TestPlan:
    def test_it_says_what_is_missing(self, viewer, own_home, dock, open_scan, tmp_path):
        form = dock("Train").form
        assert not form.start_button.isEnabled()
        assert form.sentence.text().startswith("Open a few scans and labels on them")
        assert not form.options.unfolded
        scan, _ = open_scan(0, labels=False)
        assert "None of the open scans has labels" in form.sentence.text()
        form.source.setCurrentText("a folder of scans")
        form.folder.setText(str(tmp_path / "nowhere"))
        assert "is no folder" in form.sentence.text()
        form.source.setCurrentText("the open layers")
        form.recipe.setCurrentText("tokens")
        assert form.start_button.isEnabled()
        viewer.layers.remove(scan)
        assert form.sentence.text() == "Open a scan first."

    def test_one_sentence_tells_the_plan(self, viewer, own_home, dock, open_scan):
        form = dock("Train").form
        for number in range(3):
            open_scan(number)
        assert form.start_button.text() == "Fine-tune on these 3 scans"
        form.init.setCurrentText("small-organs")
        said = form.sentence.text()
        assert said.startswith("Learns 13 labels from scan0 and scan2 for 10 minutes")
        assert said.endswith("starting from small-organs; scan1 is held out to judge the result.")
        form.kept.setCurrentText("scan2")
        assert "from scan0 and scan1 " in form.sentence.text()
        assert [case.held_out for case in form.open_cases()] == [False, False, True]
        form.kept.setCurrentText("none")
        assert "no scan is held out" in form.sentence.text()

    def test_a_single_scan_will_do_but_nothing_is_held_out(self, own_home, dock, open_scan):
        form = dock("Train").form
        open_scan(0)
        assert form.start_button.text() == "Fine-tune on this scan"
        assert "with labels on a second scan, that would be held out" in form.sentence.text()

    def test_labels_count_once_something_is_drawn(self, viewer, own_home, dock, open_scan):
        widget = dock("Train")
        scan, _ = open_scan(0, labels=False)
        place = {"scale": scan.scale, "translate": scan.translate, "units": scan.units}
        drawn = viewer.add_labels(np.zeros(scan.data.shape, np.uint8), name="mine", **place)
        assert not widget.form.start_button.isEnabled()
        drawn.data[3, 4, 5] = 2
        widget.refresh()
        assert widget.form.start_button.isEnabled()
        assert "scan0 with mine" in widget.form.cases.text()

    def test_a_persons_labels_go_before_those_of_a_model(self, viewer, own_home, dock, open_scan):
        form = dock("Train").form
        _, labels = open_scan(0)
        data, kwargs, _ = layers.to_layer(layers.volume_of(labels), "scan0 - organs", role="organs")
        viewer.add_labels(data, **kwargs)
        assert "scan0 with scan0 labels" in form.cases.text()
        viewer.layers.remove(labels)
        assert "scan0 with scan0 - organs" in form.cases.text()


class TestWatching:
    def test_curves_of_a_run_are_drawn_as_it_goes_on(self, viewer, own_home, dock):
        run = runs.create(
            own_home / "runs" / "organs",
            {"task": "segmentation", "schedule": {"steps": 40, "minutes": None}},
        )
        widget = dock("Train")
        with runs.RunWriter(run) as writer:
            writer.append_metrics(10, "train", {"loss": 2.0, "seconds_per_step": 1.0})
            widget.refresh()
            wait_for(lambda: widget.runs.table.rowCount() == 1, 10)
            widget.runs.table.selectRow(0)
            assert widget.status.text().startswith("step 10, 25 % done, about ")
            assert widget.bar.isVisible()
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
        assert not widget.bar.isVisible()
        assert not widget.runs.stop_button.isEnabled()
        assert widget.runs.stop_button.toolTip() == "It is finished."

    def test_loss_and_rate_are_drawn_beside_the_chosen_figure(self, viewer, own_home, dock):
        run = runs.create(own_home / "runs" / "organs", {"task": "segmentation"})
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
            assert widget.figures.text() == "loss 1, lr 0.002, dice 0.25"

    def test_pictures_are_shown_as_they_come(self, viewer, own_home, dock):
        run = runs.create(own_home / "runs" / "tokens", {"task": "tokenizer"})
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

    def test_a_picture_is_large_on_a_click_and_never_widens_the_dock(
        self, viewer, own_home, dock, qtbot
    ):
        from qtpy.QtCore import Qt

        run = runs.create(own_home / "runs" / "organs", {"task": "segmentation"})
        widget = dock("Train")
        with runs.RunWriter(run) as writer:
            writer.add_sample(10, np.full((60, 600, 3), 100, np.uint8))
        widget.refresh()
        widget.runs.table.selectRow(0)
        settle(0.5)
        shown = widget.samples.picture
        assert shown.pixmap().width() <= widget.width()
        qtbot.mouseClick(shown, Qt.MouseButton.LeftButton)
        large = widget.samples.large
        assert large.isVisible()
        assert large.picture.pixmap().width() > 1.5 * shown.pixmap().width()
        large.close()

    def test_why_a_run_failed_is_said(self, viewer, own_home, dock):
        run = runs.create(own_home / "runs" / "organs", {"task": "segmentation"})
        widget = dock("Train")
        with pytest.raises(OSError, match="full"), runs.RunWriter(run):
            raise OSError("The disk is full.")
        widget.refresh()
        widget.runs.table.selectRow(0)
        settle()
        assert "The disk is full." in widget.runs.message.text()
        assert widget.runs.message.isVisible()

    def test_a_run_is_deleted_to_the_trash(self, viewer, own_home, dock, trash):
        run = runs.create(own_home / "runs" / "old", {"task": "mim"})
        widget = dock("Train")
        assert not widget.runs.discard_button.isEnabled()
        widget.refresh()
        widget.runs.table.selectRow(0)
        settle()
        widget.runs.discard_button.click()
        assert not run.exists()
        assert widget.runs.table.rowCount() == 0
        assert "in the trash" in widget.status.text()

    def test_a_run_elsewhere_can_be_attached(self, viewer, own_home, dock, tmp_path_factory):
        run = runs.create(tmp_path_factory.mktemp("else") / "mine", {"task": "mim"})
        widget = dock("Train")
        widget.runs.attach(run)
        wait_for(lambda: widget.runs.run == run, 10)
        assert "mine" in widget.runs.table.item(0, 0).text()


@pytest.fixture
def tuned(own_home, phantoms):
    """A run that began with the small organs model; its checkpoint is that model."""
    cases = [
        OpenCase(f"scan{number}", made.image, made.labels, held_out=number == 1)
        for number, made in enumerate(phantoms)
    ]
    (folder,) = training_data.write_cases(cases, own_home / "data" / "layers")
    listed = [
        runs.RunCase(
            f"layers/000{n + 1}_ct_scan{n}",
            *(str(folder / f"{kind}000{n + 1}_ct_scan{n}.nii.gz") for kind in ("img", "label")),
            held_out=n == 1,
        )
        for n in range(3)
    ]
    recipe = {"task": "segmentation", "init": "small-organs"}
    run = runs.create(own_home / "runs" / "organs", recipe, listed)
    with runs.RunWriter(run) as writer, writer.checkpoint(5) as place:
        shutil.copy(zoo.find("small-organs").path, place / zoo.MODEL_FILE)
    return run


class TestResult:
    def test_before_and_after_on_the_held_out_scan(self, viewer, own_home, dock, open_scan, tuned):
        open_scan(0)
        scan, _ = open_scan(1)
        widget = dock("Train")
        widget.runs.table.selectRow(0)
        settle()
        parts = widget.before_after
        assert parts.button.text() == "Compare before and after on scan1"
        parts.button.click()
        wait_for(lambda: not parts.is_busy, 60)
        assert parts.result is not None, parts.words.text()
        rows = {row.name: row for row in parts.result.rows()}
        assert rows["liver"].before == pytest.approx(rows["liver"].after)
        assert rows["stomach"].before is None, "the small model does not know it"
        table = parts.table
        words = {table.item(n, 0).text(): table.item(n, 1).text() for n in range(table.rowCount())}
        assert words["stomach"] == "-"
        assert words["mean"] == "-"
        assert float(words["liver"]) == pytest.approx(rows["liver"].before, abs=0.006)
        parts.switches["after"].click()
        after = viewer.layers["scan1 - after"]
        seen = {layer.name for layer in viewer.layers if layer.visible}
        assert seen == {scan.name, after.name}
        assert np.allclose(after.translate, scan.translate)
        parts.switches["drawn"].click()
        assert not after.visible
        assert viewer.layers["scan1 - your labels"].data.max() > 0
        assert [pair.labels.name for pair in widget.form.pairs] == ["scan0 labels", "scan1 labels"]

    def test_a_scan_that_is_not_open_is_opened(self, viewer, own_home, dock, tuned, phantoms):
        widget = dock("Train")
        widget.runs.table.selectRow(0)
        settle()
        widget.before_after.compare()
        wait_for(lambda: widget.before_after.result is not None, 120)
        widget.before_after.switches["before"].click()
        assert [layer.name for layer in viewer.layers] == ["scan1", "scan1 - before"]
        assert np.array_equal(
            layers.volume_of(viewer.layers[0]).array.shape, phantoms[1].image.array.shape
        )

    def test_what_stops_a_comparison_is_said(self, viewer, own_home, dock, tuned):
        widget = dock("Train")
        widget.runs.table.selectRow(0)
        settle()
        for path in (own_home / "data").rglob("img0002*"):
            path.unlink()
        widget.before_after.compare()
        wait_for(lambda: not widget.before_after.is_busy, 60)
        assert "img0002" in widget.before_after.words.text()
        assert widget.before_after.button.isEnabled()

    def test_a_model_is_installed_and_offered_at_once(self, viewer, own_home, dock, tuned):
        _, segment = viewer.window.add_plugin_dock_widget("napari-spad", "Segment")
        widget = dock("Train")
        widget.runs.table.selectRow(0)
        settle()
        assert widget.install.name.text() == "my-organs"
        widget.install.button.click()
        assert "the Segment dock offers it now" in widget.install.words.text()
        assert zoo.find("my-organs").kind == "segmenter"
        names = [segment.models.itemText(n) for n in range(segment.models.count())]
        assert "my-organs" in names
        widget.install.button.click()
        assert "There already is a model called 'my-organs'" in widget.install.words.text()

    def test_change_is_told_with_its_sign(self):
        assert Row("liver", 0.8, 0.853).change == "+0.05"
        assert Row("liver", 0.8, 0.799).change == "0.00"
        assert Row("liver", None, 0.8).change == "-"


def _curve(widget, name):
    found = {item.name(): item for item in widget.plot.widget.listDataItems()}
    return found[name].getData()[0]


@pytest.mark.slow
def test_two_clicks_from_open_layers_to_a_model(viewer, own_home, dock, open_scan):
    for number in range(3):
        open_scan(number)
    widget = dock("Train")
    form = widget.form
    form.init.setCurrentText("small-organs")
    form.amount_unit.setCurrentText("steps")
    form.amount.setValue(2)
    form.start_button.click()
    assert not form.start_button.isEnabled()
    wait_for(lambda: widget.runs.run is not None, 240)
    run = widget.runs.run
    wait_for(lambda: runs.read_state(run).state == "finished", 240)
    assert "init: small-organs" in (run / "recipe.yaml").read_text()
    assert [case.held_out for case in runs.read_cases(run)] == [False, True, False]
    wait_for(lambda: widget.before_after.result is not None, 120)
    assert widget.samples.isVisible()
    widget.install.button.click()
    assert zoo.find("my-organs").card.provenance["init"] == "small-organs"
    wait_for(form.start_button.isEnabled, 30)  # once the process has ended


@pytest.mark.slow
def test_a_run_is_stopped(viewer, own_home, dock, open_scan):
    open_scan(0, labels=False)
    widget = dock("Train")
    widget.form.recipe.setCurrentText("tokens")
    widget.form.amount_unit.setCurrentText("steps")
    widget.form.amount.setValue(2000)
    widget.form.start_button.click()
    wait_for(lambda: widget._curves is not None and bool(widget._curves.names), 240)
    run = widget.runs.run
    assert runs.read_state(run).state == "running"
    wait_for(widget.runs.stop_button.isEnabled, 10)
    widget.runs.stop_button.click()
    wait_for(lambda: runs.read_state(run).state == "stopped", 60)
    widget.refresh()
    assert np.isfinite(_curve(widget, "train")).all()
