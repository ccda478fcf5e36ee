"""Objects of a scan, their prompts and all that was done to them, one step after the other.

The same steps with the same model give the same labels, so a session can be kept as a small file
and played again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from spad.errors import SpadError
from spad.prompts.part import Part, Slices, part_of
from spad.prompts.prompt import Prompt, Voxel
from spad.prompts.steps import moved_entry, voxels_entry


@dataclass(frozen=True, eq=False)
class Object:
    """One structure.

    Attributes:
        label: its number in the labels.
        name: what it is called.
        prompts: in the order in which they were given.
        start: what it was before the first prompt (an automatic organ, a mask); None for nothing.
        by_hand: whether voxels were changed by hand since it began or was last played anew.
    """

    label: int
    name: str
    prompts: tuple[Prompt, ...] = ()
    start: Part | None = None
    by_hand: bool = False

    @property
    def by_prompts(self) -> bool:
        """Whether it comes of prompts alone."""
        return self.start is None and not self.by_hand

    def to_json(self) -> dict[str, Any]:
        """Give all but the name as plain JSON values."""
        return {
            "label": self.label,
            "prompts": [one.to_json() for one in self.prompts],
            "start": None if self.start is None else self.start.to_json(),
            "by_hand": self.by_hand,
        }

    @classmethod
    def from_json(cls, name: str, data: Mapping[str, Any]) -> Object:
        """Read what `to_json` gave.

        Raises:
            SpadError: the values are not as expected.
        """
        try:
            prompts = tuple(Prompt.from_json(one) for one in data.get("prompts", ()))
            start = data.get("start")
            return cls(
                int(data["label"]),
                name,
                prompts,
                None if start is None else Part.from_json(start),
                bool(data.get("by_hand", False)),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise SpadError(
                f"The object '{name}' is not as expected ({error}); expected its label, prompts "
                "and start as they were written."
            ) from error


Predict = Callable[[Object, Part | None], Part]
"""An object with all its prompts, what it is so far -> what it is in a part of the scan."""


@dataclass(frozen=True, eq=False)
class Change:
    """One step that can be taken back.

    Attributes:
        text: what was done, in a few words.
        name: of the object.
        region: the box of changed voxels.
        before: labels in it before ...
        after: ... and after.
        objects: the object before and after; None where it was not there.
        others: more objects by name, before and after.
    """

    text: str
    name: str
    region: Slices
    before: np.ndarray
    after: np.ndarray
    objects: tuple[Object | None, Object | None]
    others: Mapping[str, tuple[Object | None, Object | None]] = field(default_factory=dict)


@dataclass(eq=False)
class Session:
    """See the module.

    Attributes:
        labels: (z, y, x) integers, changed in place.
        predict: finds an object after a prompt.
        objects: by name, in the order in which they were begun.
        locked: names of objects that no other object takes voxels of.
        log: the steps that took effect, as plain values; see `spad.prompts.session_file`.
    """

    labels: np.ndarray
    predict: Predict
    objects: dict[str, Object] = field(default_factory=dict)
    locked: set[str] = field(default_factory=set)
    log: list[dict[str, Any]] = field(default_factory=list)
    done: list[Change] = field(default_factory=list)
    undone: list[Change] = field(default_factory=list)

    # what a person does

    def add(self, name: str, label: int | None = None) -> Object:
        """Give the object of a name; begin it if there is none.

        Raises:
            SpadError: another object has that number, or no number is left.
        """
        if name in self.objects:
            return self.objects[name]
        used = {one.label for one in self.objects.values()}
        most = int(np.iinfo(self.labels.dtype).max)
        label = label or next(n for n in range(1, most + 2) if n not in used)
        if label in used or label > most:
            raise SpadError(
                f"The object '{name}' cannot have the number {label}; expected one that is free, "
                f"from 1 to {most}."
            )
        self.objects[name] = Object(label, name)
        return self.objects[name]

    def prompt(self, name: str, *prompts: Prompt) -> Change:
        """Add prompts to an object and find it anew.

        Raises:
            SpadError: a prompt lies outside the scan, or the first of all is not positive.
        """
        previous = self.check(name, *prompts)
        begun = time.perf_counter()
        thing = self._object(name)
        found = self.predict(replace(thing, prompts=(*thing.prompts, *prompts)), previous)
        return self.answered(name, prompts, found, seconds=time.perf_counter() - begun)

    def check(self, name: str, *prompts: Prompt) -> Part | None:
        """Give the object so far, once prompts for it are found to be possible.

        Raises:
            SpadError: a prompt lies outside the scan, or the first of all is not positive.
        """
        for one in prompts:
            one.check_inside(self.labels.shape)
        previous = self.part(name)
        if previous is None and not any(one.positive for one in prompts):
            raise SpadError(
                f"'{name}' has no voxel yet, so nothing can be taken away from it; begin with a "
                "positive prompt inside it."
            )
        return previous

    def answered(self, name: str, prompts: Sequence[Prompt], found: Part, **facts: Any) -> Change:
        """Take what the model answered to new prompts of an object.

        Args:
            name: the object.
            prompts: the new ones; those before are the object's.
            found: the answer.
            facts: noted in the log: whether features were ready, seconds.
        """
        thing = self._object(name)
        words = prompts[-1].kind if len(prompts) == 1 else f"{len(prompts)} prompts"
        told = [one.to_json() for one in prompts]
        return self.take(
            f"{words} for {name}",
            replace(thing, prompts=(*thing.prompts, *prompts)),
            found,
            {"step": "prompt", "prompts": told, **facts},
        )

    def again(self, name: str, prompts: Sequence[Prompt]) -> Change:
        """Find an object anew with other prompts: one deleted, one dragged elsewhere."""
        thing = self._object(name)
        for one in prompts:
            one.check_inside(self.labels.shape)
        thing = replace(thing, prompts=tuple(prompts), by_hand=False)
        found = self.played(thing)
        whole = covering(self.part(name), found)
        return self.take(
            f"prompts of {name} changed",
            thing,
            whole,
            {"step": "again", "prompts": [one.to_json() for one in prompts]},
        )

    def remove(self, name: str, index: int) -> Change:
        """Delete a prompt of an object and find it anew.

        Raises:
            SpadError: there is no such prompt.
        """
        prompts = list(self._object(name).prompts)
        if not -len(prompts) <= index < len(prompts):
            raise SpadError(
                f"'{name}' has {len(prompts)} prompts, but number {index} was to be removed; give "
                "one from 0 on."
            )
        del prompts[index]
        return self.again(name, prompts)

    def begin_with(self, name: str, part: Part | None, source: str) -> Change:
        """Start an object from a mask: an automatic organ, a file."""
        thing = self._object(name)
        whole = covering(self.part(name), part)
        return self.take(
            f"{name} from {source}",
            replace(thing, prompts=(), start=part, by_hand=False),
            whole,
            {"step": "start", "source": source},
        )

    def voxels(
        self,
        text: str,
        start: Voxel,
        mask: np.ndarray,
        values: np.ndarray,
        objects: Mapping[str, Object | None] | None = None,
    ) -> Change:
        """Change voxels of any objects by hand.

        Args:
            text: what was done.
            start: first voxel of a box.
            mask: booleans in it: which change.
            values: their labels afterwards, one for each that is set, in C order.
            objects: those that have other prompts afterwards, by name; None where one is gone.

        Raises:
            SpadError: a label does not fit the type of the session's labels; nothing has changed.
        """
        held = np.iinfo(self.labels.dtype)
        if np.size(values) and not held.min <= np.min(values) <= np.max(values) <= held.max:
            raise SpadError(
                f"'{text}' writes labels from {np.min(values)} to {np.max(values)}, but those of "
                f"this session go from {held.min} to {held.max}; give it labels of a wider type."
            )
        region = Part(start, mask).region
        before = self.labels[region].copy()
        after = before.copy()
        after[mask] = values
        self.log.append(voxels_entry(text, start, mask, values, objects, before))
        self.labels[region] = after
        others = {name: (self.objects.get(name), one) for name, one in (objects or {}).items()}
        change = Change(text, "", region, before, after, (None, None), others)
        for name, (_, one) in others.items():
            self.put(name, one)
        self.done.append(change)
        self.undone.clear()
        return change

    def forget(self, name: str) -> None:
        """Strike an object out, with its voxels; this cannot be taken back."""
        thing = self.objects.pop(name, None)
        if thing is not None:
            self.labels[self.labels == thing.label] = 0
        self.done.clear()
        self.undone.clear()

    def undo(self) -> Change | None:
        """Take the last step back; None where there is none."""
        return self._move(self.done, self.undone, back=True)

    def redo(self) -> Change | None:
        """Take the step again that was taken back last; None where there is none."""
        return self._move(self.undone, self.done, back=False)

    # what comes of it

    def part(self, name: str) -> Part | None:
        """Give an object's voxels; None where it has none."""
        return part_of(self.labels, self._object(name).label)

    def played(self, thing: Object) -> Part | None:
        """Find an object by its prompts one after the other, without changing anything."""
        current = thing.start
        for count in range(1, len(thing.prompts) + 1):
            if current is None and not thing.prompts[count - 1].positive:
                continue
            so_far = replace(thing, prompts=thing.prompts[:count])
            current = merged(current, self.predict(so_far, current))
        return current

    def take(
        self, text: str, thing: Object, part: Part, entry: dict[str, Any] | None = None
    ) -> Change:
        """Put an object's voxels in a part of the scan in place, and note the step down.

        Voxels of locked objects stay. Data are part of the log where no model can find them again.
        """
        before, after = self.painted(thing, part)
        if entry is not None:
            self.note(thing, part, entry)
        was = self.objects.get(thing.name)
        self.labels[part.region] = after
        self.objects[thing.name] = thing
        change = Change(text, thing.name, part.region, before, after, (was, thing))
        self.done.append(change)
        self.undone.clear()
        return change

    def painted(self, thing: Object, part: Part) -> tuple[np.ndarray, np.ndarray]:
        """Give the labels in a part's box as they are, and with the object in place.

        Voxels of locked objects stay.
        """
        before = self.labels[part.region].copy()
        held = [
            one.label
            for one in self.objects.values()
            if one.name in self.locked and one.name != thing.name
        ]
        free = ~np.isin(before, held) if held else np.ones(before.shape, bool)
        after = before.copy()
        after[(before == thing.label) & ~part.mask] = 0
        after[part.mask & free] = thing.label
        return before, after

    def note(self, thing: Object, part: Part, entry: Mapping[str, Any]) -> None:
        """Note a step in the log, before its voxels are written."""
        now = self.part(thing.name) if thing.name in self.objects else None
        noted = {"object": thing.name, "label": thing.label} | dict(entry)
        noted |= {"before": "empty" if now is None else now.digest()}
        noted |= {"locked": sorted(self.locked)}
        if entry["step"] == "start":
            noted |= {"part": part.to_json()}
        self.log.append(noted)

    def put(self, name: str, thing: Object | None) -> None:
        """Put an object in the place of the one of its name; None takes that out."""
        if thing is None:
            self.objects.pop(name, None)
        else:
            self.objects[name] = thing

    def _move(self, source: list[Change], target: list[Change], *, back: bool) -> Change | None:
        if not source:
            return None
        change = source.pop()
        start = [one.start for one in change.region]
        then = change.before if back else change.after
        entry = moved_entry("undo" if back else "redo", start, self.labels[change.region], then)
        self.labels[change.region] = then
        at = 0 if back else 1
        if change.name:
            self.put(change.name, change.objects[at])
        for name, pair in change.others.items():
            self.put(name, pair[at])
        target.append(change)
        self.log.append(entry)
        return change

    def _object(self, name: str) -> Object:
        found = self.objects.get(name)
        if found is None:
            known = ", ".join(self.objects) or "none yet"
            raise SpadError(
                f"There is no object '{name}'; expected one of the session's ({known}); add it "
                "first."
            )
        return found


def merged(previous: Part | None, part: Part) -> Part | None:
    """Put a part over an object: it decides in its box, beyond it the object stays."""
    if previous is None:
        return part.tight()
    low = np.minimum(previous.start, part.start)
    high = np.maximum(previous.stop, part.stop)
    mask = np.zeros(high - low, bool)
    for one in (previous, part):
        at = np.array(one.start) - low
        mask[tuple(slice(a, a + n) for a, n in zip(at, one.mask.shape, strict=True))] = one.mask
    return Part((int(low[0]), int(low[1]), int(low[2])), mask).tight()


def covering(before: Part | None, after: Part | None) -> Part:
    """Give an object in a box that also holds where it was."""
    if before is None and after is None:
        return Part((0, 0, 0), np.zeros((1, 1, 1), bool))
    if before is None or after is None:
        one = before or after
        assert one is not None
        return one if after is not None else Part(one.start, np.zeros_like(one.mask))
    empty = Part(before.start, np.zeros_like(before.mask))
    low = np.minimum(before.start, after.start)
    high = np.maximum(before.stop, after.stop)
    mask = np.zeros(high - low, bool)
    for one in (empty, after):
        at = np.array(one.start) - low
        mask[tuple(slice(a, a + n) for a, n in zip(at, one.mask.shape, strict=True))] |= one.mask
    return Part((int(low[0]), int(low[1]), int(low[2])), mask)
