"""Objects in a labels layer: their voxels and prompts, and a log of every step on them.

Strokes, edits and clicks are steps of one history (`napari_spad.history`); the session's log
(`spad.prompts.session`) follows it step by step, so that it can be played again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_spad import locks
from napari_spad.click_organs import organ_labels
from napari_spad.held_session import HeldSession
from napari_spad.history import history_of
from napari_spad.naming import name_label
from napari_spad.organ_layers import itself, names_of
from napari_spad.turned import Turned
from spad.errors import SpadError
from spad.prompts.part import Part, Slices, part_of
from spad.prompts.prompt import Prompt
from spad.prompts.session import Object, covering
from spad.prompts.steps import moved_entry, voxels_entry
from spad.volumes.axes import from_canonical
from spad.volumes.colors import readable

if TYPE_CHECKING:
    from napari_spad.click_signals import ClickSignals
    from spad.checkpoints.zoo import Entry
    from spad.volumes.volume import Volume

WERE_THERE = "the labels that were there"
"""The source of objects that a session takes from its layer when it begins."""
MOST_PAINTED = 5000
"""Voxels of a stroke that the model is told of; more are thinned out evenly."""
Things = dict[str, Object | None]
GoingOn = tuple[Mapping[str, Object], Sequence[Mapping[str, Any]]]
"""Objects and log of an earlier session."""


class ClickObjects:
    """Objects of one scan (one time of it) in one labels layer.

    Args:
        told: what is told of them.
        labels: a layer on the scan's grid.
        volume: the scan.
        entry: the clicker.
        phase: which time of a series.
        going_on: an earlier session, whose labels the layer holds.
    """

    def __init__(
        self,
        told: ClickSignals,
        labels: Any,
        volume: Volume,
        entry: Entry,
        phase: int = 0,
        going_on: GoingOn | None = None,
    ) -> None:
        self._told, self._entry = told, entry
        self.layer: Any = itself(labels)
        self.volume, self.phase = volume, phase
        self.turned = Turned.of(volume)
        self.history = history_of(self.layer)
        self.session = HeldSession(self._array(), _no_prediction)
        self.active = ""
        """The name of the object that prompts go to; "" for none."""
        self.version = self.history.version
        """Counts the changes of labels."""
        self._mark = object()
        self._done: list[Any] = []
        self._undone: list[Any] = []
        self._writing = False
        self.session.find_boxes()
        if going_on is None:
            self._begin()
        else:
            self.session.objects.update(going_on[0])
            self.session.log.extend(dict(step) for step in going_on[1])
        locks.guard(self.layer)
        self.history.happened.connect(self._happened)
        self.layer.events.data.connect(self._data_changed)

    @property
    def by_name(self) -> Mapping[str, Object]:
        """The objects in the order in which they were begun."""
        return self.session.objects

    @property
    def fits(self) -> bool:
        """Whether the layer has as many voxels as the scan along each axis."""
        sides = tuple(self.turned.shape[axis] for axis in self.turned.order)
        return tuple(self.layer.data.shape[-3:]) == sides

    @property
    def locked(self) -> set[str]:
        """Names of locked objects."""
        fixed = locks.locked(self.layer)
        return {one.name for one in self.by_name.values() if one.label in fixed}

    def ml(self, name: str) -> float:
        """Give an object's volume."""
        count = self.session.count(self.by_name[name].label)
        return float(count * np.prod(self.volume.spacing) / 1000)

    def choose(self, name: str) -> None:
        """Make an object the active one, and begin it if there is none of that name.

        Raises:
            SpadError: no number is left for it.
        """
        if name not in self.by_name:
            name = "_".join(name.split())
        if not name:
            raise SpadError("An object needs a name; type one, or choose an organ from the list.")
        if name not in self.by_name:
            self.begin(name)
            self._told.logged.emit()
        self.active = name
        self.layer.selected_label = self.by_name[name].label
        self._told.changed.emit()

    def begin(self, name: str) -> None:
        """Begin an object, if there is none of that name.

        Raises:
            SpadError: no number is left for it.
        """
        if name not in self.by_name:
            made = self.session.add(name, self._number(name))
            name_label(self.layer, made.label, name)

    def editable(self, name: str | None = None) -> str:
        """Give the name of an object that may change, by default the active one.

        Raises:
            SpadError: it is locked, or there is none.
        """
        name = self.active if name is None else name
        if not name:
            raise SpadError(
                "No object is chosen; choose or type the name of an organ and click New object."
            )
        if name in self.locked:
            raise SpadError(f"{readable(name)} is locked; unlock it in the list to change it.")
        return name

    def start_with(self, name: str, part: Part | None, source: str) -> str:
        """Give an object other voxels and no prompts, as one step; see `put`."""
        thing = replace(self.by_name[name], prompts=(), start=part, by_hand=False)
        whole = covering(self.session.part(name), part)
        known = readable(name)
        words = f"{known.capitalize()} from {source}" if part else f"Erase {known}"
        return self.put(words, thing, whole, {"step": "start", "source": source})

    def put(self, text: str, thing: Object, part: Part, entry: dict[str, Any]) -> str:
        """Write an object as one step, with its log entry.

        Returns:
            A sentence on what locked objects keep of it, or "".
        """
        self.session.locked = self.locked
        before, after = self.session.painted(thing, part)
        self.session.note(thing, part, entry)
        held = int(np.count_nonzero(part.mask & (after != thing.label)))
        self._write(text, part.region, after, {thing.name: thing})
        kept = ""
        if held:
            names = sorted(
                readable(one.name)
                for one in self.by_name.values()
                if one.name in self.session.locked
                and (before[part.mask & (after != thing.label)] == one.label).any()
            )
            ml = held * np.prod(self.volume.spacing) / 1000
            kept = f"{ml:.1f} mL stayed with {', '.join(names)}, which is locked."
        self._told.logged.emit()
        return kept

    def edit(self, text: str, label: int, region: Slices, mask: np.ndarray) -> None:
        """Leave of a label what a mask says, in a box of the layer's last three axes."""
        at = self._at(region)
        values = np.array(self.layer.data[at])
        values[(values == label) & ~mask] = 0
        self.history.change(text, at, values)

    def swap(self, one: str, other: str) -> None:
        """Give each of two objects the voxels and the prompts of the other, as one step."""
        first, second = self.by_name[one], self.by_name[other]
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
            one: replace(second, label=first.label, name=one),
            other: replace(first, label=second.label, name=other),
        }
        words = f"Swap {readable(one)} and {readable(other)}"
        self._write(words, box, after, things)
        start, mask, old, new = self._voxels_of(self._done[-1])
        was = self._box_before(start, mask, old)
        self.session.log.append(voxels_entry(words, start, mask, new[mask], things, was))
        self._told.logged.emit()

    def close(self) -> None:
        """Follow the layer no more."""
        self.history.happened.disconnect(self._happened)
        self.layer.events.data.disconnect(self._data_changed)

    # where objects lie, and their numbers

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

    def _number(self, name: str) -> int | None:
        """Give an object the number that the layer or the segmenter gives its name, if free."""
        used = {one.label for one in self.by_name.values()}
        named = names_of(self.layer)
        by_name = {other: label for label, other in named.items()}
        label = by_name.get(name)
        if label is not None and label not in used:
            return label
        taken = used | {label for label, other in named.items() if other != name}
        most = int(np.iinfo(self.layer.data.dtype).max)
        label = organ_labels(self._entry, self.volume.modality).get(name)
        if label is not None and label not in taken and label <= most:
            return label
        return next((label for label in range(1, most + 1) if label not in taken), None)

    def _begin(self) -> None:
        """Take the labels that are there for objects."""
        names = names_of(self.layer)
        for label in self.session.labels_there():
            part = part_of(self.session.labels, label, self.session.box(label))
            if part is None:
                continue
            name = names.get(label, f"label_{label}")
            if name in self.by_name:
                name = f"{name}_{label}"
            thing = replace(self.session.add(name, label), start=part)
            told = {"step": "start", "source": WERE_THERE, "before": "empty"}
            entry = {"object": name, "label": label, **told, "locked": [], "part": part.to_json()}
            self.session.log.append(entry)
            self.session.objects[name] = thing
            self._done.append(entry)

    def _object_of(self, label: int) -> str:
        """Give the object of a label, begun where a person has painted a new one; "" for 0."""
        if not label:
            return ""
        for one in self.by_name.values():
            if one.label == label:
                return one.name
        name = names_of(self.layer).get(label, f"label_{label}")
        if name in self.by_name:
            name = f"{name}_{label}"
        self.session.add(name, label)
        name_label(self.layer, label, name)
        return name

    # steps of the history

    def _write(self, text: str, box: Slices, after: np.ndarray, things: Things) -> None:
        """Write labels in a box of the array as one step that carries objects."""
        was: Things = {name: self.by_name.get(name) for name in things}
        values = self.turned.box(after)[(None,) * len(self._lead)]
        self.version += 1
        self._writing = True
        try:
            self.history.change(
                text,
                self._at(self.turned.region(box)),
                values,
                payload=(_Carried(self._mark, was), _Carried(self._mark, things)),
            )
        finally:
            self._writing = False
        for name, one in things.items():
            self.session.put(name, one)
        self._told.changed.emit()

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
            self.version += 1
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
            self.version += 1
            self._by_hand(step, start, mask, before, after)
        else:
            self.version += 1
            self._moved(what, step, start, mask, after if what == "undone" else before, now)
        self._told.changed.emit()
        self._told.logged.emit()

    def _by_hand(
        self, step: Any, start: Any, mask: np.ndarray, before: np.ndarray, after: np.ndarray
    ) -> None:
        """Note a stroke or an edit; the model hears of strokes on objects."""
        box = self._box_before(start, mask, before)
        entry = voxels_entry(step.text, start, mask, after[mask], before=box)
        for label in np.unique(after[mask]).tolist():
            self._object_of(label)
        changed = {int(label) for label in np.unique([before[mask], after[mask]])}
        was = {name: one for name, one in self.by_name.items() if one.label in changed}
        added = self._scribbles(start, mask, before, after) if step.by_hand else {}
        more = {name: tuple(added.get(name, ())) for name in was}
        now = {
            name: replace(one, prompts=(*one.prompts, *more[name]), by_hand=True)
            for name, one in was.items()
        }
        if was:
            entry["added"] = {
                name: replace(one, prompts=more[name], start=None).to_json()
                for name, one in was.items()
            }
            step.payload = (_Carried(self._mark, dict(was)), _Carried(self._mark, dict(now)))
            self.session.objects.update(now)
        self.session.log.append(entry)

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
            one.label for one in self.by_name.values() if one.prompts or one.name == self.active
        }

    def _box_before(self, start: Any, mask: np.ndarray, before: np.ndarray) -> np.ndarray:
        """Give all labels of a box as they were before those of a mask were written."""
        box = self.session.labels[Part(start, mask).region].copy()
        box[mask] = before[mask]
        return box

    def _moved(
        self, what: str, step: Any, start: Any, mask: np.ndarray, old: np.ndarray, now: np.ndarray
    ) -> None:
        """Follow an undo or a redo; one that the log does not know becomes a change of voxels."""
        was = self._box_before(start, mask, old)
        back = what == "undone"
        source, target = (self._done, self._undone) if back else (self._undone, self._done)
        carried = step.payload[0 if back else 1] if step.payload is not None else None
        things: Things = {}
        if isinstance(carried, _Carried) and carried.of is self._mark:
            things = carried.objects
        if source and source[-1] is step:
            source.pop()
            target.append(step)
            there = self.session.labels[Part(start, mask).region]
            self.session.log.append(moved_entry("undo" if back else "redo", start, was, there))
        else:
            entry = voxels_entry(step.text, start, mask, now[mask], things, was)
            self.session.log.append(entry)
            # the log's own stack has this change on top, and nothing to redo
            self._undone.clear()
            self._done.append(step if not back else object())
        for name, one in things.items():
            self.session.put(name, one)

    def _data_changed(self, event: Any = None) -> None:
        """Take over other labels in the layer, as one change; none that do not fit."""
        if not self.fits:
            return
        new = self._array()
        old = self.session.labels
        if new is old or np.may_share_memory(new, old):
            return
        mask = new != old
        entry = voxels_entry("other labels", (0, 0, 0), mask, new[mask], before=old)
        self.session.log.append(entry)
        self._done.append(object())
        self.session.labels = new
        self.session.find_boxes()
        for label in self.session.labels_there():
            self._object_of(label)
        self.version += 1
        self._told.changed.emit()
        self._told.logged.emit()


@dataclass(frozen=True, eq=False)
class _Carried:
    """What a step of the history carries: objects by name, None for none.

    Those of a session that has ended mean nothing to the one that came after it.
    """

    of: object
    objects: Things


def _no_prediction(thing: Object, previous: Part | None) -> Part:
    raise AssertionError("the worker predicts")
