"""What the docks that run a model share: scan, modality, model, run, cancel, errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from qtpy.QtWidgets import QVBoxLayout

from napari_spad import jobs, layers, notify
from napari_spad.widgets.choosers import ModalityChooser, ModelChooser, ScanChooser
from napari_spad.widgets.dock import Dock
from napari_spad.widgets.forms import Form, column, text
from napari_spad.widgets.notices import follow, notices
from napari_spad.widgets.run_row import RunRow

if TYPE_CHECKING:
    from napari import Viewer
    from napari.layers import Layer

    from spad.volumes.volume import Volume
    from spad.worker.messages import Request


class JobDock(Dock):
    """A dock that runs one model on one scan in the worker.

    A subclass says which `kind` of model and which `verb`, makes the request, adds its own
    options and shows the result.
    """

    kind: ClassVar[str]
    verb: ClassVar[str]
    title: ClassVar[str]
    takes_colours: ClassVar[bool] = False

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__()
        self._viewer = napari_viewer
        self._job: jobs.RunningJob | None = None
        self.scans = ScanChooser(napari_viewer, colours=self.takes_colours)
        self.modality = ModalityChooser()
        self.modality_reason = text(faint=True)
        self.models = ModelChooser(self.kind)
        self.about = text(faint=True)
        self.run_row = RunRow(self.verb)
        layout = column(self)
        form = Form()
        form.add("Scan", self.scans)
        form.add("Modality", self.modality)
        form.add("", self.modality_reason)
        form.add("Model", self.models)
        form.add("", self.about)
        self.add_options(form)
        layout.addLayout(form)
        layout.addWidget(self.run_row)
        self.add_results(layout)
        self._connect()
        self._show()

    def add_options(self, form: Form) -> None:
        """Add rows of its own to the form."""

    def add_results(self, layout: QVBoxLayout) -> None:
        """Add what shows the results below the Run button."""

    def request(self, volume: Volume, model: str) -> Request:
        """Make the request from what the dock says."""
        raise AssertionError("a dock makes its own request")

    def show_result(self, value: Any, layer: Layer) -> str:
        """Show an answer for the scan that it was asked for; give one line for the status."""
        raise AssertionError("a dock shows its own result")

    def show_scan(self, layer: Layer | None) -> None:
        """Take note of another scan being chosen."""

    @property
    def working(self) -> bool:
        return self._job is not None

    def run(self) -> None:
        """Start the job."""
        volume, layer, entry = self.scans.volume, self.scans.layer, self.models.entry
        if volume is None or entry is None or self._job is not None:
            return
        request = self.request(volume, str(entry.path))
        self.begin(request, layer, lambda value: self.show_result(value, layer))

    def begin(self, request: Request, layer: Layer, show: Callable[[Any], str]) -> None:
        """Start a job whose progress and end the Run row shows.

        Args:
            request: the work.
            layer: the scan in question.
            show: shows the answer and gives one line for the status.
        """
        job = jobs.run(self, request, f"{self.title} {layer.name}")
        job.progressed.connect(self.run_row.show_progress)
        job.succeeded.connect(lambda value: self._succeeded(value, layer, show))
        job.failed.connect(self._failed)
        job.died.connect(self._died)
        job.cancelled.connect(lambda: self._ended("Cancelled."))
        self._job = job
        self.run_row.set_running(True, "Starting the worker ...")
        job.start()

    def cancel(self) -> None:
        """Cancel the job."""
        if self._job is not None:
            self._job.cancel()

    def _connect(self) -> None:
        self.run_row.run.connect(self.run)
        self.run_row.cancel.connect(self.cancel)
        self.scans.chosen.connect(self._show)
        self.models.currentIndexChanged.connect(self._model_chosen)
        follow(self, notices.scan_changed, self._scan_changed)
        follow(self, notices.models_changed, self._show)

    def _scan_changed(self, uuid: str) -> None:
        volume = self.scans.volume
        if volume is not None and volume.source.uuid == uuid:
            self._show()

    def _show(self, layer: object = None) -> None:
        volume = self.scans.volume
        self.modality.show_scan(volume)
        self.modality_reason.setText(self.modality.reason)
        self.modality_reason.setVisible(bool(self.modality.reason))
        self.models.offer(None if volume is None else volume.modality)
        self._model_chosen()
        self.show_scan(self.scans.layer)

    def _model_chosen(self, index: int = 0) -> None:
        self.about.setText(self.models.about)
        self.about.setToolTip(self.models.details)
        self.run_row.set_ready(self.why_not())

    def why_not(self) -> str:
        """Say why it cannot run now, or nothing."""
        volume = self.scans.volume
        if volume is None:
            return "Open a scan first: Scan dock, File > Open, or File > Open Sample > SPAD."
        if volume.modality is None and not volume.rgb:
            return "Say first whether this is CT or MR."
        if self.models.entry is None:
            what = "scans in colours" if volume.rgb else volume.modality
            return f"There is no {self.kind} model for {what}; train or import one."
        return ""

    def _succeeded(self, value: Any, layer: Layer, show: Callable[[Any], str]) -> None:
        job = self._job
        words = show(value)
        if layer.ndim > 3:
            words += " Of the series, the first time was taken."
        if job is not None:
            self.run_row.show_use(use_words(report_of(value), job.seconds, job.memory_mb))
        self._ended(words)

    def _failed(self, sentence: str) -> None:
        self._ended(sentence)
        notify.error(sentence)

    def _died(self, sentence: str) -> None:
        """Offer to do the job again with the worker that takes the place of the dead one."""
        self._ended(sentence)
        notify.offer(sentence, f"{self.verb} again", self._run_again)

    def _run_again(self) -> None:
        if self._is_closed:
            notify.error("That dock was closed meanwhile; open it again and press its button.")
            return
        self.run()

    def _ended(self, words: str) -> None:
        self._job = None
        self.run_row.set_running(False, words)
        self.end_if_closed()


def report_of(value: Any) -> dict[str, Any]:
    """Give the figures of a job's answer."""
    labels = getattr(value, "labels", None)
    return getattr(value, "report", None) or getattr(labels, "report", None) or {}


def use_words(report: dict[str, Any], seconds: float, memory_mb: float) -> str:
    """Say where a job ran, for how long, with how much memory and what was given up for that.

    Args:
        report: the figures of its answer.
        seconds: from the click to the answer.
        memory_mb: what the worker holds now.
    """
    place = {"cuda": "the GPU", "cpu": "the CPU"}.get(str(report.get("device")), "the CPU")
    words = f"On {place}: {seconds:.1f} s; the worker holds {memory_mb:.0f} MB."
    steps = report.get("stepped_down") or []
    if steps:
        words += f" For want of memory it took {', then '.join(steps)}."
    return words


def add_layer(viewer: Viewer, data: layers.LayerData) -> Any:
    """Add a layer data tuple to the viewer and give the layer."""
    array, kwargs, kind = data
    return (
        viewer.add_labels(array, **kwargs)
        if kind == "labels"
        else viewer.add_image(array, **kwargs)
    )
