"""Prompts on their way to the worker, one job at a time, and answers on their way back."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from spad.errors import SpadError
from spad.prompts.session import Object, covering, merged
from spad.volumes.colors import readable

if TYPE_CHECKING:
    from napari_spad.click_objects import ClickObjects
    from napari_spad.click_signals import ClickSignals
    from napari_spad.jobs import RunningJob
    from spad.prompts.part import Part
    from spad.prompts.prompt import Prompt
    from spad.worker.messages import Clicked

Ask = Callable[[Object, "Part | None", bool], "RunningJob"]
"""An object with all its prompts, what it is so far, whether to use what is known of the scan ->
a job, not yet started."""


class ClickAnswers:
    """Has objects found by their prompts, one job at a time; a newer prompt overtakes an older.

    Args:
        objects: whose prompts they are.
        told: what is told of that.
        ask: makes a job.
    """

    def __init__(self, objects: ClickObjects, told: ClickSignals, ask: Ask) -> None:
        self._objects, self._told, self._make_job = objects, told, ask
        self._waiting: dict[str, list[Prompt]] = {}
        self._changed: dict[str, list[Prompt]] = {}
        self._work: _Work | None = None
        self.device = "auto"
        """Where the last answer was computed."""

    @property
    def busy(self) -> bool:
        """Whether an answer is awaited."""
        return self._work is not None

    @property
    def waiting(self) -> int:
        """How many prompts are not answered yet."""
        under_way = 0 if self._work is None else len(self._work.new)
        return under_way + sum(len(one) for one in self._waiting.values())

    def prompts_of(self, name: str) -> tuple[Prompt, ...]:
        """Give all prompts of an object as a person left them, answered yet or not."""
        thing, work = self._objects.by_name.get(name), self._work
        own = work if work is not None and work.name == name else None
        if name in self._changed:
            base: Sequence[Prompt] = self._changed[name]
        elif own is not None and own.again is not None:
            base = own.again
        else:
            base = () if thing is None else thing.prompts
        new = () if own is None else own.new
        return (*base, *new, *self._waiting.get(name, ()))

    def give(self, name: str, prompt: Prompt) -> None:
        """Add a prompt to an object and have it found anew.

        Raises:
            SpadError: it cannot be used; nothing has changed.
        """
        known = self._objects.by_name[name].prompts
        self._objects.session.check(name, *self.prompts_of(name)[len(known) :], prompt)
        work = self._work
        own = work if work is not None and work.name == name else None
        if name in self._changed or (own is not None and own.again is not None):
            # the older prompts are not found anew yet
            self.change(name, [*self.prompts_of(name), prompt])
            return
        if own is not None:
            self._overtake(own)
            self._waiting[name] = [*own.new, *self._waiting.get(name, ())]
        self._waiting.setdefault(name, []).append(prompt)
        self._next()

    def change(self, name: str, prompts: Sequence[Prompt]) -> None:
        """Find an object anew by these prompts and no others, one after the other."""
        self._waiting.pop(name, None)
        if self._work is not None and self._work.name == name:
            self._overtake(self._work)
        self._changed[name] = list(prompts)
        self._next()

    def forget(self, name: str) -> None:
        """Strike out what is not answered yet of an object."""
        self._waiting.pop(name, None)
        self._changed.pop(name, None)
        if self._work is not None and self._work.name == name:
            self._overtake(self._work)
        self._next()

    def take_back(self) -> bool:
        """Strike out all that is not answered yet; False where there is nothing."""
        if self._work is None and not self._waiting and not self._changed:
            return False
        self._waiting.clear()
        self._changed.clear()
        if self._work is not None:
            self._overtake(self._work)
        self._next()
        return True

    def close(self) -> None:
        """Await no answer any more."""
        self._waiting.clear()
        self._changed.clear()
        if self._work is not None:
            self._overtake(self._work, note=False)

    def _next(self) -> None:
        """Send what waits, if nothing is under way."""
        self._told.changed.emit()
        if self._work is not None or not (self._waiting or self._changed):
            return
        name = next(iter([*self._changed, *self._waiting]))
        again = self._changed.pop(name, None)
        prompts = self._waiting.pop(name) if again is None else []
        try:
            self._objects.editable(name)
            previous = None if again is not None else self._objects.session.check(name, *prompts)
        except SpadError as error:
            self._told.refused.emit(str(error))
            self._next()
            return
        thing = self._objects.by_name[name]
        work = _Work(name, prompts, self._objects.version, again=again, part=thing.start)
        if again is None:
            self._send(work, replace(thing, prompts=(*thing.prompts, *prompts)), previous)
            return
        work.was, work.start = thing.prompts, thing.start
        self._work = work
        self._go_on(work)

    def _go_on(self, work: _Work) -> None:
        """Ask for the next of the prompts that are played one after the other, or end that."""
        assert work.again is not None
        thing = self._objects.by_name[work.name]
        while work.step < len(work.again):
            work.step += 1
            if work.part is not None or work.again[work.step - 1].positive:
                self._told.said.emit(f"Prompt {work.step} of {len(work.again)} ...")
                so_far = tuple(work.again[: work.step])
                self._send(work, replace(thing, prompts=so_far, by_hand=False), work.part)
                return
        if thing.prompts[: len(work.was)] != work.was or thing.start is not work.start:
            self._told.refused.emit(
                f"The prompts of {readable(work.name)} were changed meanwhile, so they were not "
                "played again; change them once more."
            )
            self._end()
            return
        if len(thing.prompts) > len(work.was):
            # strokes came in between
            self._changed[work.name] = [*work.again, *thing.prompts[len(work.was) :]]
            self._end()
            return
        if not self._may_change(work):
            return
        name = readable(work.name).capitalize()
        words = f"{name} was found anew by {_count(len(work.again))}."
        if work.part is None and work.again:
            words = f"{name} is empty, since nothing positive says where it is."
        if thing.by_hand:
            words += " What was edited in it by hand is gone; Undo brings it back."
        thing = replace(thing, prompts=tuple(work.again), by_hand=False)
        whole = covering(self._objects.session.part(work.name), work.part)
        told = [one.to_json() for one in work.again]
        entry = {"step": "again", "prompts": told, "features": work.features is not False}
        text = f"Prompts of {readable(work.name)} changed"
        kept = self._objects.put(text, thing, whole, entry)
        self._end()
        self._told.said.emit(f"{words} {kept}".strip())

    def _may_change(self, work: _Work) -> bool:
        """Whether the object of an answer still may change: it may have been locked meanwhile."""
        try:
            self._objects.editable(work.name)
        except SpadError as error:
            self._drop(work)
            self._told.refused.emit(str(error))
            self._end()
            return False
        return True

    def _send(self, work: _Work, thing: Object, previous: Part | None) -> None:
        job = self._make_job(thing, previous, work.features is not False)
        label = thing.label

        def first(answer: Clicked) -> None:
            if self._work is work and work.again is None:
                self._told.previewed.emit((label, answer.part))

        def got(answer: Clicked) -> None:
            if self._work is work:
                self._take(work, answer, previous)

        def failed(sentence: str) -> None:
            if self._work is work:
                self._end()
                self._told.failed.emit(sentence, lambda: self._retry(work))

        job.first.connect(first)
        job.succeeded.connect(got)
        job.failed.connect(failed)
        job.died.connect(failed)
        job.cancelled.connect(lambda: failed("The click was cancelled."))
        work.job = job
        self._work = work
        self._told.changed.emit()
        job.start()

    def _take(self, work: _Work, answer: Clicked, previous: Part | None) -> None:
        self.device = answer.device
        if work.again is not None:
            if work.features is None:
                work.features = answer.features
            work.part = merged(previous, answer.part)
            self._go_on(work)
            return
        if work.version != self._objects.version:
            # strokes or undoing came in between: they count, and the prompt too
            self._waiting[work.name] = [*work.new, *self._waiting.get(work.name, ())]
            self._end()
            return
        if not self._may_change(work):
            return
        thing = self._objects.by_name[work.name]
        kinds = work.new[-1].kind if len(work.new) == 1 else _count(len(work.new))
        entry = {
            "step": "prompt",
            "prompts": [one.to_json() for one in work.new],
            "features": answer.features,
            "seconds": round(answer.seconds, 3),
        }
        thing = replace(thing, prompts=(*thing.prompts, *work.new))
        words = f"{kinds.capitalize()} for {readable(work.name)}"
        kept = self._objects.put(words, thing, answer.part, entry)
        self._end()
        self._told.answered.emit(time.monotonic() - work.began, answer.seconds)
        if kept:
            self._told.said.emit(kept)

    def _end(self) -> None:
        self._told.previewed.emit(None)
        self._work = None
        self._next()

    def _retry(self, work: _Work) -> None:
        again, new = work.again, work.new
        # once is enough
        work.again, work.new = None, []
        if again is not None:
            self._changed.setdefault(work.name, again)
        elif new:
            self._waiting[work.name] = [*new, *self._waiting.get(work.name, ())]
        self._next()

    def _overtake(self, work: _Work, *, note: bool = True) -> None:
        """Stop a job whose answer is not wanted any more."""
        self._work = None
        if work.job is not None:
            work.job.overtake()
        self._told.previewed.emit(None)
        if note:
            self._drop(work)

    def _drop(self, work: _Work) -> None:
        """Note that prompts were given and never took effect."""
        thing = self._objects.by_name.get(work.name)
        if work.again is None and thing is not None:
            told = [one.to_json() for one in work.new]
            self._objects.session.log.append(
                {"step": "dropped", "object": work.name, "label": thing.label, "prompts": told}
            )


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
    job: RunningJob | None = None
    began: float = field(default_factory=time.monotonic)


def _count(number: int) -> str:
    return f"{number} prompt{'s' * (number != 1)}"
