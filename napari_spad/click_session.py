"""A session of clicks on a scan: objects in a labels layer, and answers from the worker."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_spad import jobs, layers
from napari_spad.click_answers import ClickAnswers
from napari_spad.click_objects import ClickObjects, GoingOn
from napari_spad.click_signals import ClickSignals
from napari_spad.looking_ahead import encode
from napari_spad.organ_layers import itself
from spad.errors import SpadError
from spad.prompts.part import Part, Slices
from spad.prompts.prompt import Prompt
from spad.prompts.session import Object
from spad.volumes.colors import readable
from spad.worker.messages import AutomaticOrgan, Click, Doubts

if TYPE_CHECKING:
    from qtpy.QtWidgets import QWidget

    from spad.checkpoints.zoo import Entry
    from spad.volumes.volume import Volume


class ClickSession(ClickSignals):
    """Objects of one scan (one time of it) in one labels layer, found by clicks.

    Args:
        dock: the widget whose window the worker lives with.
        scan: the layer of the scan.
        labels: a layer on the same grid.
        entry: the clicker.
        phase: which time of a series.
        going_on: objects and log of an earlier session, whose labels the layer holds.
    """

    def __init__(
        self,
        dock: QWidget,
        scan: Any,
        labels: Any,
        entry: Entry,
        phase: int = 0,
        going_on: GoingOn | None = None,
    ) -> None:
        # without a parent: it is closed by whoever holds it, before Qt takes the dock apart
        super().__init__()
        self._dock, self.scan, self.entry, self.phase = dock, itself(scan), entry, phase
        volume = layers.scan_volume(scan)
        assert volume is not None
        self.volume: Volume = volume
        self._objects = ClickObjects(self, labels, volume, entry, phase, going_on)
        self.layer, self.turned = self._objects.layer, self._objects.turned
        self.history, self.session = self._objects.history, self._objects.session
        self.answers = ClickAnswers(self._objects, self, self._click)
        self.features_ready = False
        self._ahead: jobs.RunningJob | None = None
        self._small: list[jobs.RunningJob] = []

    @property
    def objects(self) -> Mapping[str, Object]:
        """By name, in the order in which they were begun."""
        return self._objects.by_name

    @property
    def log(self) -> list[dict[str, Any]]:
        """The steps that took effect."""
        return self.session.log

    @property
    def active(self) -> str:
        """The name of the object that prompts go to; "" for none."""
        return self._objects.active

    @property
    def busy(self) -> bool:
        """Whether an answer is awaited."""
        return self.answers.busy

    @property
    def locked(self) -> set[str]:
        """Names of locked objects."""
        return self._objects.locked

    def prompts_of(self, name: str) -> tuple[Prompt, ...]:
        """Give all prompts of an object as a person left them, answered yet or not."""
        return self.answers.prompts_of(name)

    def ml(self, name: str) -> float:
        """Give an object's volume."""
        return self._objects.ml(name)

    # what a person does

    def choose(self, name: str) -> None:
        """Make an object the active one, and begin it if there is none of that name.

        Raises:
            SpadError: no number is left for it.
        """
        self._objects.choose(name)

    def go_on_with(self, name: str) -> None:
        """Make an object of an earlier session the active one again, if it is there."""
        self._objects.active = name if name in self.objects else ""

    def give(self, prompt: Prompt) -> None:
        """Add a prompt to the active object and have it found anew.

        Raises:
            SpadError: it cannot be used; nothing has changed.
        """
        self.check_scan()
        self.answers.give(self._objects.editable(), prompt)

    def change_prompts(self, name: str, prompts: Sequence[Prompt]) -> None:
        """Find an object anew with other prompts: one deleted, one dragged elsewhere.

        Raises:
            SpadError: one lies outside the scan, or the object is locked.
        """
        self.check_scan()
        self._objects.editable(name)
        for one in prompts:
            one.check_inside(self.turned.shape)
        self.answers.change(name, prompts)

    def start_automatic(self) -> None:
        """Start the active object from the organ of its name that the model finds by itself.

        Raises:
            SpadError: the object is locked.
        """
        self.check_scan()
        name = self._objects.editable()
        request = AutomaticOrgan(**self._common, name=name)

        thing = self.objects[name]

        def found(part: Part | None) -> None:
            if part is None:
                self.refused.emit(
                    f"The model finds no {readable(name)} in this scan by itself; click on it."
                )
            elif self.objects.get(name) is not thing or name in self.locked:
                self.refused.emit(
                    f"{readable(name).capitalize()} was changed or locked meanwhile, so the "
                    "automatic result was not put in its place; ask for it once more."
                )
            else:
                kept = self._objects.start_with(name, part, "the automatic result")
                self.said.emit(
                    f"{readable(name).capitalize()} is the automatic one. {kept}".strip()
                )

        self.said.emit(f"Fetching the automatic {readable(name)} ...")
        self._ask(request, found)

    def erase(self) -> None:
        """Take all voxels and prompts of the active object away, as one step.

        Raises:
            SpadError: the object is locked.
        """
        name = self._objects.editable()
        self.answers.forget(name)
        kept = self._objects.start_with(name, None, "nothing")
        self.said.emit(
            f"{readable(name).capitalize()} is empty; Undo brings it back. {kept}".strip()
        )

    def find_doubts(self, name: str | None) -> None:
        """Ask for the doubtful places of an object, or of the whole result.

        Args:
            name: the object, or None.
        """
        self.check_scan()
        part = None if name is None else self.session.part(name)
        prompts = () if name is None else self.objects[name].prompts
        request = Doubts(**self._common, part=part, prompts=prompts, name=name)
        self._ask(request, self.doubted.emit)

    def edit(self, text: str, label: int, region: Slices, mask: np.ndarray) -> None:
        """Leave of a label what a mask says, in a box of the layer's last three axes."""
        self._objects.edit(text, label, region, mask)

    def swap(self, one: str, other: str) -> None:
        """Give each of two objects the voxels and the prompts of the other, as one step.

        Raises:
            SpadError: one of them is locked.
        """
        for name in (one, other):
            self._objects.begin(name)
            self._objects.editable(name)
            self.answers.forget(name)
        self._objects.swap(one, other)

    def undo(self) -> None:
        """Take the prompts back that are not answered yet, else the last step."""
        if self.answers.take_back():
            self.said.emit("What was not answered yet is taken back.")
        elif what := self.history.undo_text:
            self.history.undo()
            self.said.emit(f"Undone: {what}.")

    def redo(self) -> None:
        """Do the step again that was undone last."""
        if what := self.history.redo_text:
            self.history.redo()
            self.said.emit(f"Done again: {what}.")

    def check_scan(self) -> None:
        """Refuse to go on where scan or labels are no longer those that the session began on.

        Raises:
            SpadError: the scan's voxels or axes are others, or the labels lie on another grid.
        """
        now = layers.scan_volume(self.scan)
        same = now is not None and (
            now.array is self.volume.array
            or (
                now.array.shape == self.volume.array.shape
                and now.array.__array_interface__ == self.volume.array.__array_interface__
            )
        )
        if not same:
            raise SpadError(
                f"The scan {self.scan.name!r} has other voxels or another depth axis than when "
                "the session began; its labels and prompts stay: switch Click off and on to begin "
                "a new session on what is there now."
            )
        if not self._objects.fits:
            raise SpadError(
                f"The labels {self.layer.name!r} have {self.layer.data.shape[-3:]} voxels now, "
                f"and the scan has {self.scan.data.shape[-3:]}; put labels on the scan's grid "
                "back, or choose other ones."
            )

    def close(self) -> None:
        """Be a session no more; the labels stay as they are."""
        self.answers.close()
        if self._ahead is not None:
            self._ahead.overtake()
        small, self._small = self._small, []
        for job in small:
            job.overtake()
        self.previewed.emit(None)
        self.blockSignals(True)
        self._objects.close()

    # what is asked of the worker

    def look_ahead(self, near: Sequence[float] | np.ndarray) -> None:
        """Have the worker see the scan before the first click, unless it does already.

        Args:
            near: where a person looks, an index of the layer.
        """
        if self._ahead is not None or self.features_ready:
            return
        job = jobs.run(self._dock, encode(self.volume, self.entry, self.phase, near), "")
        job.progressed.connect(lambda _, words: self.looked_ahead.emit(words))
        job.succeeded.connect(self._known)
        job.failed.connect(self._not_known)
        job.died.connect(self._not_known)
        job.cancelled.connect(lambda: self._not_known(""))
        self._ahead = job
        job.start()

    def _known(self, report: dict[str, Any]) -> None:
        self._ahead = None
        self.features_ready = bool(report["windows"])
        self.looked_ahead.emit("")
        self.changed.emit()

    def _not_known(self, sentence: str) -> None:
        self._ahead = None
        self.looked_ahead.emit("")
        if sentence:
            self.refused.emit(sentence)

    @property
    def _common(self) -> dict[str, Any]:
        return {
            "volume": self.volume,
            "model": str(self.entry.path),
            "modality": self.volume.modality,
            "device": "auto",
            "phase": self.phase,
        }

    def _click(self, thing: Object, previous: Part | None, features: bool) -> jobs.RunningJob:
        request = Click(
            **self._common,
            name=thing.name,
            prompts=thing.prompts,
            previous=previous,
            by_prompts=thing.by_prompts,
            features=features,
        )
        return jobs.run(self._dock, request, "")

    def _ask(self, request: Any, found: Callable[[Any], None]) -> None:
        """Ask for something small; once the session is closed nobody hears of it."""
        job = jobs.run(self._dock, request, "")

        def end(tell: Callable[[Any], None], *told: Any) -> None:
            if job in self._small:
                self._small.remove(job)
                tell(*told)

        job.succeeded.connect(lambda value: end(found, value))
        job.failed.connect(lambda sentence: end(self.refused.emit, sentence))
        job.died.connect(lambda sentence: end(self.refused.emit, sentence))
        job.cancelled.connect(lambda: end(lambda _: None, ""))
        self._small.append(job)
        job.start()
