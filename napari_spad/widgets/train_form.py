"""What to train: the plan in one sentence and one button; everything else is folded away."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Signal
from qtpy.QtWidgets import (
    QComboBox,
    QDoubleSpinBox,
    QFileDialog,
    QHBoxLayout,
    QLineEdit,
    QPushButton,
    QWidget,
)

from napari_spad import layers, training_jobs
from napari_spad.organ_layers import fits_as_organs, labels_on, names_of, on_same_grid
from napari_spad.training_data import OpenCase, held_out, listed
from napari_spad.training_jobs import Plan
from napari_spad.widgets.choosers import is_scan
from napari_spad.widgets.forms import MAIN, Form, Section, column, row, text
from spad.errors import SpadError
from spad.volumes.colors import readable

if TYPE_CHECKING:
    from napari import Viewer

    from spad.checkpoints.zoo import Entry

LAYERS, FOLDER = "the open layers", "a folder of scans"
MINUTES, STEPS = "minutes", "steps"
SCRATCH = "random weights"
_NOBODY = "none"
_MINUTES = 10
_THIN = 4
"""Every so many voxels are looked at first, to see whether anything was drawn."""


@dataclass(frozen=True, eq=False)
class Pair:
    """The layer of a scan and that of labels on it, or None."""

    scan: Any
    labels: Any = None


class TrainForm(QWidget):
    """The plan of a training; `asked` tells that a person wants it to start."""

    asked = Signal()

    def __init__(self, viewer: Viewer) -> None:
        super().__init__()
        self._viewer = viewer
        self._models: list[Entry] = []
        self._pairs: list[Pair] = []
        self._said: tuple[Any, ...] = ()
        self._chosen = False
        self._state: tuple[Any, ...] = ()
        self.busy = ""
        self.device = ""
        self._make_fields()
        self._lay_out()
        for choice in (self.source, self.init, self.kept, self.amount_unit):
            choice.currentIndexChanged.connect(self.check)
        self.recipe.currentIndexChanged.connect(self._recipe_chosen)
        self.init.currentIndexChanged.connect(self._follow_size)
        self.init.activated.connect(self._init_chosen)
        self.amount.valueChanged.connect(self.check)
        self.folder.textChanged.connect(self.check)
        self.browse.clicked.connect(self._browse)
        self.start_button.clicked.connect(self.asked)
        self._recipe_chosen()

    def _make_fields(self) -> None:
        self.sentence = text()
        self.start_button = QPushButton()
        self.start_button.setDefault(True)
        self.start_button.setStyleSheet(MAIN)
        self.recipe = QComboBox()
        for recipe, (title, _) in training_jobs.RECIPES.items():
            self.recipe.addItem(title, recipe)
        self.what = text(faint=True)
        self.source = QComboBox()
        self.source.addItems([LAYERS, FOLDER])
        self.folder = QLineEdit()
        self.folder.setPlaceholderText("img0001.nii.gz, label0001.nii.gz, ...")
        self.browse = QPushButton("...")
        self.browse.setMaximumWidth(34)
        self.browse.setToolTip("Choose a folder of scans")
        self.cases = text(faint=True)
        self.kept = QComboBox()
        self.kept.setToolTip("Never learnt from; shows how good the result is on a new scan")
        self.preset = QComboBox()
        self.preset.addItems(list(training_jobs.PRESETS))
        self.preset.setToolTip("The model's size: tiny suits a laptop, base is the papers'")
        self.init = QComboBox()
        self.init.setToolTip("The weights to start from")
        self.amount = QDoubleSpinBox()
        self.amount.setDecimals(0)
        self.amount.setRange(1, 10_000_000)
        self.amount.setValue(_MINUTES)
        self.amount_unit = QComboBox()
        self.amount_unit.addItems([MINUTES, STEPS])

    def _lay_out(self) -> None:
        self._path_row = QWidget()
        inner = QHBoxLayout(self._path_row)
        inner.setContentsMargins(0, 0, 0, 0)
        inner.addWidget(self.folder, 1)
        inner.addWidget(self.browse)
        body = QWidget()
        form = Form()
        form.add("Learn", self.recipe)
        form.add("", self.what)
        form.add("From", self.source)
        form.add("", self._path_row)
        form.add("", self.cases)
        form.add("Hold out", self.kept)
        form.add("Start from", self.init)
        form.add("Size", self.preset)
        form.add("For", row(self.amount, self.amount_unit))
        column(body, bare=True).addLayout(form)
        self.options = Section("Options", body, unfolded=False)
        layout = column(self, bare=True)
        layout.addWidget(self.sentence)
        layout.addWidget(self.start_button)
        layout.addWidget(self.options)

    @property
    def from_layers(self) -> bool:
        """Whether the open layers are learnt from, not a folder."""
        return self.source.currentText() == LAYERS

    @property
    def pairs(self) -> list[Pair]:
        """The open scans to learn from."""
        return self._pairs

    def open_cases(self) -> list[OpenCase]:
        """Give the open scans to learn from as volumes."""
        kept = self._kept_places()
        cases = []
        for place, pair in enumerate(self._pairs):
            scan = layers.volume_of(pair.scan)
            labels = None if pair.labels is None else labels_on(scan, pair.labels)
            cases.append(OpenCase(str(pair.scan.name), scan, labels, place in kept))
        return cases

    def plan(self, folders: Sequence[str]) -> Plan:
        """Give what to train on these folders."""
        recipe, init = self._recipe, self.init.currentText()
        in_minutes = self.amount_unit.currentText() == MINUTES
        amount = self.amount.value()
        return Plan(
            recipe=recipe,
            data=tuple(folders),
            preset=self.preset.currentText(),
            minutes=amount if in_minutes else None,
            steps=None if in_minutes else int(amount),
            init=None if init == SCRATCH else init,
            name=time.strftime(f"{_KIND_WORDS[self._kind]}-%Y%m%d-%H%M%S"),
        )

    def offer_models(self, event: object = None) -> None:
        """List the models that can be started from; the default one is chosen."""
        from spad.checkpoints import zoo

        before = self.init.currentText()
        self._models = [entry for entry in zoo.models() if entry.kind == self._kind]
        names = [*(entry.name for entry in self._models), SCRATCH]
        self.init.blockSignals(True)
        self.init.clear()
        self.init.addItems(names)
        wanted = before if before in names and self._chosen else self._usual_model()
        self.init.setCurrentText(wanted)
        self.init.blockSignals(False)
        self._follow_size()
        self.check()

    def look(self) -> None:
        """Check again if a layer was renamed, hidden or drawn on since, which nothing tells."""
        state = tuple(
            (layer.name, layer.visible, layers.is_labels(layer) and _drawn(layer))
            for layer in self._viewer.layers
        )
        if state != self._state:
            self._state = state
            self.check()

    def check(self, event: object = None) -> None:
        """Look at the open layers and the fields: may it start, and what would happen?"""
        self._pairs = self._find_pairs()
        said = (
            *((str(pair.scan.name), str(getattr(pair.labels, "name", ""))) for pair in self._pairs),
        )
        if said != self._said:
            self._said = said
            self._offer_kept()
            self.offer_models()
            return
        why = self._why_not()
        self._path_row.setVisible(not self.from_layers)
        self.kept.setEnabled(self.from_layers and len(self._pairs) > 1)
        self.start_button.setText(self._verb())
        self.start_button.setEnabled(not why)
        self.start_button.setToolTip(why)
        _write(self.sentence, why or self._plan_words())
        _write(self.cases, "" if why or not self.from_layers else self._cases_words())
        self.cases.setVisible(bool(self.cases.text()))

    @property
    def _recipe(self) -> str:
        return str(self.recipe.currentData())

    @property
    def _kind(self) -> str:
        return training_jobs.KINDS[self._recipe]

    @property
    def _tunes(self) -> bool:
        """Whether the recipe starts from a model, if nobody says otherwise."""
        return self._recipe == training_jobs.FINE_TUNE

    def _recipe_chosen(self, index: int = 0) -> None:
        self.what.setText(training_jobs.RECIPES[self._recipe][1])
        self._chosen = False
        self.offer_models()

    def _init_chosen(self, index: int = 0) -> None:
        self._chosen = True

    def _usual_model(self) -> str:
        """Name the weights to start from, if nobody says otherwise."""
        from spad.checkpoints import zoo

        if not self._tunes:
            return SCRATCH
        modality = _modality(self._pairs[0].scan) if self._pairs else None
        try:
            return zoo.default(self._kind, modality).name
        except SpadError:
            return SCRATCH

    def _follow_size(self, index: int = 0) -> None:
        """Take the size of the model that is started from: weights of another do not fit."""
        chosen = [entry for entry in self._models if entry.name == self.init.currentText()]
        size = str(chosen[0].card.provenance.get("preset")) if chosen else ""
        if size in training_jobs.PRESETS:
            self.preset.setCurrentText(size)

    def _find_pairs(self) -> list[Pair]:
        scans = [layer for layer in self._viewer.layers if is_scan(layer)]
        if self._kind != "segmenter":
            return [Pair(scan) for scan in scans]
        marks = [layer for layer in self._viewer.layers if fits_as_organs(layer) and _drawn(layer)]
        found = [(scan, _best([m for m in marks if _lies_on(m, scan)])) for scan in scans]
        return [Pair(scan, labels) for scan, labels in found if labels is not None]

    def _offer_kept(self) -> None:
        names = [str(pair.scan.name) for pair in self._pairs]
        self.kept.blockSignals(True)
        self.kept.clear()
        usual = held_out(len(names))
        if usual:
            self.kept.addItem(listed([names[place] for place in usual], "scans"), usual)
        for place, name in enumerate(names):
            if (place,) != usual and len(names) > 1:
                self.kept.addItem(name, (place,))
        self.kept.addItem(_NOBODY, ())
        self.kept.blockSignals(False)

    def _kept_places(self) -> tuple[int, ...]:
        return tuple(self.kept.currentData() or ())

    def _why_not(self) -> str:
        if self.busy:
            return self.busy
        if not self.from_layers:
            path = self.folder.text().strip()
            if not path:
                return "Choose a folder with scans first."
            return "" if Path(path).is_dir() else f"{path} is no folder."
        if not self._pairs:
            return self._missing()
        unclear = [pair.scan.name for pair in self._pairs if _modality(pair.scan) is None]
        if unclear:
            return f"Say first whether {unclear[0]} is CT or MR, in the Segment dock."
        return ""

    def _missing(self) -> str:
        if self._kind != "segmenter":
            return "Open a scan first."
        if not any(is_scan(layer) for layer in self._viewer.layers):
            return (
                "Open a few scans and labels on them (five are enough to try), or choose a folder "
                "under Options."
            )
        return (
            "None of the open scans has labels on its voxels: open their labels files, draw a "
            "Labels layer, or segment them and correct the result."
        )

    def _verb(self) -> str:
        what = "Fine-tune on" if self._tunes else "Train on"
        if not self.from_layers:
            return f"{what} this folder"
        count = len(self._pairs)
        return f"{what} this scan" if count == 1 else f"{what} these {count or ''} scans"

    def _plan_words(self) -> str:
        """Say the plan in one sentence."""
        start = self.init.currentText()
        unit = self.amount_unit.currentText().removesuffix("s" if self.amount.value() == 1 else "")
        where = {"cuda": " on the GPU", "cpu": " on the CPU"}.get(self.device, "")
        how = f"for {self.amount.value():.0f} {unit}{where}, starting from {start}"
        if not self.from_layers:
            return f"Learns from {Path(self.folder.text().strip()).name} {how}."
        kept = self._kept_places()
        names = [str(pair.scan.name) for pair in self._pairs]
        learnt = [name for place, name in enumerate(names) if place not in kept]
        what = f"{listed(self._label_words(), 'labels')} " if self._kind == "segmenter" else ""
        return f"Learns {what}from {listed(learnt, 'scans')} {how}{self._kept_words(names, kept)}"

    def _kept_words(self, names: list[str], kept: tuple[int, ...]) -> str:
        if kept:
            held = listed([names[place] for place in kept], "scans")
            verb = "is" if len(kept) == 1 else "are"
            return f"; {held} {verb} held out to judge the result."
        if len(names) == 1:
            return "; with labels on a second scan, that would be held out to judge the result."
        return "; no scan is held out to judge the result."

    def _label_words(self) -> list[str]:
        found: dict[str, None] = {}
        for pair in self._pairs:
            found |= dict.fromkeys(map(readable, names_of(pair.labels).values()))
        return list(found) or ["the labels"]

    def _cases_words(self) -> str:
        words = [
            str(pair.scan.name)
            if pair.labels is None
            else f"{pair.scan.name} with {pair.labels.name}"
            for pair in self._pairs
        ]
        return f"{len(words)} scan{'s' if len(words) > 1 else ''}: {'; '.join(words)}"

    def _browse(self) -> None:
        path = QFileDialog.getExistingDirectory(self, "A folder of scans", self.folder.text())
        if path:
            self.folder.setText(path)


_KIND_WORDS = {"segmenter": "organs", "tokenizer": "tokenizer", "mim": "mim"}


def _best(marks: list[Any]) -> Any:
    """Choose among labels on one scan: a person's own, of these what is shown, else the last."""
    own = [mark for mark in marks if layers.role_of(mark) != "organs"] or marks
    shown = [mark for mark in own if mark.visible] or own
    return shown[-1] if shown else None


def _lies_on(mark: Any, scan: Any) -> bool:
    """Whether labels lie on a scan; most do not, which their shapes tell quickly."""
    return mark.data.shape[-3:] == scan.data.shape[-3:] and on_same_grid(mark, scan)


def _drawn(layer: Any) -> bool:
    """Whether a layer has any label; the whole of it is searched only where a part has none."""
    thin = (slice(None, None, _THIN),) * 3
    return bool(layer.data[(..., *thin)].any()) or bool(layer.data.any())


def _modality(layer: Any) -> str | None:
    volume = layers.scan_volume(layer)
    return None if volume is None else volume.modality


def _write(label: Any, words: str) -> None:
    """Change a text only where it changes: what a person has selected of it stays."""
    if label.text() != words:
        label.setText(words)
