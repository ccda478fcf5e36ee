"""The cases of a data set: where scans and labels lie, and how they are read onto one grid."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np

from spad.data.channels import channels_of, on_grid_of, on_one_grid, one_phase
from spad.data.ground import is_ground, read_ground
from spad.errors import SpadError
from spad.volumes.files import read
from spad.volumes.intensity import modality_of_name
from spad.volumes.volume import Volume


@dataclass(frozen=True)
class Case:
    """One scan of a data set.

    Attributes:
        name: folder and ID, such as "btcv/0001".
        images: its files, one for each channel, or one file that holds them all.
        labels: its labels on the same grid, or None.
        validation: whether it is kept out of training.
        patient: whose it is; "" where each scan is of another patient.
        label_names: id to name where they are others than those of its folder.
        times_are_channels: whether a time axis of its file is an axis of channels.
    """

    name: str
    images: tuple[Path, ...]
    labels: Path | None
    validation: bool
    patient: str = ""
    label_names: dict[int, str] | None = None
    times_are_channels: bool = False

    @property
    def image(self) -> Path:
        """The file of the first channel."""
        return self.images[0]


@dataclass(frozen=True)
class Folder:
    """The cases of one data set.

    Attributes:
        path: the folder, or the JSON file that lists them.
        cases: the scans.
        stated_names: id to name of the labels as a file of the data set says; empty without.
        channels: names of the channels, where something says them.
        split_stated: whether the data set itself says who is kept for validation.
    """

    path: Path
    cases: tuple[Case, ...]
    stated_names: dict[int, str]
    channels: tuple[str, ...] = ()
    split_stated: bool = False

    @cached_property
    def label_names(self) -> dict[int, str]:
        """Names of its labels, id to name.

        Without stated names, those that labels files carry themselves (`<stem>.labels.json`, the
        segments of a .seg.nrrd), and for other files each id that occurs, as text.
        """
        if self.stated_names:
            return self.stated_names
        names: dict[int, str] = {}
        for case in self.cases:
            names |= {n: name for n, name in self._carried(case).items() if n not in names}
        return names | {n: str(n) for n in self._ids if n not in names}

    def names_of(self, case: Case) -> dict[int, str]:
        """Names of the labels of one case, id to name: all that its annotators looked for."""
        if case.label_names is not None:
            return case.label_names
        if self.stated_names:
            return self.stated_names
        return self._carried(case) or {n: str(n) for n in self._ids}

    def _carried(self, case: Case) -> dict[int, str]:
        return dict(_inside(*_stamp(case.labels))[0]) if case.labels else {}

    @cached_property
    def _ids(self) -> list[int]:
        """Ids in the labels files that carry no names, each file read once."""
        found = [_inside(*_stamp(case.labels)) for case in self.cases if case.labels]
        return sorted({n for names, ids in found if not names for n in ids})


def channel_names(folder: Folder) -> tuple[str, ...]:
    """Name the channels of a folder's scans; empty for scans of one channel.

    What the folder does not say is told by the first case.
    """
    if len(folder.channels) > 1:
        return folder.channels
    count = max((len(case.images) for case in folder.cases), default=1)
    if count == 1 and folder.cases:
        count = len(read_channels(folder, folder.cases[0]))
    return unnamed_channels(count)


def unnamed_channels(count: int) -> tuple[str, ...]:
    """Give names to channels that have none; none for a single one."""
    return tuple(f"channel {n}" for n in range(1, count + 1)) if count > 1 else ()


def read_channels(folder: Folder, case: Case) -> list[Volume]:
    """Read the channels of a case, each a 3D scan, on the grid of the first.

    The name of a channel ("CT", "T2", "FLAIR") tells its modality where the file's header does not.

    Raises:
        SpadError: a file cannot be read, or lies on another grid than the first.
    """
    times = case.times_are_channels and len(case.images) == 1
    channels = [
        channel
        for path in case.images
        for channel in channels_of(read(path, labels=False), times=times)
    ]
    if len(channels) == len(folder.channels):
        channels = [_told(c, name) for c, name in zip(channels, folder.channels, strict=True)]
    return on_one_grid(channels)


def _told(channel: Volume, name: str) -> Volume:
    told = modality_of_name(name)
    return channel if channel.modality_hint or told is None else channel.with_modality(told)


def read_case_labels(case: Case, scan: Volume) -> Volume | None:
    """Read the labels of a case in the axes of its scan; None where it has none.

    Raises:
        SpadError: they cannot be read, are not whole numbers, or lie on another grid.
    """
    if case.labels is None:
        return None
    labels = one_phase(read_labels(case.labels, scan))
    placed = on_grid_of(labels, scan)
    if placed is None:
        raise SpadError(
            f"{case.labels} lies on another grid than {case.image}; expected the same; correct one."
        )
    return placed


def read_labels(path: Path, scan: Volume) -> Volume:
    """Read labels from a volume file, or from a folder of pictures of a scan's slices (CHAOS).

    Raises:
        SpadError: they cannot be read, or are not whole numbers.
    """
    return read_ground(path, scan) if is_ground(path) else read(path, labels=True)


def _stamp(path: Path) -> tuple[str, int]:
    """Give a path and when it was changed, so that a file is looked at once and again if new."""
    try:
        return str(path), path.stat().st_mtime_ns
    except OSError:
        return str(path), 0


@lru_cache(maxsize=4096)
def _inside(path: str, changed: int) -> tuple[tuple[tuple[int, str], ...], tuple[int, ...]]:
    """Give the names that a labels file carries (id and name), and without names its ids."""
    labels = read(path, labels=True)
    names = {n: name for n, name in (labels.label_names or {}).items() if n != 0}
    if names:
        return tuple(sorted(names.items())), ()
    return (), tuple(n for n in np.unique(labels.array).tolist() if n != 0)
