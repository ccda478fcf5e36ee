"""Corrections kept to learn from, and models that were improved by them; no Qt.

`SPAD_HOME/corrections/<family>/<hash>.<n>/` holds one corrected scan: what `write_cases` writes and
a `correction.json`. A family is a model with all that were made from it by improving.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_spad import locks
from napari_spad.before_after import Comparison, Row, mean, mean_rows
from napari_spad.history import history_of
from napari_spad.training_data import OpenCase, write_cases
from napari_spad.training_jobs import PRESETS, Plan, runs_folder
from spad import jsonfile
from spad.checkpoints import zoo
from spad.errors import SpadError
from spad.prompts.session_file import scan_hash
from spad.training import runs

if TYPE_CHECKING:
    from napari.layers import Labels

    from spad.prompts.session import Object
    from spad.volumes.volume import Volume

STEPS = 300
"""Of a run: minutes on a CPU, since most of the network stands still."""
_NOTE, _RESULT, _IN_USE = "correction.json", "improvement.json", "in-use"
_EACH = 5
_ALIKE = 0.9
"""Dice with what was found before, below which an organ that nobody corrected has changed."""
_IMPROVED = re.compile(r"(.+)-improved-\d+")


@dataclass(frozen=True)
class Correction:
    """A corrected scan that is kept.

    Attributes:
        folder: where it lies.
        scan: what its layer was called.
        organs: names of the labels that a person made sure of; others are unknown there.
        held_out: whether it is never learnt from.
        first_kept: when it was kept first, in seconds since 1970.
        left_out: whether a person does not want it to be used at present.
    """

    folder: Path
    scan: str
    organs: tuple[str, ...]
    held_out: bool
    first_kept: float
    left_out: bool = False


@dataclass(frozen=True)
class Improvement:
    """What came of a run.

    Attributes:
        scans: the held-out scans, by name.
        rows: Dice of each organ before and after, means over these scans.
        step: of the checkpoint that was judged.
        changed: organs that nobody corrected on those scans, and are found otherwise than before.
        model: the name under which it was installed; "" if it was not.
    """

    scans: tuple[str, ...]
    rows: tuple[Row, ...]
    step: int
    changed: tuple[str, ...] = ()
    model: str = ""

    @property
    def means(self) -> tuple[float, float]:
        """Mean Dice of the organs before and after; 0 where there is none."""
        before = mean([row.before for row in self.rows])
        after = mean([row.after for row in self.rows])
        return before or 0.0, after or 0.0

    @property
    def is_better(self) -> bool:
        """Whether the mean rose."""
        before, after = self.means
        return after > before


def family_of(model: str) -> str:
    """Name the model that an improved one comes from in the end; another is its own family."""
    found = _IMPROVED.fullmatch(model)
    return found[1] if found else model


def is_improved(model: str) -> bool:
    """Whether a model has the name of an improved one."""
    return _IMPROVED.fullmatch(model) is not None


def new_name(family: str) -> str:
    """Give the next name for an improved model that no model has, nor one that is set aside."""
    taken = {entry.name for entry in zoo.models()}
    names = (f"{family}-improved-{number}" for number in itertools.count(1))
    return next(name for name in names if name not in taken and not zoo.aside(name).exists())


def why_not(entry: zoo.Entry) -> str:
    """Say why a model cannot be improved, "" if it can: only our own network can."""
    ids = sorted(entry.card.labels)
    if "vit" in entry.card.architecture and ids == list(range(1, len(ids) + 1)):
        return ""
    return f"{entry.name} has another network than SPAD-ViT and cannot be improved here."


def corrected(layer: Labels, objects: Iterable[Object] = ()) -> set[int]:
    """Give the labels of a layer that a person made sure of.

    These were painted, erased or edited by hand, swapped, clicked on, or locked.

    Args:
        layer: the labels.
        objects: those of its session of clicks.
    """
    found = locks.locked(layer)
    found |= {one.label for one in objects if one.prompts or one.by_hand}
    for step in history_of(layer).steps:
        carried = () if step.payload is None else step.payload[1].objects.values()
        things = [one for one in carried if one is not None]
        if step.payload is None or step.by_hand or any(one.by_hand for one in things):
            found |= step.labels
        elif len(carried) > 1:
            found |= {one.label for one in things}
    return found


def corrections(family: str) -> list[Correction]:
    """List the corrected scans of a family, the one that was kept first in front."""
    newest: dict[str, tuple[int, Path]] = {}
    for path in _folder(family).glob("*.*"):
        sha, _, number = path.name.partition(".")
        if sha and number.isdecimal() and (path / _NOTE).is_file():
            newest[sha] = max(newest.get(sha, (0, path)), (int(number), path))
    return sorted((_read_note(path) for _, path in newest.values()), key=lambda one: one.first_kept)


def keep(family: str, name: str, scan: Volume, labels: Volume) -> Correction:
    """Keep a corrected scan; what was kept of the same scan before is replaced.

    Every fifth scan is held out, the second first; a scan that is kept again stays what it is.

    Args:
        family: of the model.
        name: what the scan's layer is called.
        scan: the scan, 3D.
        labels: on its grid; each that it names counts as known, also one without voxels.

    Raises:
        SpadError: it cannot be written; what was there before stays.
    """
    sha = scan_hash(scan)[:16]
    others = corrections(family)
    earlier = next((one for one in others if one.folder.name.startswith(f"{sha}.")), None)
    used = [one for one in others if not one.left_out]
    held = sum(one.held_out for one in used)
    wanted = (len(used) + _EACH - 1) // _EACH
    number = 1 if earlier is None else int(earlier.folder.name.partition(".")[2]) + 1
    target = _folder(family) / f"{sha}.{number}"
    organs = tuple((labels.label_names or {}).values())
    made = Correction(
        *(target, name, organs, held < wanted if earlier is None else earlier.held_out),
        time.time() if earlier is None else earlier.first_kept,
    )
    zoo.make_folder(target.parent)
    try:
        with tempfile.TemporaryDirectory(prefix=".part-", dir=target.parent) as part:
            whole = Path(part) / target.name
            write_cases([OpenCase(name, scan, labels, made.held_out)], whole)
            jsonfile.write(whole / _NOTE, _note(made))
            whole.replace(target)
    except OSError as error:
        raise SpadError(
            f"The corrections cannot be kept in {target.parent} ({error.strerror or error}); "
            "expected a folder with free space that may be written (SPAD_HOME says where)."
        ) from error
    if earlier is not None:
        shutil.rmtree(earlier.folder, ignore_errors=True)
    return made


def leave_out(one: Correction, *, left_out: bool) -> None:
    """Use a correction no more, or again; it stays on the disk.

    Raises:
        SpadError: the note beside it cannot be written.
    """
    jsonfile.write(one.folder / _NOTE, _note(replace(one, left_out=left_out)))


def only(labels: Volume, names: Mapping[int, str]) -> Volume:
    """Leave of labels those that are named."""
    array = np.where(np.isin(labels.array, list(names)), labels.array, 0)
    return labels.with_array(array.astype(labels.array.dtype), label_names=dict(names))


def plan(model: zoo.Entry) -> Plan:
    """Make ready what a run learns from: the corrections as they are now, and the model.

    Raises:
        SpadError: the files cannot be written.
    """
    family = family_of(model.name)
    stamp = time.strftime("%Y%m%d-%H%M%S")
    place = zoo.spad_home() / "data" / f"corrections-{family}-{stamp}"
    folders = []
    used = [one for one in corrections(family) if not one.left_out]
    for number, one in enumerate(used, 1):
        folder = place / f"{number:04d}"
        zoo.make_folder(folder)
        for path in sorted(one.folder.iterdir()):
            if path.name != _NOTE:
                _share(path, folder / path.name)
        folders.append(str(folder))
    preset = str(model.card.provenance.get("preset"))
    return Plan(
        recipe="improve",
        data=tuple(folders),
        preset=preset if preset in PRESETS else PRESETS[0],
        steps=STEPS,
        init=model.name,
        name=f"improve-{family}-{stamp}",
    )


def latest_run(family: str) -> Path | None:
    """Find the run that improved a model of a family last."""
    named = re.compile(rf"improve-{re.escape(family)}-\d{{8}}-\d{{6}}(-\d+)?")
    found = [one for one in runs_folder().glob("improve-*") if named.fullmatch(one.name)]
    return max((one for one in found if runs.is_run(one)), key=lambda one: one.name, default=None)


def note_result(run: Path, comparisons: Sequence[Comparison]) -> Improvement:
    """Note down in a run's folder what its model is good for.

    Raises:
        SpadError: it cannot be written.
    """
    made = Improvement(
        tuple(one.trial.scan_name for one in comparisons),
        tuple(mean_rows(comparisons)),
        comparisons[0].step or 0,
        _changed(comparisons),
    )
    jsonfile.write(run / _RESULT, asdict(made))
    return made


def read_result(run: Path) -> Improvement | None:
    """Read what was noted down of a run; None before that."""
    try:
        found = json.loads((run / _RESULT).read_text(encoding="utf-8"))
        rows = tuple(Row(**row) for row in found["rows"])
        scans, changed = tuple(found["scans"]), tuple(found["changed"])
        return Improvement(scans, rows, int(found["step"]), changed, str(found["model"]))
    except (OSError, ValueError, TypeError, KeyError):
        return None


def use(run: Path) -> zoo.Entry:
    """Install a run's model, or bring it back if it was set aside.

    Raises:
        SpadError: it cannot be written, or the run holds no model any more.
    """
    result, family = read_result(run), _family_of_run(run)
    name = "" if result is None else result.model
    if name and zoo.aside(name).exists():
        entry = zoo.bring_back(name)
    elif name in {entry.name for entry in zoo.models()}:
        entry = zoo.find(name)
    else:
        entry = zoo.install(run, new_name(family))
    if result is not None:
        jsonfile.write(run / _RESULT, asdict(result) | {"model": entry.name})
    zoo.make_folder(_folder(family))
    jsonfile.write_text(_folder(family) / _IN_USE, entry.name + "\n")
    return entry


def before(improved: zoo.Entry) -> str:
    """Name the model that an improved one began with, or its family where that is gone."""
    name = str(improved.card.provenance.get("init"))
    there = {entry.name for entry in zoo.models()}
    return name if name in there else family_of(improved.name)


def go_back(improved: zoo.Entry) -> str:
    """Set an improved model aside.

    Returns:
        The model before it.

    Raises:
        SpadError: it cannot be moved.
    """
    name = before(improved)
    zoo.set_aside(improved.name)
    note = _folder(family_of(improved.name)) / _IN_USE
    if is_improved(name):
        jsonfile.write_text(note, name + "\n")
    else:
        note.unlink(missing_ok=True)
    return name


def in_use(family: str) -> str:
    """Name the improved model of a family that a person chose to use; "" for none."""
    try:
        return (_folder(family) / _IN_USE).read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _changed(comparisons: Sequence[Comparison]) -> tuple[str, ...]:
    alike: dict[str, list[float]] = {}
    for one in comparisons:
        for name, dice in one.alike().items():
            alike.setdefault(name, []).append(dice)
    return tuple(name for name, dice in alike.items() if np.mean(dice) < _ALIKE)


def _folder(family: str) -> Path:
    return zoo.spad_home() / "corrections" / family


def _family_of_run(run: Path) -> str:
    return family_of(str(runs.read_recipe(run).get("init")))


def _note(one: Correction) -> dict[str, Any]:
    return {name: value for name, value in asdict(one).items() if name != "folder"}


def _read_note(folder: Path) -> Correction:
    path = folder / _NOTE
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return Correction(**{**found, "folder": folder, "organs": tuple(found["organs"])})
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise SpadError(
            f"{path} cannot be read ({error}); expected what 'Keep corrections' wrote; remove the "
            "folder and keep the scan again."
        ) from error


def _share(path: Path, target: Path) -> None:
    """Give a file a second name, or a copy where the disk has no such names."""
    try:
        os.link(path, target)
    except OSError:
        try:
            shutil.copyfile(path, target)
        except OSError as error:
            raise SpadError(
                f"{target} cannot be written ({error.strerror or error}); expected a folder with "
                "free space that may be written (SPAD_HOME says where)."
            ) from error
