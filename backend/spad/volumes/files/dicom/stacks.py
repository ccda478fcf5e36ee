"""Which image planes of a series make one volume: scouts and other grids apart, times in order.

Planes at one place become the time axis if something in the headers tells them apart at every
place alike; whole sets on other grids, of other size, echo or acquisition are volumes of their own.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from spad.errors import SpadError
from spad.volumes.files.dicom import geometry
from spad.volumes.files.dicom.frames import Frame
from spad.volumes.files.dicom.headers import text, whole

PATIENT_MODALITIES = ("CT", "MR", "PT", "NM")
"""Modalities whose series are volumes: a plane without a position is a fault there."""

_LABELS = {
    "temporal": "temporal position",
    "b-value": "diffusion b-value and direction",
    "echo": "echo time",
    "inversion": "inversion time",
    "trigger": "trigger time",
    "acquisition": "acquisition number",
    "stack": "stack",
    "reference": "frame reference time",
    "acquired": "acquisition time",
    "content": "content time",
    "instance": "instance number",
}
_SETS = ("temporal", "b-value", "echo", "inversion", "trigger", "acquisition", "stack")
_RANKS = ("trigger", "reference", "acquired", "content", "instance")
_SECONDARY = "1.2.840.10008.5.1.4.1.1.7"


@dataclass(eq=False)
class Part:
    """Planes that belong together.

    Attributes:
        frames: [t][k]; one t unless they are a time series, k ascending along the normal.
        why: a few words that tell the part from others of its series, or "".
        scout: whether it is a localizer beside a scan.
        axis: what orders the times, a key of `_LABELS`; or "".
        notes: sentences for the person.
        problem: why it is no volume, or None.
    """

    frames: list[list[Frame]]
    why: str = ""
    scout: bool = False
    axis: str = ""
    notes: list[str] = field(default_factory=list)
    problem: str | None = None

    @property
    def first(self) -> Frame:
        return self.frames[0][0]

    @property
    def placed(self) -> bool:
        return self.first.position is not None and self.first.orientation is not None

    def all(self) -> list[Frame]:
        return [frame for time in self.frames for frame in time]


def parts_of(frames: list[Frame], where: str) -> list[Part]:
    """Split the planes of one series into volumes.

    Args:
        frames: of all files with one SeriesInstanceUID.
        where: path and name of the series, for sentences.

    Returns:
        At least one part, the largest first and scouts last. A part that is no volume has a
        `problem`.
    """
    twice = _same_instance(frames)
    if twice:
        return [Part([frames], problem=_duplicate(where, *twice))]
    scouts = [frame for frame in frames if "LOCALIZER" in frame.kind]
    rest = [frame for frame in frames if "LOCALIZER" not in frame.kind]
    if not rest:
        return _sorted(_by_form(scouts, where))
    result = _sorted(_by_form(rest, where))
    for part in _sorted(_by_form(scouts, where)) if scouts else []:
        part.scout, part.why = True, "localizer"
        result.append(part)
    return result


def _sorted(parts: list[Part]) -> list[Part]:
    return sorted(parts, key=lambda part: -sum(len(time) for time in part.frames))


def _same_instance(frames: list[Frame]) -> tuple[Frame, Frame] | None:
    seen: dict[tuple[str, int], Frame] = {}
    for frame in (frame for frame in frames if frame.position is not None):
        uid = frame.header.sop_instance
        if uid and (uid, frame.number) in seen:
            return seen[uid, frame.number], frame
        seen[uid, frame.number] = frame
    return None


def _by_form(frames: list[Frame], where: str) -> list[Part]:
    """Split by what one grid cannot hold: size, orientation, spacing, colour; pictures apart."""
    placed = [f for f in frames if f.position is not None and f.orientation is not None]
    loose = [f for f in frames if f.position is None or f.orientation is None]
    groups = _grids(placed)
    pictures = _pictures(loose, len(placed), where)
    if len(groups) > 1 and len(groups[0]) > 2 and any(len(group) == 1 for group in groups[1:]):
        odd = next(group[0] for group in groups[1:] if len(group) == 1)
        problem = _mixed(groups[0], odd, where)
        return [Part([placed], problem=problem), *pictures]
    parts = [part for group in groups for part in _resolve(group, where)]
    if len(groups) > 1:
        for part in parts:
            part.why = _apart(part, groups)
    lost = next((part for part in pictures if part.problem), None)
    if lost is not None and all(part.problem for part in parts):
        # what the others lack are the planes that have lost their place
        lost.frames = [[*placed, *lost.all()]]
        return pictures
    return [*pictures, *parts]


def _grids(frames: list[Frame]) -> list[list[Frame]]:
    """Group planes that one grid can hold, the largest group first."""
    groups: list[list[Frame]] = []
    for frame in frames:
        for group in groups:
            if _alike(group[0], frame):
                group.append(frame)
                break
        else:
            groups.append([frame])
    return sorted(groups, key=len, reverse=True)


def _apart(part: Part, groups: list[list[Frame]]) -> str:
    """Give the words that tell a part from those on other grids, or in other films."""
    words = [part.why or _extent(part)]
    if _frames_in(part.first) > 1 and len({id(group[0].header) for group in groups}) > 1:
        words.append(part.first.header.path.name)
    return ", ".join(filter(None, words))


def _alike(a: Frame, b: Frame) -> bool:
    if a.form != b.form or _turned(a, b):
        return False
    if a.spacing is None or b.spacing is None:
        return a.spacing == b.spacing
    return all(math.isclose(x, y, rel_tol=1e-3) for x, y in zip(a.spacing, b.spacing, strict=True))


def _turned(a: Frame, b: Frame) -> bool:
    pairs = zip(a.orientation or (), b.orientation or (), strict=True)
    return any(abs(x - y) > geometry.SAME_DIRECTION for x, y in pairs)


def _frames_in(frame: Frame) -> int:
    return whole(frame.header.dataset, "NumberOfFrames") or 1


def _mixed(group: list[Frame], odd: Frame, where: str) -> str:
    first = group[0]
    a, b = first.form, odd.form
    at = "\\".join(f"{value:g}" for value in odd.position or ())
    if a[:2] != b[:2]:
        what = f"of {b[1]} x {b[0]} voxels among {len(group)} of {a[1]} x {a[0]}"
    elif _turned(first, odd):
        angle = _angle(first, odd)
        what = f"turned by {angle:.1f} degrees against the other {len(group)}"
    else:
        what = f"of spacing {_mm(odd)} mm among {len(group)} of {_mm(first)} mm"
    return (
        f"{where} mixes slices: one at {at} mm ({odd.name}) is {what}; expected one size, "
        "orientation and spacing; move that file elsewhere or export the series again."
    )


def _mm(frame: Frame) -> str:
    return " x ".join(f"{s:g}" for s in frame.spacing) if frame.spacing else "unknown"


def _angle(a: Frame, b: Frame) -> float:
    try:
        normals = [geometry.normal_of(f.orientation or (), f.name) for f in (a, b)]
    except (SpadError, IndexError, ValueError):
        return float("nan")
    turn = float(np.degrees(np.arccos(np.clip(normals[0] @ normals[1], -1, 1))))
    if turn > 0.05:
        return turn
    rows = [np.array((f.orientation or ())[:3]) for f in (a, b)]
    return float(np.degrees(np.arccos(np.clip(rows[0] @ rows[1], -1, 1))))


def _extent(part: Part) -> str:
    if part.problem or not part.placed:
        return ""
    places = [frame.position for frame in part.frames[0]]
    normal = geometry.normal_of(part.first.orientation or (), part.first.name)
    along = sorted(float(np.dot(place or (0, 0, 0), normal)) for place in places)
    rows, columns, *_ = part.first.form
    return f"{columns} x {rows}, {along[0]:.1f} to {along[-1]:.1f} mm"


def _pictures(frames: list[Frame], placed: int, where: str) -> list[Part]:
    """Make parts of planes without a place: each file is a picture or a film of its own."""
    files: dict[int, list[Frame]] = defaultdict(list)
    for frame in frames:
        files[id(frame.header)].append(frame)
    volumes = [group for group in files.values() if _should_be_placed(group[0])]
    if len(volumes) > 1 or (volumes and placed > 2):
        lacking = [frame for group in volumes for frame in group]
        names = ", ".join(frame.name for frame in lacking[:3])
        more = f" and {len(lacking) - 3} more" if len(lacking) > 3 else ""
        total = len(lacking) + placed
        problem = (
            f"{where} has {len(lacking)} of {total} slices without ImagePositionPatient or "
            f"ImageOrientationPatient ({names}{more}); expected a place for each; export the "
            "series again from its source."
        )
        others = [group for group in files.values() if not _should_be_placed(group[0])]
        return [Part([lacking], problem=problem), *(Part([group]) for group in others)]
    several = len(files) > 1
    return [
        Part([group], why=group[0].header.path.name if several else "") for group in files.values()
    ]


def _should_be_placed(frame: Frame) -> bool:
    header = frame.header
    film = _frames_in(frame) > 1 and "PerFrameFunctionalGroupsSequence" not in header.dataset
    if header.sop_class.startswith(_SECONDARY) or film:
        return False
    return text(header.dataset, "Modality") in PATIENT_MODALITIES


def _resolve(frames: list[Frame], where: str) -> list[Part]:
    """Make one volume of planes on one grid, or several, or find out why not."""
    try:
        normal = geometry.normal_of(frames[0].orientation or (), f"{where} ({frames[0].name})")
    except SpadError as error:
        return [Part([frames], problem=str(error))]
    positions = np.array([frame.position for frame in frames], float)
    groups = geometry.places(positions @ normal)
    place = {int(n): index for index, group in enumerate(groups) for n in group}
    if len(groups) == len(frames):
        part = Part([[frames[int(group[0])] for group in groups]])
        return _acquisitions(part, frames, normal, where) or [_checked(part, normal, where)]
    divided = _by_kind(frames, place, where)
    if divided:
        return divided
    times = _by_sets(frames, place, len(groups)) or _by_coverage(frames, place, normal, where)
    if isinstance(times, list):
        return times
    times = times or _by_rank(frames, groups)
    if times is None:
        first, second = _first_pair(frames, groups)
        return [Part([frames], problem=_duplicate(where, first, second, frames, groups, normal))]
    return [_checked(times, normal, where)]


def _checked(part: Part, normal: np.ndarray, where: str) -> Part:
    """Check that the planes of each time follow each other evenly, all times at one place."""
    places = np.array([[frame.position for frame in time] for time in part.frames], float)
    try:
        allowed = geometry.OFF_MM
        if places.shape[1] > 1:
            step = geometry.line(places[0], normal, where).step
            allowed = max(allowed, geometry.OFF_STEP * float(np.linalg.norm(step)))
        moved = np.linalg.norm(places - places[0], axis=-1)
        if moved.max() > allowed:
            t, k = np.unravel_index(int(moved.argmax()), moved.shape)
            raise SpadError(
                f"{where} has two slices {moved.max():.3g} mm apart in their own plane (at "
                f"{places[t, k] @ normal:.2f} mm along the normal); expected repeated slices at "
                "one place; export each acquisition by itself."
            )
    except SpadError as error:
        part.problem = str(error)
    return part


def _acquisitions(
    part: Part, frames: list[Frame], normal: np.ndarray, where: str
) -> list[Part] | None:
    """Split a row of slices with gaps where it is several acquisitions without gaps."""
    if len(frames) < 4:
        return None
    try:
        geometry.line(np.array([f.position for f in part.frames[0]], float), normal, where)
        return None
    except SpadError:
        pass
    for key in ("stack", "acquisition"):
        groups = _groups(part.frames[0], key)
        if groups is None or len(groups) < 2 or any(len(group) < 2 for group in groups.values()):
            continue
        divided = [
            _checked(Part([group], why=f"{_LABELS[key]} {mark}"), normal, where)
            for mark, group in groups.items()
        ]
        if not any(piece.problem for piece in divided):
            return divided
    return None


def _groups(frames: list[Frame], key: str) -> dict[Any, list[Frame]] | None:
    """Group by a mark; None if some have none."""
    result: dict[Any, list[Frame]] = defaultdict(list)
    for frame in frames:
        if key not in frame.marks:
            return None
        result[frame.marks[key]].append(frame)
    return dict(result)


def _by_kind(frames: list[Frame], place: dict[int, int], where: str) -> list[Part] | None:
    """Split magnitude from phase, water from fat: ImageTypes that each repeat the places less."""
    groups: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for n, frame in enumerate(frames):
        groups[frame.kind].append(n)
    if len(groups) < 2:
        return None
    deepest = max(Counter(place.values()).values())
    if any(max(Counter(place[n] for n in g).values()) >= deepest for g in groups.values()):
        return None
    shared = set.intersection(*(set(kind) for kind in groups))
    result = []
    for kind, group in groups.items():
        for part in _resolve([frames[n] for n in group], where):
            own = " ".join(word for word in kind if word not in shared)
            part.why = " ".join(filter(None, (own, part.why)))
            result.append(part)
    return result


def _by_sets(frames: list[Frame], place: dict[int, int], count: int) -> Part | None:
    """Make times of a mark (or all that vary together) with the same values at every place."""
    index = {id(frame): place[n] for n, frame in enumerate(frames)}
    varying = []
    for key in _SETS:
        marks = [frame.marks.get(key) for frame in frames]
        if None not in marks and len(set(marks)) > 1:
            varying.append(key)
    tries = [(key,) for key in varying] + ([tuple(varying)] if len(varying) > 1 else [])
    for keys in tries:
        groups: dict[tuple[Any, ...], list[Frame]] = defaultdict(list)
        for frame in frames:
            groups[tuple(frame.marks[key] for key in keys)].append(frame)
        complete = all(
            len(group) == count and len({index[id(f)] for f in group}) == count
            for group in groups.values()
        )
        if not complete:
            continue
        ordered = sorted(groups, key=lambda mark, g=groups: _order(mark, g[mark]))  # type: ignore[misc]
        times = [sorted(groups[mark], key=lambda f: index[id(f)]) for mark in ordered]
        part = Part(times, axis=keys[0])
        names = " and ".join(_LABELS[key] for key in keys)
        part.notes.append(f"{len(times)} volumes at the same places, ordered by {names}.")
        return part
    return None


def _order(mark: tuple[Any, ...], group: list[Frame]) -> tuple[Any, ...]:
    """Order times: by value, diffusion by b-value and then as they were acquired."""
    numbers = tuple(value[0] if isinstance(value, tuple) else value for value in mark)
    return (*numbers, min(frame.marks.get("instance", 0) for frame in group))


def _by_coverage(
    frames: list[Frame], place: dict[int, int], normal: np.ndarray, where: str
) -> list[Part] | None:
    """Split by a mark whose sets of slices overlap but cover different places."""
    index = {id(frame): place[n] for n, frame in enumerate(frames)}
    for key in _SETS:
        groups = _groups(frames, key)
        if groups is None or len(groups) < 2:
            continue
        if any(
            len({index[id(f)] for f in group}) != len(group) or len(group) < 2
            for group in groups.values()
        ):
            continue
        return [
            _checked(
                Part(
                    [sorted(groups[mark], key=lambda f: index[id(f)])],
                    why=f"{_LABELS[key]} {_plain(mark)}",
                ),
                normal,
                where,
            )
            for mark in sorted(groups)
        ]
    return None


def _plain(mark: Any) -> str:
    return f"{mark[0]:g}" if isinstance(mark, tuple) else f"{mark}"


def _by_rank(frames: list[Frame], groups: Sequence[np.ndarray]) -> Part | None:
    """Make times of a mark that grows from time to time at every place."""
    count = len(groups[0])
    if any(len(group) != count for group in groups):
        return None
    for key in _RANKS:
        if any(key not in frame.marks for frame in frames):
            continue
        rows = [[frames[int(n)] for n in group] for group in groups]
        if any(len({f.marks[key] for f in row}) != count for row in rows):
            continue
        by: Callable[[Frame], Any] = lambda f, k=key: f.marks[k]  # type: ignore[misc] # noqa: E731
        ordered = [sorted(row, key=by) for row in rows]
        part = Part([[row[t] for row in ordered] for t in range(count)], axis=key)
        part.notes.append(
            f"{count} volumes at the same places, ordered by {_LABELS[key]}"
            + (", as nothing else tells them apart." if key == "instance" else ".")
        )
        return part
    return None


def _first_pair(frames: list[Frame], groups: Sequence[np.ndarray]) -> tuple[Frame, Frame]:
    group = next(group for group in groups if len(group) > 1)
    return frames[int(group[0])], frames[int(group[1])]


def _duplicate(
    where: str,
    first: Frame,
    second: Frame,
    frames: list[Frame] | None = None,
    groups: Sequence[np.ndarray] = (),
    normal: np.ndarray | None = None,
) -> str:
    names = f"{first.name} and {second.name}"
    if frames is None or normal is None:
        at, other = (
            "\\".join(f"{value:g}" for value in one.position or ()) for one in (first, second)
        )
        if first.position != second.position:
            return (
                f"{where} has slices at different places that share one SOPInstanceUID ({names}, "
                f"at {at} and {other} mm); expected a UID of its own for each; export the series "
                "again from its source."
            )
        return (
            f"{where} holds one slice twice ({names} have the same SOPInstanceUID, at {at} mm); "
            "expected each slice once; remove the copies."
        )
    doubled = [
        float(np.dot(frames[int(group[0])].position or (0, 0, 0), normal))
        for group in groups
        if len(group) > 1
    ]
    return (
        f"{where} has several slices at one place (at {geometry.listed(doubled)} mm along the "
        f"normal, such as {names}) and nothing tells their times or echoes apart; expected one "
        "slice at each place; remove the duplicates or export one acquisition."
    )
