"""The Tokenizer dock: what the visual tokenizer keeps of a scan, and which codes it uses."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from qtpy.QtWidgets import QPushButton, QVBoxLayout, QWidget

from napari_spad import grids, jobs, layers, notify
from napari_spad.colors import code_colormap
from napari_spad.tokens import TokenMap, token_under
from napari_spad.widgets import page
from napari_spad.widgets.choosers import ModelChooser
from napari_spad.widgets.codebook import Codebook, TokenReadout, size_words
from napari_spad.widgets.compare import Compare
from napari_spad.widgets.decode import Decoded, DecodeSliders
from napari_spad.widgets.errors import Errors
from napari_spad.widgets.figures import Figures, tokenizer_rows
from napari_spad.widgets.forms import Section, column, line, text
from napari_spad.widgets.job_dock import JobDock, add_layer
from napari_spad.widgets.notices import follow
from napari_spad.widgets.organs import Clicks
from spad.errors import SpadError
from spad.volumes.volume import Volume
from spad.worker.messages import DecodeAlone, Tokenize

if TYPE_CHECKING:
    from napari import Viewer
    from napari.layers import Layer

    from spad.worker.messages import Request, Tokenization

_AS_TOKENIZED = "as tokenized"
_LIGHT_GAMMA = 0.6
"""Lets tokens be seen in which a code has but a part of its largest probability."""


class TokenizerDock(JobDock):
    """Reconstructs a scan from its tokens: reconstruction, error, codes, their use and meaning."""

    kind = "tokenizer"
    verb = "Tokenize"
    title = "Tokenizing"
    takes_colours: ClassVar[bool] = True

    def __init__(self, napari_viewer: Viewer) -> None:
        self.figures = Figures("Figures appear here.")
        self.codebook = Codebook()
        self.usage = self.codebook.usage
        self.compare = Compare(napari_viewer, "rebuilt")
        self.errors = Errors(napari_viewer)
        self.sliders = DecodeSliders()
        self.seconds = ModelChooser(self.kind)
        self.second_button = QPushButton("Tokenize with this one too")
        self.second_words = text(faint=True)
        self.entropy_button = QPushButton("Show entropy over space")
        self.entropy_button.setToolTip("How undecided each token is between its codes, in nats")
        self.export_button = QPushButton("Export page ...")
        self._shown: _Shown | None = None
        self._second: Tokenization | None = None
        self._pictures: dict[tuple[str, int, str | None, bool], np.ndarray] = {}
        self._under: tuple[int, int, int] | None = None
        super().__init__(napari_viewer)
        self.codebook.picked.connect(self.choose_code)
        self.sliders.slice_decoded.connect(self._slice_decoded)
        self.sliders.decoded.connect(self._decoded)
        self.sliders.rested.connect(self._as_tokenized)
        self.second_button.clicked.connect(self.run_second)
        self.entropy_button.clicked.connect(self.show_entropy)
        self.export_button.clicked.connect(self._ask_and_export)
        clicks = Clicks(napari_viewer, self._clicked)
        self.destroyed.connect(clicks.stop)
        follow(self, napari_viewer.cursor.events.position, self._follow_cursor)
        follow(self, napari_viewer.dims.events.point, self._slice_changed)
        follow(self, napari_viewer.dims.events.order, self._slice_changed)
        self._enable()

    def add_results(self, layout: QVBoxLayout) -> None:
        layout.addWidget(line())
        layout.addWidget(self.compare)
        self.sections = {
            "Figures": Section("Figures", self.figures),
            "Codes": Section("Codes", self.codebook),
            "Usage": Section(
                "Usage", _stacked(self.usage, self.entropy_button, self.codebook.dead)
            ),
            "Error": Section("Error", self.errors),
            "Decode": Section("Decode", self.sliders, unfolded=False),
            "Compare": Section(
                "Compare with another tokenizer",
                _stacked(self.seconds, self.second_button, self.second_words),
                unfolded=False,
            ),
            "Export": Section(
                "Export",
                _stacked(
                    text("This page as a PNG, and all its figures as JSON beside it.", faint=True),
                    self.export_button,
                ),
                unfolded=False,
            ),
        }
        for section in self.sections.values():
            layout.addWidget(section)
        layout.addStretch(1)

    def request(self, volume: Volume, model: str) -> Request:
        return Tokenize(volume, model=model)

    def show_scan(self, layer: Layer | None) -> None:
        self._offer_seconds()

    def _offer_seconds(self) -> None:
        """Offer all other tokenizers for a comparison."""
        volume, entry = self.scans.volume, self.models.entry
        shown = "" if entry is None else entry.name
        self.seconds.offer(None if volume is None else volume.modality, without=shown)
        self._enable()

    def _model_chosen(self, index: int = 0) -> None:
        super()._model_chosen(index)
        self._offer_seconds()

    def show_result(self, value: Any, layer: Layer) -> str:
        volume = layers.scan_volume(layer, colours=True)
        entry = self.models.entry
        assert volume is not None
        assert entry is not None
        tokens = TokenMap(value)
        added = self._add_layers(tokens, layer)
        model = Decoded(volume, value, str(entry.path))
        self._shown = _Shown(layer, tokens, model, *added)
        self._second = None
        self._viewer.layers.selection.active = added[0]
        self.codebook.show_tokens(tokens)
        self.figures.show_rows(tokenizer_rows(value.report, len(value.usage)))
        self.sliders.show_source(model)
        self._show_errors(value.error, {_AS_TOKENIZED: value.report["slice_error"]})
        self.compare.compare(
            added[0],
            fields=[layer, *added[:3]],
            overlay=[layer, added[0]],
            side_by_side=True,
        )
        self._slice_changed()
        self._enable()
        self._ask_for_pictures()
        return (
            "Top row: scan, reconstruction. Bottom row: error, codes. "
            "Next: click a voxel to see its code."
        )

    # Codes

    def choose_code(self, code: int) -> None:
        """Show a code and light up the tokens where it occurs."""
        shown = self._shown
        if shown is None:
            return
        self.codebook.choose(code)
        values = shown.tokens.map_of(code)
        limits = light_limits(values, len(shown.tokens.usage))
        if shown.light is None or shown.light not in self._viewer.layers:
            shown.light = self._add_light(shown, values, limits)
        else:
            shown.light.data = values
            shown.light.contrast_limits = limits
        self.compare.put(shown.light, [shown.codes, shown.entropy, shown.error])

    def show_entropy(self) -> None:
        """Show the entropy of the tokens over the scan, or in the place of the codes."""
        shown = self._shown
        if shown is not None and shown.entropy in self._viewer.layers:
            others = [shown.codes] if shown.light is None else [shown.light, shown.codes]
            self.compare.put(shown.entropy, others)

    def _add_layers(self, tokens: TokenMap, layer: Layer) -> list[Any]:
        """Add reconstruction, error, codes and entropy."""
        value, name, grid = tokens.answer, layer.name, layers.grid_of_layer(layer)
        look: dict[str, Any] = {}
        if not layer.rgb:
            look["contrast_limits"] = tuple(layer.contrast_limits)
        most = float(np.log(len(value.usage)))
        made = [
            layers.to_layer(
                value.reconstruction, f"{name} - reconstruction", role="reconstruction", **look
            ),
            layers.to_layer(value.error, f"{name} - error", **error_look(value.error)),
            layers.to_layer(
                value.codes,
                f"{name} - codes",
                role="codes",
                on=grid,
                colormap=code_colormap(len(value.usage)),
                opacity=1.0,
                visible=False,
            ),
            layers.to_layer(
                value.entropy,
                f"{name} - entropy",
                role="entropy",
                on=grid,
                colormap="viridis",
                opacity=0.7,
                interpolation2d="nearest",
                contrast_limits=(min(float(value.entropy.array.min()), 0.999 * most), most),
                visible=False,
            ),
        ]
        return [add_layer(self._viewer, data) for data in made]

    def _add_light(self, shown: _Shown, values: np.ndarray, limits: tuple[float, float]) -> Any:
        """Add the layer in which a code lights up."""
        codes = shown.codes
        selected = set(self._viewer.layers.selection)
        light = self._viewer.add_image(
            values,
            name=f"{shown.scan.name} - where the code is",
            scale=codes.scale,
            translate=codes.translate,
            units=codes.units,
            axis_labels=codes.axis_labels,
            metadata={grids.KEY: {**codes.metadata[grids.KEY], "role": "code"}},
            colormap="bop orange",
            blending="additive",
            opacity=0.7,
            gamma=_LIGHT_GAMMA,
            interpolation2d="nearest",
            contrast_limits=limits,
        )
        self._viewer.layers.selection = selected
        return light

    def _follow_cursor(self, event: Any = None) -> None:
        index = None
        if self._shown is not None and self._viewer.dims.ndisplay == 2:
            index = self._token_at(list(self._viewer.cursor.position))
        if index == self._under:
            return
        self._under = index
        self._show_token(index)

    def _token_at(self, position: list[float]) -> tuple[int, int, int] | None:
        dims, shown = self._viewer.dims, self._shown
        if shown is None or len(position) != dims.ndim or shown.codes not in self._viewer.layers:
            return None
        for axis in dims.not_displayed:
            position[axis] = dims.point[axis]
        return token_under(shown.codes, position)

    def _show_token(self, index: tuple[int, int, int] | None) -> None:
        readout: TokenReadout = self.codebook.readout
        shown = self._shown
        if shown is None:
            return
        token = None if index is None else shown.tokens.token(index)
        readout.show_token(token, size_words(shown.codes, shown.scan), len(shown.tokens.usage))

    def _clicked(self, event: Any) -> None:
        """Choose the likeliest code of the token under a click."""
        if self._shown is None or self._viewer.dims.ndisplay == 3 or not self.isVisible():
            return
        index = self._token_at(list(event.position))
        if index is not None:
            self._show_token(index)
            self.choose_code(self._shown.tokens.token(index).codes[0])

    def _ask_for_pictures(self) -> None:
        """Have every code decoded alone, once per model and kind of scan."""
        shown = self._shown
        assert shown is not None
        volume, report = shown.source.volume, shown.tokens.answer.report
        key = (shown.source.model, int(report["da"]), volume.modality, volume.rgb)
        if key in self._pictures:
            self.codebook.show_pictures(self._pictures[key])
            return

        def came(tiles: np.ndarray) -> None:
            self._pictures[key] = tiles
            if self._shown is shown:
                self.codebook.show_pictures(tiles)

        job = jobs.run(self, DecodeAlone(*key), "")
        job.succeeded.connect(came)
        job.failed.connect(self.run_row.status.setText)
        shown.pictures = job
        job.start()

    # Error and decoding

    def _show_errors(self, error: Volume, profiles: dict[str, Any]) -> None:
        assert self._shown is not None
        unit = str(self._shown.tokens.answer.report["l1_unit"])
        self.errors.show_errors(self._shown.rebuilt, error, unit, profiles)

    def _slice_changed(self, event: Any = None) -> None:
        if self._shown is not None:
            self.sliders.look_at(self.errors.axis, self.errors.slice_shown)
            self._follow_cursor()

    def _slice_decoded(self, axis: int, index: int, pixels: Any) -> None:
        """Show one slice of what the sliders give, before the others are there."""
        shown = self._shown
        if shown is None:
            return
        if not shown.is_changed:
            shown.rebuilt.data = shown.rebuilt.data.copy()
            shown.is_changed = True
        where: list[Any] = [slice(None)] * 3
        where[axis] = index
        pixels = np.moveaxis(pixels, 0, -1) if shown.rebuilt.rgb else pixels
        shown.rebuilt.data[tuple(where)] = as_type(pixels, shown.rebuilt.data.dtype)
        shown.rebuilt.refresh()

    def _decoded(self, value: Any) -> None:
        """Show what the sliders give."""
        shown = self._shown
        if shown is None:
            return
        shown.is_changed = True
        self._replace(shown, value.reconstruction, value.error)
        own = shown.tokens.answer.report["slice_error"]
        profiles = {_AS_TOKENIZED: own, "decoded now": value.report["slice_error"]}
        self._show_errors(value.error, profiles)

    def _as_tokenized(self) -> None:
        shown = self._shown
        if shown is None or not shown.is_changed:
            return
        answer = shown.tokens.answer
        self._replace(shown, answer.reconstruction, answer.error)
        shown.is_changed = False
        self._show_errors(answer.error, {_AS_TOKENIZED: answer.report["slice_error"]})

    def _replace(self, shown: _Shown, reconstruction: Volume, error: Volume) -> None:
        """Put other voxels into the layers of reconstruction and error."""
        for layer, volume in ((shown.rebuilt, reconstruction), (shown.error, error)):
            if layer in self._viewer.layers:
                layer.data, _, _ = layers.to_layer(volume, layer.name)

    # A second tokenizer

    def run_second(self) -> None:
        """Tokenize the same scan with the other model."""
        shown, entry = self._shown, self.seconds.entry
        if shown is None or entry is None or self._job is not None:
            return
        request = Tokenize(shown.source.volume, model=str(entry.path))
        self.begin(request, shown.scan, lambda value: self._show_second(value, shown))

    def _show_second(self, value: Tokenization, shown: _Shown) -> str:
        self._second = value
        own = shown.tokens.answer.report
        first, second = str(own["model"]), str(value.report["model"])
        name = shown.scan.name
        limits = {} if shown.rebuilt.rgb else {"contrast_limits": shown.rebuilt.contrast_limits}
        look = error_look(value.error) | {"contrast_limits": shown.error.contrast_limits}
        made = (
            layers.to_layer(
                value.reconstruction,
                f"{name} - reconstruction by {second}",
                role="reconstruction",
                **limits,
            ),
            layers.to_layer(value.error, f"{name} - error by {second}", **look),
        )
        rebuilt, error = (add_layer(self._viewer, data) for data in made)
        for layer in (rebuilt, shown.rebuilt):  # the first's stay below, above the second's
            layer.visible = True
        columns = {
            first: tokenizer_rows(own, len(shown.tokens.usage)),
            second: tokenizer_rows(value.report, len(value.usage)),
        }
        self.figures.show_columns(columns)
        profiles = {first: own["slice_error"], second: value.report["slice_error"]}
        self._show_errors(shown.tokens.answer.error, profiles)
        self.compare.compare(
            rebuilt,
            fields=[shown.rebuilt, shown.error, rebuilt, error],
            overlay=[shown.rebuilt, rebuilt],
            side_by_side=True,
            names=(first, second),
        )
        return f"Top row: {first}, its error. Bottom row: {second}, its error."

    # Export

    def _ask_and_export(self) -> None:
        shown = self._shown
        path = None if shown is None else page.ask(self, f"{shown.scan.name} - tokens")
        if path is not None:
            self.export(path)

    def export(self, path: Path) -> None:
        """Write the page as PNG and its figures as JSON; what is wrong is shown in a sentence."""
        shown = self._shown
        if shown is None:
            return
        title = f"{shown.scan.name}: {shown.tokens.answer.report['model']}"
        folded = [one for one in self.sections.values() if not one.unfolded]
        for section in folded:
            section.unfold()
        try:
            parts = list(self.sections.values())
            files = page.export(path, self._viewer, parts, title, self.everything())
            notify.info(f"Exported {files[0]} and {files[1].name}.")
        except SpadError as error:
            notify.error(str(error))
        finally:
            for section in folded:
                section.unfold(False)

    def everything(self) -> dict[str, Any]:
        """Give every figure that the dock shows."""
        shown = self._shown
        if shown is None:
            return {}
        return {
            "scan": shown.scan.name,
            "tokenize": shown.tokens.answer.report,
            "code": self.codebook.chosen,
            "organs": self.errors.table.figures,
            "decoded": self.sliders.report,
            "second": None if self._second is None else self._second.report,
        }

    def _enable(self) -> None:
        ready = self._shown is not None
        for widget in (self.codebook, self.entropy_button, self.export_button):
            widget.setEnabled(ready)
        why = "" if ready else "Tokenize a scan first."
        if self.seconds.entry is None:
            why = "There is no other tokenizer for this scan; train or import one."
        self.second_button.setEnabled(not why)
        self.second_button.setToolTip(why)
        self.second_words.setText(why or "Its figures stand beside the first's.")


class _Shown:
    """What the dock shows now.

    Attributes:
        scan: its layer.
        tokens: its tokens.
        source: what the sliders decode.
        rebuilt: the layer of the reconstruction.
        error: that of the error.
        codes: that of the likeliest codes.
        entropy: that of the entropy.
        light: that in which the chosen code lights up, once one was chosen.
        is_changed: whether the reconstruction is another than the tokens' own.
        pictures: the job that decodes each code alone.
    """

    def __init__(
        self,
        scan: Any,
        tokens: TokenMap,
        source: Decoded,
        rebuilt: Any,
        error: Any,
        codes: Any,
        entropy: Any,
    ) -> None:
        self.scan, self.tokens, self.source = scan, tokens, source
        self.rebuilt, self.error, self.codes, self.entropy = rebuilt, error, codes, entropy
        self.light: Any = None
        self.is_changed = False
        self.pictures: Any = None


def error_look(error: Volume) -> dict[str, Any]:
    """Say how an error map is shown."""
    return {
        "role": "error",
        "colormap": "inferno",
        "contrast_limits": error_limits(error),
        "visible": False,
    }


def error_limits(error: Volume) -> tuple[float, float]:
    """Give contrast limits for an error map: 0 to its 99.5th percentile, in the scan's unit."""
    step = max(1, error.array.size // 1_000_000)
    values = error.values().ravel()[::step]
    values = values[np.isfinite(values)]
    high = float(np.percentile(values, 99.5)) if values.size else 0.0
    return 0.0, high if high > 0 else 1.0


def light_limits(values: np.ndarray, codes: int) -> tuple[float, float]:
    """Give contrast limits for where a code occurs: from its share by chance to its largest."""
    low, high = 1 / codes, float(values.max())
    return (low, high) if high > 1.01 * low else (0.0, max(high, 1e-9))


def as_type(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Bring numbers into a type, rounded where it holds whole ones."""
    return np.rint(values).astype(dtype) if dtype.kind in "iu" else values.astype(dtype)


def _stacked(*widgets: QWidget) -> QWidget:
    body = QWidget()
    layout = column(body, bare=True)
    for widget in widgets:
        layout.addWidget(widget)
    return body
