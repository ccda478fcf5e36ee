"""A session of clicks on a scan: objects in a labels layer, answers from the worker, one history.

Strokes, edits and clicks are steps of one history (`napari_spad.history`); the session's log
(`spad.prompts.session`) follows it step by step, so that it can be played again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject, Signal

from napari_spad import jobs, layers, locks
from napari_spad.held_session import HeldSession
from napari_spad.history import history_of
from napari_spad.naming import name_label
from napari_spad.organ_layers import itself, names_of
from napari_spad.turned import Turned
from spad.errors import SpadError
from spad.prompts.part import Part, Slices, part_of
from spad.prompts.prompt import Prompt
from spad.prompts.session import Object, covering, merged, voxels_entry
from spad.volumes.axes import from_canonical
from spad.volumes.colors import readable
from spad.worker.messages import AutomaticOrgan, Click, Clicked, Doubts, Encode

if TYPE_CHECKING:
    from qtpy.QtWidgets import QWidget

    from spad.checkpoints.zoo import Entry
    from spad.volumes.volume import Volume

MOST_PAINTED = 5000
"""Voxels of a stroke that the model is told of; more are thinned out evenly."""
Things = dict[str, Object | None]


class ClickSession(QObject):
    """Objects of one scan (one time of it) in one labels layer.

    Args:
        dock: the widget whose window the worker lives with.
        scan: the layer of the scan.
        labels: a layer on the same grid.
        entry: the clicker.
        phase: which time of a series.
        going_on: objects and log of an earlier session, whose labels the layer holds.
    """

    changed = Signal()
    """Objects, prompts, voxels, the active object or what is under way has changed."""
    logged = Signal()
    """The log has another step, or an object another name."""
    said = Signal(str)
    refused = Signal(str)
    previewed = Signal(object)
    """A first answer: (label, part); None once it is replaced."""
    answered = Signal(float, float)
    """A click was answered: seconds in all, and in the worker."""
    looked_ahead = Signal(str)
    """What looking ahead does; "" once it has ended."""
    doubted = Signal(object)
    """Doubtful voxels of the array, the worst first."""
    failed = Signal(str, object)
    """A job failed: why, and what tries again."""

    def __init__(
        self,
        dock: QWidget,
        scan: Any,
        labels: Any,
        entry: Entry,
        phase: int = 0,
        going_on: tuple[Mapping[str, Object], Sequence[Mapping[str, Any]]] | None = None,
    ) -> None:
        # without a parent: it is closed by whoever holds it, before Qt takes the dock apart
        super().__init__()
        self._dock, self.scan, self.entry, self.phase = dock, itself(scan), entry, phase
        self.layer: Any = itself(labels)
        volume = layers.scan_volume(scan)
        assert volume is not None
        self.volume: Volume = volume
        self.turned = Turned.of(volume)
        self.history = history_of(self.layer)
        self.session = HeldSession(self._array(), _no_prediction)
        self.active = ""
        self.features_ready = False
        self.organs: list[str] = []
        self.device = "auto"
        self._done: list[Any] = []
        self._undone: list[Any] = []
        self._writing = False
        self._waiting: dict[str, list[Prompt]] = {}
        self._work: _Work | None = None
        self._ahead: jobs.RunningJob | None = None
        self._seconds = 0.0
        self._small: list[jobs.RunningJob] = []
        self._version = self.history.version
        self.session.find_boxes()
        if going_on is None:
            self._begin()
        else:
            self.session.objects.update(going_on[0])
            self.session.log.extend(dict(step) for step in going_on[1])
        locks.guard(self.layer)
        self.history.happened.connect(self._happened)
        self.layer.events.data.connect(self._data_changed)

    # what a person does

    @property
    def objects(self) -> Mapping[str, Object]:
        """By name, in the order in which they were begun."""
        return self.session.objects

    @property
    def log(self) -> list[dict[str, Any]]:
        """The steps that took effect."""
        return self.session.log

    @property
    def busy(self) -> bool:
        """Whether an answer is awaited."""
        return self._work is not None

    @property
    def waiting(self) -> int:
        """How many prompts are not answered yet."""
        under_way = 0 if self._work is None else len(self._work.new)
        return under_way + sum(len(one) for one in self._waiting.values())

    def unanswered(self, name: str) -> list[Prompt]:
        """Give the prompts of an object that are not answered yet."""
        work = self._work
        under_way = work.new if work is not None and work.name == name else []
        return [*under_way, *self._waiting.get(name, ())]

    @property
    def locked(self) -> set[str]:
        """Names of locked objects."""
        fixed = locks.locked(self.layer)
        return {one.name for one in self.objects.values() if one.label in fixed}

    def ml(self, name: str) -> float:
        """Give an object's volume."""
        count = self.session.count(self.session.objects[name].label)
        return float(count * np.prod(self.volume.spacing) / 1000)

    def choose(self, name: str) -> None:
        """Make an object the active one, and begin it if there is none of that name.

        Raises:
            SpadError: no number is left for it.
        """
        name = "_".join(name.split())
        if not name:
            raise SpadError("An object needs a name; type one, or choose an organ from the list.")
        if name not in self.session.objects:
            made = self.session.add(name, self._number(name))
            name_label(self.layer, made.label, name)
            self.logged.emit()
        self.active = name
        self.layer.selected_label = self.session.objects[name].label
        self.changed.emit()

    def give(self, prompt: Prompt) -> None:
        """Add a prompt to the active object and have it found anew.

        Raises:
            SpadError: it cannot be used; nothing has changed.
        """
        self.check_scan()
        name = self._editable()
        under_way = self._work.new if self._work is not None and self._work.name == name else ()
        self.session.check(name, *under_way, *self._waiting.get(name, ()), prompt)
        work = self._work
        if work is not None and work.name == name:
            self._overtake(work)
            if work.again is not None:
                # the older prompts are not found anew yet
                self._ask_again(name, [*work.again, prompt])
                return
            self._waiting[name] = [*work.new, *self._waiting.get(name, ())]
        self._waiting.setdefault(name, []).append(prompt)
        self._next()

    def change_prompts(self, name: str, prompts: Sequence[Prompt]) -> None:
        """Find an object anew with other prompts: one deleted, one dragged elsewhere.

        Raises:
            SpadError: one lies outside the scan, or the object is locked.
        """
        self.check_scan()
        self._editable(name)
        for one in prompts:
            one.check_inside(self.turned.shape)
        work = self._work
        waiting = self._waiting.pop(name, [])
        if work is not None and work.name == name:
            self._overtake(work)
            waiting = [*work.new, *waiting]
        self._ask_again(name, [*prompts, *waiting])

    def remove(self, name: str, index: int) -> None:
        """Delete a prompt of an object and find it anew."""
        prompts = list(self.session.objects[name].prompts)
        del prompts[index]
        self.change_prompts(name, prompts)

    def start_automatic(self) -> None:
        """Start the active object from the organ of its name that the model finds by itself.

        Raises:
            SpadError: the object is locked.
        """
        self.check_scan()
        name = self._editable()
        request = AutomaticOrgan(**self._common, name=name)

        def found(part: Part | None) -> None:
            if part is None:
                self.refused.emit(
                    f"The model finds no {readable(name)} in this scan by itself; click on it."
                )
                return
            self._start_with(name, part, "the automatic result")

        self._ask(request, found)

    def erase(self) -> None:
        """Take all voxels and prompts of the active object away, as one step.

        Raises:
            SpadError: the object is locked.
        """
        name = self._editable()
        self._forget_waiting(name)
        self._start_with(name, None, "nothing")

    def find_doubts(self, name: str | None) -> None:
        """Ask for the doubtful places of an object, or of the whole result.

        Args:
            name: the object, or None.
        """
        self.check_scan()
        part = None if name is None else self.session.part(name)
        self._ask(Doubts(**self._common, part=part), self.doubted.emit)

    def edit(self, text: str, label: int, region: Slices, mask: np.ndarray) -> None:
        """Leave of a label what a mask says, in a box of the layer's last three axes."""
        at = self._at(region)
        values = np.array(self.layer.data[at])
        values[(values == label) & ~mask] = 0
        self.history.change(text, at, values)

    def swap(self, one: str, other: str) -> None:
        """Give each of two objects the voxels and the prompts of the other, as one step.

        Raises:
            SpadError: one of them is locked.
        """
        for name in (one, other):
            if name not in self.session.objects:
                self.session.add(name, self._number(name))
                name_label(self.layer, self.session.objects[name].label, name)
            self._editable(name)
            self._forget_waiting(name)
        first, second = self.session.objects[one], self.session.objects[other]
        boxes = [b for b in (self.session.box(first.label), self.session.box(second.label)) if b]
        if not boxes:
            return
        low = [min(box[axis].start for box in boxes) for axis in range(3)]
        high = [max(box[axis].stop for box in boxes) for axis in range(3)]
        box = (slice(low[0], high[0]), slice(low[1], high[1]), slice(low[2], high[2]))
        before = self.session.labels[box]
        after = before.copy()
        after[before == first.label] = second.label
        after[before == second.label] = first.label
        things: Things = {
            one: replace(first, prompts=second.prompts, start=second.start),
            other: replace(second, prompts=first.prompts, start=first.start),
        }
        words = f"Swap {readable(one)} and {readable(other)}"
        self._write(words, box, after, things)
        start, mask, _, new = self._last_change()
        self.log.append(voxels_entry(words, start, mask, new[mask], things))
        self.logged.emit()

    def undo(self) -> None:
        """Take the prompts back that are not answered yet, else the last step."""
        if self._work is not None or self._waiting:
            for name in {*self._waiting, *([self._work.name] if self._work else ())}:
                self._forget_waiting(name)
            self.said.emit("The click was taken back.")
            return
        self.history.undo()

    def redo(self) -> None:
        """Do the step again that was undone last."""
        self.history.redo()

    def look_ahead(self, near: Sequence[float] | np.ndarray) -> None:
        """Have the worker see the scan before the first click, unless it does already.

        Args:
            near: where a person looks, an index of the layer.
        """
        if self._ahead is not None or self.features_ready:
            return
        turned = Turned.of(self.volume, depth_first=True)
        at = turned.index([self.turned.voxel(near)])[0]
        sides = [self.turned.shape[axis] for axis in turned.order]
        z, y, x = (
            float(np.clip((a + 0.5) / n, 0, 1)) for a, n in zip(at.tolist(), sides, strict=True)
        )
        self._near = near
        job = jobs.run(self._dock, Encode(**self._common, near=(z, y, x)), "")
        job.progressed.connect(lambda _, words: self.looked_ahead.emit(words))
        job.succeeded.connect(self._known)
        job.failed.connect(self._not_known)
        job.died.connect(self._not_known)
        job.cancelled.connect(lambda: self._not_known(""))
        self._ahead = job
        job.start()

    def check_scan(self) -> None:
        """Refuse to go on where the scan is no longer the one that the session began on.

        Raises:
            SpadError: its voxels or axes are others.
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

    def leave(self) -> None:
        """Ask for nothing any more."""
        if self._work is not None:
            self._overtake(self._work, note=False)
        if self._ahead is not None:
            self._ahead.overtake()
        self.previewed.emit(None)

    def close(self) -> None:
        """Be a session no more; the labels stay as they are."""
        self.leave()
        self.blockSignals(True)
        self.history.happened.disconnect(self._happened)
        self.layer.events.data.disconnect(self._data_changed)

    # answers

    @property
    def _common(self) -> dict[str, Any]:
        return {
            "volume": self.volume,
            "model": str(self.entry.path),
            "modality": self.volume.modality,
            "device": "auto",
            "phase": self.phase,
        }

    def _editable(self, name: str | None = None) -> str:
        """Give the name of an object that may change, by default the active one."""
        name = self.active if name is None else name
        if not name:
            raise SpadError(
                "No object is chosen; choose or type the name of an organ and click New object."
            )
        if name in self.locked:
            raise SpadError(f"{readable(name)} is locked; unlock it in the list to change it.")
        return name

    def _number(self, name: str) -> int | None:
        """Give an object the number that the layer or the segmenter gives its name, if free."""
        used = {one.label for one in self.session.objects.values()}
        named = names_of(self.layer)
        by_name = {other: label for label, other in named.items()}
        label = by_name.get(name)
        if label is not None and label not in used:
            return label
        taken = used | {label for label, other in named.items() if other != name}
        most = int(np.iinfo(self.layer.data.dtype).max)
        label = _segmenter_labels(self.entry, self.volume.modality).get(name)
        if label is not None and label not in taken and label <= most:
            return label
        return next((label for label in range(1, most + 1) if label not in taken), None)

    def _next(self) -> None:
        """Send what waits, if nothing is under way."""
        self.changed.emit()
        if self._work is not None or not self._waiting:
            return
        name = next(iter(self._waiting))
        prompts = self._waiting.pop(name)
        try:
            previous = self.session.check(name, *prompts)
        except SpadError as error:
            self.refused.emit(str(error))
            self._next()
            return
        work = _Work(name, prompts, self._version)
        every = (*self.session.objects[name].prompts, *prompts)
        self._send(work, every, previous)

    def _ask_again(self, name: str, prompts: list[Prompt]) -> None:
        if self._work is not None:
            # that of another object ends first
            self._work.then.append(lambda: self._ask_again(name, prompts))
            return
        thing = self.session.objects[name]
        work = _Work(name, [], self._version, again=prompts, part=thing.start)
        work.was, work.start = thing.prompts, thing.start
        self._work = work
        self._go_on(work)

    def _go_on(self, work: _Work) -> None:
        """Ask for the next of the prompts that are played one after the other, or end that."""
        assert work.again is not None
        while work.step < len(work.again):
            work.step += 1
            if work.part is not None or work.again[work.step - 1].positive:
                self.said.emit(f"Prompt {work.step} of {len(work.again)} ...")
                self._send(work, tuple(work.again[: work.step]), work.part)
                return
        thing = self.session.objects[work.name]
        if thing.prompts[: len(work.was)] != work.was or thing.start is not work.start:
            self.refused.emit(
                f"The prompts of {readable(work.name)} were changed meanwhile, so they were not "
                "played again; change them once more."
            )
            self._end(work)
            return
        if len(thing.prompts) > len(work.was):
            # strokes came in between
            self._work = None
            self._ask_again(work.name, [*work.again, *thing.prompts[len(work.was) :]])
            return
        thing = replace(thing, prompts=tuple(work.again))
        whole = covering(self.session.part(work.name), work.part)
        words = f"Prompts of {readable(work.name)} changed"
        told = [one.to_json() for one in work.again]
        entry = {"step": "again", "prompts": told, "features": work.features is not False}
        self._put(words, thing, whole, entry)
        self._end(work)

    def _send(self, work: _Work, prompts: tuple[Prompt, ...], previous: Part | None) -> None:
        request = Click(
            **self._common,
            name=work.name,
            prompts=prompts,
            previous=previous,
            features=work.features is not False,
        )
        job = jobs.run(self._dock, request, "")
        label = self.session.objects[work.name].label

        def first(answer: Clicked) -> None:
            if self._work is work and work.again is None:
                self.previewed.emit((label, answer.part))

        def got(answer: Clicked) -> None:
            if self._work is work:
                self._answer(work, answer, previous)

        def failed(sentence: str) -> None:
            if self._work is work:
                self._end(work)
                self.failed.emit(sentence, lambda: self._retry(work))

        job.first.connect(first)
        job.succeeded.connect(got)
        job.failed.connect(failed)
        job.died.connect(failed)
        job.cancelled.connect(lambda: failed("The click was cancelled."))
        work.job = job
        self._work = work
        self.changed.emit()
        job.start()

    def _answer(self, work: _Work, answer: Clicked, previous: Part | None) -> None:
        self.device = answer.device
        if work.again is not None:
            if work.features is None:
                work.features = answer.features
            work.part = merged(previous, answer.part)
            self._go_on(work)
            return
        if work.version != self._version:
            # strokes or undoing came in between: they count, and the prompt too
            self._work = None
            self._waiting[work.name] = [*work.new, *self._waiting.get(work.name, ())]
            self._next()
            return
        thing = self.session.objects[work.name]
        kinds = work.new[-1].kind if len(work.new) == 1 else f"{len(work.new)} prompts"
        entry = {
            "step": "prompt",
            "prompts": [one.to_json() for one in work.new],
            "features": answer.features,
            "seconds": round(answer.seconds, 3),
        }
        thing = replace(thing, prompts=(*thing.prompts, *work.new))
        self._put(f"{kinds.capitalize()} for {readable(work.name)}", thing, answer.part, entry)
        if not answer.features and self._ahead is None and self.features_ready:
            # another worker has taken the place of the one that knew the scan
            self.features_ready = False
            self.look_ahead(self._near)
        self._end(work)
        self.answered.emit(time.monotonic() - work.began, answer.seconds)

    def _end(self, work: _Work) -> None:
        self.previewed.emit(None)
        self._work = None
        for call in work.then:
            call()
        self._next()

    def _retry(self, work: _Work) -> None:
        if work.again is not None:
            self._ask_again(work.name, work.again)
            return
        self._waiting[work.name] = [*work.new, *self._waiting.get(work.name, ())]
        self._next()

    def _overtake(self, work: _Work, *, note: bool = True) -> None:
        """Stop a job whose answer is not wanted any more."""
        self._work = None
        if work.job is not None:
            work.job.overtake()
        self.previewed.emit(None)
        if note and work.again is None:
            told = [one.to_json() for one in work.new]
            label = self.session.objects[work.name].label
            self.log.append(
                {"step": "dropped", "object": work.name, "label": label, "prompts": told}
            )
        for call in work.then:
            call()

    def _forget_waiting(self, name: str) -> None:
        self._waiting.pop(name, None)
        if self._work is not None and self._work.name == name:
            self._overtake(self._work)
            self._next()
        self.changed.emit()

    def _ask(self, request: Any, found: Callable[[Any], None]) -> None:
        """Ask for something small."""
        job = jobs.run(self._dock, request, "")
        job.succeeded.connect(found)
        job.failed.connect(self.refused.emit)
        job.died.connect(self.refused.emit)
        for signal in (job.succeeded, job.failed, job.died, job.cancelled):
            signal.connect(lambda *_: self._small.remove(job) if job in self._small else None)
        self._small.append(job)
        job.start()

    def _known(self, report: dict[str, Any]) -> None:
        self._ahead = None
        self.features_ready = bool(report["windows"])
        self.organs = list(report["organs"])
        self.looked_ahead.emit("")
        self.changed.emit()

    def _not_known(self, sentence: str) -> None:
        self._ahead = None
        self.looked_ahead.emit("")
        if sentence:
            self.refused.emit(sentence)

    # writing

    @property
    def _lead(self) -> tuple[int, ...]:
        """The time, for labels of a series."""
        return (min(self.phase, len(self.layer.data) - 1),) if self.layer.ndim > 3 else ()

    def _at(self, region: Slices) -> tuple[slice, ...]:
        """Give a region of all axes of the layer."""
        return (*(slice(at, at + 1) for at in self._lead), *region)

    def _array(self) -> np.ndarray:
        """View the layer's labels along `Volume.array`."""
        data = self.layer.data[self._lead] if self.layer.ndim > 3 else self.layer.data
        return from_canonical(data, self.volume, depth_first=False)

    def _begin(self) -> None:
        """Take the labels that are there for objects."""
        names = names_of(self.layer)
        for label in self.session.labels_there():
            part = part_of(self.session.labels, label, self.session.box(label))
            if part is None:
                continue
            name = names.get(label, f"label_{label}")
            if name in self.session.objects:
                name = f"{name}_{label}"
            thing = replace(self.session.add(name, label), start=part)
            told = {"step": "start", "source": "the labels that were there", "before": "empty"}
            entry = {"object": name, "label": label, **told, "locked": [], "part": part.to_json()}
            self.log.append(entry)
            self.session.objects[name] = thing
            self._done.append(entry)

    def _start_with(self, name: str, part: Part | None, source: str) -> None:
        thing = replace(self.session.objects[name], prompts=(), start=part)
        whole = covering(self.session.part(name), part)
        words = f"{readable(name).capitalize()} from {source}" if part else f"Erase {name}"
        self._put(words, thing, whole, {"step": "start", "source": source})

    def _put(self, text: str, thing: Object, part: Part, entry: dict[str, Any]) -> None:
        """Write an object, with its log entry."""
        self.session.locked = self.locked
        before, after = self.session.painted(thing, part)
        self.session.note(thing, part, entry)
        held = int(np.count_nonzero(part.mask & (after != thing.label)))
        self._write(text, part.region, after, {thing.name: thing})
        if held:
            names = sorted(
                readable(one.name)
                for one in self.session.objects.values()
                if one.name in self.session.locked
                and (before[part.mask & (after != thing.label)] == one.label).any()
            )
            ml = held * np.prod(self.volume.spacing) / 1000
            self.said.emit(f"{ml:.1f} mL stayed with {', '.join(names)}, which is locked.")
        self.logged.emit()

    def _write(self, text: str, box: Slices, after: np.ndarray, things: Things) -> None:
        """Write labels in a box of the array as one step that carries objects."""
        was: Things = {name: self.session.objects.get(name) for name in things}
        values = self.turned.box(after)[(None,) * len(self._lead)]
        self._version += 1
        self._writing = True
        try:
            self.history.change(
                text,
                self._at(self.turned.region(box)),
                values,
                payload=(_Carried(was), _Carried(things)),
            )
        finally:
            self._writing = False
        for name, one in things.items():
            self.session.put(name, one)
        self.changed.emit()

    def _last_change(self) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray]:
        return self._voxels_of(self._done[-1])

    def _voxels_of(self, step: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray]:
        """Give the voxels of a step along the array: start, mask, before, after."""
        joined = step.joined(self.phase)
        if joined is None:
            none = np.zeros((1, 1, 1), bool)
            return (0, 0, 0), none, none.astype(int), none.astype(int)
        low, mask, before, after = joined
        start, turned = self.turned.back(low, mask)
        return start, turned, self.turned.back(low, before)[1], self.turned.back(low, after)[1]

    def _happened(self, what: str, step: Any) -> None:
        """Follow the layer's history."""
        if what == "cleared":
            self._done.clear()
            self._undone.clear()
            self._version += 1
            return
        start, mask, before, after = self._voxels_of(step)
        now = before if what == "undone" else after
        self.session.grow_boxes(start, mask, now)
        self.session.forget_counts(np.unique([before[mask], after[mask]]).tolist())
        if what == "done":
            self._done.append(step)
            self._undone.clear()
            if self._writing:
                return
            self._version += 1
            self._by_hand(step, start, mask, before, after)
        else:
            self._version += 1
            self._moved(what, step, start, mask, now)
        self.changed.emit()
        self.logged.emit()

    def _by_hand(
        self, step: Any, start: Any, mask: np.ndarray, before: np.ndarray, after: np.ndarray
    ) -> None:
        """Note a stroke or an edit; the model hears of strokes on objects."""
        entry = voxels_entry(step.text, start, mask, after[mask])
        for label in np.unique(after[mask]).tolist():
            self._object_of(label)
        if step.by_hand:
            added = self._scribbles(start, mask, before, after)
            if added:
                was = {name: self.session.objects[name] for name in added}
                now = {
                    name: replace(was[name], prompts=(*was[name].prompts, *more))
                    for name, more in added.items()
                }
                entry["added"] = {
                    name: replace(was[name], prompts=tuple(more), start=None).to_json()
                    for name, more in added.items()
                }
                step.payload = (_Carried(dict(was)), _Carried(dict(now)))
                self.session.objects.update(now)
        self.log.append(entry)

    def _object_of(self, label: int) -> str:
        """Give the object of a label, begun where a person has painted a new one; "" for 0."""
        if not label:
            return ""
        for one in self.session.objects.values():
            if one.label == label:
                return one.name
        name = names_of(self.layer).get(label, f"label_{label}")
        if name in self.session.objects:
            name = f"{name}_{label}"
        self.session.add(name, label)
        name_label(self.layer, label, name)
        return name

    def _scribbles(
        self, start: Any, mask: np.ndarray, before: np.ndarray, after: np.ndarray
    ) -> dict[str, list[Prompt]]:
        """Turn a stroke into prompts of the objects that it gave voxels to or took them from."""
        found: dict[str, list[Prompt]] = {}
        for values, positive in ((after, True), (before, False)):
            for label in np.unique(values[mask]).tolist():
                name = self._object_of(label)
                if not name or (not positive and label not in self._told_labels()):
                    continue
                voxels = np.argwhere(mask & (values == label)) + np.array(start)
                thin = -(-len(voxels) // MOST_PAINTED)
                told = tuple((int(z), int(y), int(x)) for z, y, x in voxels[::thin])
                found.setdefault(name, []).append(Prompt("scribble", told, positive))
        return found

    def _told_labels(self) -> set[int]:
        """Labels of the active object and of those that were clicked on."""
        return {
            one.label
            for one in self.session.objects.values()
            if one.prompts or one.name == self.active
        }

    def _moved(self, what: str, step: Any, start: Any, mask: np.ndarray, now: np.ndarray) -> None:
        """Follow an undo or a redo; one that the log does not know becomes a change of voxels."""
        back = what == "undone"
        source, target = (self._done, self._undone) if back else (self._undone, self._done)
        carried = step.payload[0 if back else 1] if step.payload is not None else None
        things = carried.objects if isinstance(carried, _Carried) else {}
        if source and source[-1] is step:
            source.pop()
            target.append(step)
            self.log.append({"step": "undo" if back else "redo"})
        else:
            self.log.append(voxels_entry(step.text, start, mask, now[mask], things))
            # the log's own stack has this change on top, and nothing to redo
            self._undone.clear()
            self._done.append(step if not back else object())
        for name, one in things.items():
            self.session.put(name, one)

    def _data_changed(self, event: Any = None) -> None:
        """Take over other labels in the layer, as one change."""
        new = self._array()
        old = self.session.labels
        if new is old or np.may_share_memory(new, old):
            return
        if new.shape == old.shape:
            mask = new != old
            self.log.append(voxels_entry("other labels", (0, 0, 0), mask, new[mask]))
            self._done.append(object())
        self.session.labels = new
        self.session.find_boxes()
        for label in self.session.labels_there():
            self._object_of(label)
        self._version += 1
        self.changed.emit()
        self.logged.emit()


@dataclass(frozen=True, eq=False)
class _Carried:
    """What a step of the history carries: objects by name, None for none."""

    objects: Things


@dataclass(eq=False)
class _Work:
    """Something that is asked of the worker for an object.

    Attributes:
        name: the object.
        new: its new prompts.
        version: of the labels when it was asked.
        again: all prompts, where they are played one after the other ...
        part: ... the object so far ...
        step: ... and how many of them have been played.
        features: whether what is known of the scan is used; None if that is not known yet.
        was, start: the object's prompts and start when that began.
        then: what is to be done once it has ended.
    """

    name: str
    new: list[Prompt]
    version: int
    again: list[Prompt] | None = None
    part: Part | None = None
    step: int = 0
    features: bool | None = None
    was: tuple[Prompt, ...] = ()
    start: Part | None = None
    job: jobs.RunningJob | None = None
    began: float = field(default_factory=time.monotonic)
    then: list[Callable[[], None]] = field(default_factory=list)


def _no_prediction(name: str, prompts: tuple[Prompt, ...], previous: Part | None) -> Part:
    raise AssertionError("the worker predicts")


def _segmenter_labels(entry: Entry, modality: str | None) -> dict[str, int]:
    """Give name to number of the organs that a clicker's segmenter knows."""
    from spad.checkpoints import zoo

    if entry.card.segmenter is None:
        return {}
    try:
        card = zoo.find(entry.card.segmenter).card
    except SpadError:
        return {}
    return {name: label for label, name in card.label_names(modality).items()}


def lacking(entry: Entry) -> str:
    """Say that a clicker's segmenter is not here; "" if it is, or none is needed."""
    from spad.checkpoints import zoo

    if entry.card.segmenter is None:
        return ""
    try:
        zoo.find(entry.card.segmenter)
    except SpadError:
        return (
            f"'{entry.name}' works with the segmenter '{entry.card.segmenter}', which is not here; "
            "import it with 'spad models import', or choose another model for clicks."
        )
    return ""


def organ_names(entry: Entry, modality: str | None) -> list[str]:
    """Give the names of the organs that a clicker knows by name."""
    return list(_segmenter_labels(entry, modality))
