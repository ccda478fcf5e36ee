"""The worker sees a scan before the first click on it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_spad import jobs
from napari_spad.turned import Turned
from spad.worker.messages import Encode

if TYPE_CHECKING:
    from qtpy.QtWidgets import QWidget

    from spad.checkpoints.zoo import Entry
    from spad.volumes.volume import Volume


def encode(volume: Volume, entry: Entry, phase: int, near: Sequence[float] | np.ndarray) -> Encode:
    """Make the request.

    Args:
        volume: the scan.
        entry: the clicker.
        phase: which time of a series.
        near: where a person looks, an index of the scan's layer; that is seen first.
    """
    own, turned = Turned.of(volume), Turned.of(volume, depth_first=True)
    at = turned.index([own.voxel(near)])[0]
    sides = [own.shape[axis] for axis in turned.order]
    z, y, x = (float(np.clip((a + 0.5) / n, 0, 1)) for a, n in zip(at.tolist(), sides, strict=True))
    return Encode(
        volume=volume,
        model=str(entry.path),
        modality=volume.modality,
        device="auto",
        phase=phase,
        near=(z, y, x),
    )


class EarlyLook:
    """Looks at the scan that a person is likely to click on, before there is a session.

    What fails is not told here: the session asks again, and says why.

    Args:
        dock: the widget whose window the worker lives with.
        show: called with words on how far it is, "" once it has ended.
    """

    def __init__(self, dock: QWidget, show: Callable[[str], None]) -> None:
        self._dock, self._show = dock, show
        self._job: jobs.RunningJob | None = None
        self._seen: tuple[Any, str, int] | None = None

    def look(
        self, volume: Volume, entry: Entry, phase: int, near: Sequence[float] | np.ndarray
    ) -> None:
        """Have the worker see a scan, unless it was asked to do so last; see `encode`."""
        # the array is held, so that no other can take its place
        seen, what = self._seen, (str(entry.path), phase)
        if seen is not None and seen[0] is volume.array and seen[1:] == what:
            return
        self.stop()
        self._seen = (volume.array, *what)
        job = self._job = jobs.run(self._dock, encode(volume, entry, phase, near), "")
        job.progressed.connect(lambda _, words: self._show(words))
        for signal in (job.succeeded, job.failed, job.died, job.cancelled):
            signal.connect(lambda *_: self._ended(job))
        job.start()

    def stop(self) -> None:
        """Look no further, for the scan is another one or a session looks itself."""
        job, self._job, self._seen = self._job, None, None
        if job is not None:
            job.leave()
            self._show("")

    def _ended(self, job: jobs.RunningJob) -> None:
        if job is self._job:
            self._job = None
            self._show("")
