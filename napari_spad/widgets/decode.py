"""Decoding a scan's tokens otherwise while sliders move: harder, softer, with fewer codes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt, QTimer, Signal
from qtpy.QtWidgets import QLabel, QPushButton, QSlider, QWidget

from napari_spad import jobs
from napari_spad.widgets.forms import Form, column, row, text
from napari_spad.widgets.organs import number
from spad.worker.messages import Decode, DecodeSlice

if TYPE_CHECKING:
    from spad.volumes.volume import Volume
    from spad.worker.messages import Tokenization

_QUIET_MS = 120
_STEPS = 100


@dataclass(frozen=True, eq=False)
class Decoded:
    """What the sliders decode.

    Attributes:
        volume: the scan.
        answer: its tokens.
        model: the tokenizer's file.
    """

    volume: Volume
    answer: Tokenization
    model: str


class DecodeSliders(QWidget):
    """Temperature and top-k; the newest setting wins, and the slice that is shown comes first.

    `slice_decoded` brings (axis, index, pixels), `decoded` a whole `Decoding`, `rested` says that
    the tokens are again as they came.
    """

    slice_decoded = Signal(int, int, object)
    decoded = Signal(object)
    rested = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.temperature_slider = _slider(-_STEPS, _STEPS, 0)
        self.temperature_slider.setToolTip(
            "p becomes p^(1/t): below 1 each token leans to its likeliest code, above 1 to all"
        )
        self.top_k_slider = _slider(0, _STEPS, _STEPS)
        self.top_k_slider.setToolTip("How many codes each token keeps, the likeliest ones")
        self._temperature_words, self._top_k_words = QLabel(), QLabel()
        for label in (self._temperature_words, self._top_k_words):
            label.setMinimumWidth(44)
            label.setAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        self.reset_button = QPushButton("As tokenized")
        self.reset_button.setToolTip("Temperature 1 and all codes")
        self.status = text("Move a slider: the reconstruction follows.", faint=True)
        form = Form()
        for name, slider, words in (
            ("Temperature", self.temperature_slider, self._temperature_words),
            ("Top k", self.top_k_slider, self._top_k_words),
        ):
            line = row(slider, words)
            line.setStretch(0, 1)
            form.add(name, line)
        layout = column(self, bare=True)
        layout.addLayout(form)
        layout.addWidget(self.status)
        layout.addWidget(self.reset_button)
        self.source: Decoded | None = None
        self.report: dict[str, Any] | None = None
        self._where = (0, 0)
        self._job: jobs.RunningJob | None = None
        self._quiet = QTimer(self)
        self._quiet.setSingleShot(True)
        self._quiet.setInterval(_QUIET_MS)
        self._quiet.timeout.connect(self._begin)
        self.temperature_slider.valueChanged.connect(self._moved)
        self.top_k_slider.valueChanged.connect(self._moved)
        self.reset_button.clicked.connect(self.reset)
        self.setEnabled(False)
        self._say()

    @property
    def temperature(self) -> float:
        """From 0.1 to 10; 1 leaves the probabilities alone."""
        return float(10 ** (self.temperature_slider.value() / _STEPS))

    @property
    def top_k(self) -> int | None:
        """How many codes each token keeps; None for all."""
        at = self.top_k_slider.value()
        if self.source is None or at == _STEPS:
            return None
        codes = len(self.source.answer.usage)
        return max(1, round(codes ** (at / _STEPS)))

    @property
    def busy(self) -> bool:
        """Whether something is being decoded, or about to be."""
        return self._quiet.isActive() or self._job is not None

    def show_source(self, source: Decoded | None) -> None:
        """Take other tokens, as they came."""
        self._stop()
        self.source, self.report = source, None
        self._rest()
        self.setEnabled(source is not None)
        self.status.setText("Move a slider: the reconstruction follows.")

    def look_at(self, axis: int, index: int) -> None:
        """Say which slice is shown, along S-I (0), A-P (1) or R-L (2); it is decoded first."""
        self._where = (axis, index)

    def reset(self) -> None:
        """Give the tokens back as they came."""
        self._stop()
        self._rest()
        self.report = None
        self.status.setText("As tokenized.")
        self.rested.emit()

    def _rest(self) -> None:
        for slider, value in ((self.temperature_slider, 0), (self.top_k_slider, _STEPS)):
            slider.blockSignals(True)
            slider.setValue(value)
            slider.blockSignals(False)
        self._say()

    def _say(self) -> None:
        self._temperature_words.setText(f"{self.temperature:.2f}")
        self._top_k_words.setText("all" if self.top_k is None else str(self.top_k))

    def _moved(self, value: int) -> None:
        self._say()
        self._stop()
        if self.temperature == 1 and self.top_k is None:
            self.reset()
        elif self.source is not None:
            self.status.setText("Decoding ...")
            self._quiet.start()

    def _stop(self) -> None:
        self._quiet.stop()
        if self._job is not None:
            job, self._job = self._job, None
            job.leave()

    def _begin(self) -> None:
        """Decode the slice that is shown; then all."""
        if self.source is None:
            return
        axis, index = self._where
        source = self.source
        request = DecodeSlice(
            source.volume,
            source.answer.probabilities,
            source.model,
            self.temperature,
            self.top_k,
            axis=axis,
            index=index,
            limits=tuple(source.answer.report["limits"]),
        )
        job = jobs.run(self, request, "")
        job.succeeded.connect(lambda pixels: self._slice_came(axis, index, pixels))
        self._start(job)

    def _slice_came(self, axis: int, index: int, pixels: Any) -> None:
        self._job = None
        self.slice_decoded.emit(axis, index, pixels)
        source = self.source
        assert source is not None
        request = Decode(
            source.volume,
            source.answer.probabilities,
            source.model,
            self.temperature,
            self.top_k,
        )
        job = jobs.run(self, request, "")
        job.succeeded.connect(self._all_came)
        job.progressed.connect(
            lambda fraction, words: self.status.setText(f"Decoding the other slices: {words}")
        )
        self._start(job)

    def _all_came(self, value: Any) -> None:
        self._job = None
        self.report = value.report
        self.status.setText(self.words())
        self.decoded.emit(value)

    def words(self) -> str:
        """Compare the figures with those of the tokens as they came."""
        if self.report is None or self.source is None:
            return ""
        own, unit = self.source.answer.report, unit_words(self.report["l1_unit"])
        psnr, error = number(self.report["psnr"], 1), number(self.report["l1"], 1)
        was = f"as tokenized {number(own['psnr'], 1)} dB, {number(own['l1'], 1)}{unit}"
        return f"PSNR {psnr} dB, mean error {error}{unit} ({was})."

    def _start(self, job: jobs.RunningJob) -> None:
        job.failed.connect(self._ended)
        job.died.connect(self._ended)
        job.cancelled.connect(lambda: self._ended("Cancelled."))
        self._job = job
        job.start()

    def _ended(self, sentence: str) -> None:
        self._job = None
        self.status.setText(sentence)


def unit_words(unit: str | None) -> str:
    """Write a unit behind a number: " HU", or nothing where the scan's numbers have none."""
    return "" if unit in (None, "", "1") else f" {unit}"


def _slider(low: int, high: int, value: int) -> QSlider:
    slider = QSlider(Qt.Orientation.Horizontal)
    slider.setRange(low, high)
    slider.setValue(value)
    return slider
