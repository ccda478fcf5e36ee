"""`spad prepare`: a tree of scans into a store, in parallel, going on where it was stopped.

A volume is made again only if its source's checksum or how it is made has changed. Table and
`store.json` are written once all volumes are there; a store may be added to, data set by data set.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import multiprocessing
import os
import shutil
import signal
import threading
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from spad import jsonfile
from spad.data import store as stores
from spad.data.cases import read_labels
from spad.data.collect import Collection, LeftOut, Scan, collect
from spad.data.store import ABOUT, TABLE, VOLUMES, Row, Store
from spad.data.stored_form import Stored, volumes_of, weight_of_part
from spad.errors import SpadError
from spad.processes import ProcessIdentity, this_process
from spad.progress import Progress, silent
from spad.volumes.files import read

SIDE = 512
"""Most voxels of the shorter in-plane side."""
LOCK = "writing.json"
_TEMPORARY = ".tmp"
_BLOCK = 1 << 22


@dataclass(frozen=True)
class Job:
    """One scan to bring into a store."""

    scan: Scan
    store: Path
    side: int
    named_labels: bool


@dataclass(frozen=True)
class Outcome:
    """What became of a scan: its rows (their part not yet chosen), or why there are none."""

    rows: tuple[Row, ...] = ()
    left_out: LeftOut | None = None
    written: int = 0


@dataclass(frozen=True)
class Prepared:
    """A store after `prepare_store`.

    Attributes:
        store: what is in it now.
        written: how many volumes were made in this call; the others were there.
        left_out: what this source holds that is not in the store.
    """

    store: Store
    written: int
    left_out: tuple[LeftOut, ...]


def prepare_store(
    source: str | Path,
    store: str | Path,
    *,
    data_set: str | None = None,
    licence: str | None = None,
    side: int = SIDE,
    jobs: int = 1,
    seed: int = 0,
    progress: Progress = silent,
) -> Prepared:
    """Bring the scans of a tree or manifest into a store; finish or renew one that is there.

    Args:
        source: a folder tree or a manifest, see `spad.data.collect`.
        store: the folder of the store, new or already one.
        data_set: take the whole source as this data set.
        licence: the terms of all that is in the source, if somebody states them.
        side: most voxels of the shorter in-plane side.
        jobs: processes that work at the same time.
        seed: of the choice of scans kept for validation.
        progress: told after each scan.

    Raises:
        SpadError: there is nothing to read, the place cannot be used or is in use, or a process
            was killed.
    """
    source, store = Path(source), Path(store)
    _check_place(source, store)
    found = collect(source, data_set)
    store.mkdir(parents=True, exist_ok=True)
    with _claimed(store):
        about = _begin(store)
        outcomes = _run(_jobs(found, store, side), jobs, progress)
        left_out = [*found.left_out, *(one.left_out for one in outcomes if one.left_out)]
        rows = [row for one in outcomes for row in one.rows]
        options = {"side": side, "seed": seed}
        if licence is not None:
            found = replace(
                found,
                data_sets={n: replace(d, licence=licence) for n, d in found.data_sets.items()},
            )
        _finish(store, about, found, split(rows, seed), left_out, options)
    written = sum(one.written for one in outcomes)
    return Prepared(stores.open_store(store), written, tuple(left_out))


def split(rows: Iterable[Row], seed: int) -> list[Row]:
    """Choose the part of each volume that has none: one per data set and modality is kept.

    Where a data set states the part of any volume, the others are for training. Else one volume
    of each modality is drawn by weight, of a patient already drawn from if there is one; what else
    there is of these patients is put aside. A modality of a single patient is left for training.

    Args:
        rows: with "train", "validation" or "" as part.
        seed: of the choice, which for a data set depends on nothing else.

    Returns:
        The rows, each with its part.
    """
    by_set: dict[str, list[Row]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: row.key):
        by_set[row.data_set].append(row)
    done: list[Row] = []
    for name, members in by_set.items():
        if any(row.part for row in members):
            done += [replace(row, part=row.part or "train") for row in members]
            continue
        rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
        kept = _kept(members, rng)
        patients = {row.patient for row in members if row.key in kept}
        for row in members:
            rest = "aside" if row.patient in patients else "train"
            done.append(replace(row, part="validation" if row.key in kept else rest))
    return done


def _kept(rows: Sequence[Row], rng: np.random.Generator) -> set[str]:
    patients_of: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        patients_of[row.modality].add(row.patient)
    only = {next(iter(p)) for p in patients_of.values() if len(p) == 1}
    kept: set[str] = set()
    drawn: set[str] = set()
    for modality, patients in sorted(patients_of.items()):
        if len(patients) < 2:
            continue
        allowed = (drawn & patients) or (patients - only) or patients
        candidates = [r for r in rows if r.modality == modality and r.patient in allowed]
        weights = np.array([row.weight for row in candidates])
        chosen = candidates[int(rng.choice(len(candidates), p=weights / weights.sum()))]
        kept.add(chosen.key)
        drawn.add(chosen.patient)
    return kept


def _check_place(source: Path, store: Path) -> None:
    there, tree = store.resolve(), source.resolve()
    if tree.is_dir() and (there == tree or tree in there.parents or there in tree.parents):
        raise SpadError(
            f"{store} lies in {source} or the other way round; expected two places; choose another "
            "folder for the store."
        )
    if store.is_dir() and not (store / ABOUT).is_file():
        others = sorted(p.name for p in store.iterdir() if p.name != LOCK)
        if others:
            raise SpadError(
                f"{store} is not empty ({', '.join(others[:3])}) and no store; expected a new "
                "folder or a store; choose another."
            )
    elif store.exists() and not store.is_dir():
        raise SpadError(f"{store} is a file; expected a folder for the store; choose another.")


@contextmanager
def _claimed(store: Path) -> Iterator[None]:
    """Be the only one that writes to a store; a writer that has died does not count."""
    lock = store / LOCK
    try:
        try:
            other = ProcessIdentity.from_json(json.loads(lock.read_text(encoding="utf-8")))
        except (ValueError, KeyError, TypeError):
            other = None
        if other is not None and other.is_alive() is not False:
            raise SpadError(
                f"{store} is being written by process {other.pid} on {other.host}; expected to be "
                f"the only one; wait for it, or remove {lock.name} in it if that has ended."
            )
        lock.unlink()
    except FileNotFoundError:
        pass
    with lock.open("x", encoding="utf-8") as file:
        file.write(jsonfile.dumps(this_process().to_json()))
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)


def _begin(store: Path) -> dict[str, Any]:
    """Read what the store says about itself; a new one is marked as a store."""
    if (store / ABOUT).is_file():
        return stores.read_about(store)
    about = {"version": stores.VERSION, "data_sets": {}, "left_out": []}
    jsonfile.write(store / ABOUT, about)
    return about


def _jobs(found: Collection, store: Path, side: int) -> list[Job]:
    named = {name: bool(one.label_names) for name, one in found.data_sets.items()}
    return [Job(scan, store, side, named[scan.data_set]) for scan in found.scans]


def _run(jobs: Sequence[Job], processes: int, progress: Progress) -> list[Outcome]:
    outcomes = []
    with _mapped(jobs, min(processes, len(jobs))) as results:
        for job, outcome in zip(jobs, results, strict=True):
            outcomes.append(outcome)
            progress(len(outcomes) / len(jobs), job.scan.key)
    return outcomes


@contextmanager
def _mapped(jobs: Sequence[Job], processes: int) -> Iterator[Iterator[Outcome]]:
    if processes <= 1:
        yield map(work, jobs)
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, mp_context=context, initializer=_begin_worker)
    try:
        yield pool.map(work, jobs)
    except BrokenProcessPool as error:
        raise SpadError(
            "A process that reads scans was killed, most likely for want of memory; expected all "
            "to end by themselves; run the same again with fewer --jobs: it goes on from here."
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _begin_worker() -> None:
    """Leave interrupts to the parent, and end when it has ended, however that was."""
    import torch

    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def follow() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def work(job: Job) -> Outcome:
    """Bring one scan into the store, unless it is there as it would be made now.

    Raises:
        SpadError: the store cannot be written.
    """
    scan = job.scan
    try:
        made_by = _made_by(job)
        rows = _present(job, made_by)
        if rows:
            return Outcome(rows)
        volumes = list(_read(job))
    except SpadError as error:
        return Outcome(left_out=LeftOut(scan.data_set, scan.source, _without(str(error), scan)))
    except MemoryError:
        reason = "it does not fit into memory; run again with fewer --jobs"
        return Outcome(left_out=LeftOut(scan.data_set, scan.source, reason))
    except Exception as error:  # one odd file among thousands is no reason to lose all others
        reason = f"an error of ours while reading it ({type(error).__name__}: {error})"
        return Outcome(left_out=LeftOut(scan.data_set, scan.source, reason))
    try:
        rows = tuple(_write(job, n, volumes, made_by) for n in range(len(volumes)))
    except OSError as error:
        raise SpadError(
            f"{job.store} cannot be written ({error.strerror or error}); expected room and the "
            "right to write; make room and run the same again: it goes on from here."
        ) from error
    return Outcome(rows, written=len(rows))


def _without(reason: str, scan: Scan) -> str:
    """Leave the machine's own paths out of a sentence: what lies in the store may travel."""
    for path in filter(None, (scan.labels, scan.path)):
        reason = reason.replace(str(path), path.name)
    return " ".join(reason.split())


def _made_by(job: Job) -> dict[str, Any]:
    """Give all that decides on a scan's volumes: if it is the same, so are they."""
    scan = job.scan
    return {
        "version": stores.VERSION,
        "source_sha256": _file_checksum(scan.path),
        "series": scan.series,
        "labels_source_sha256": _file_checksum(scan.labels) if _labelled(job) else "",
        "side": job.side,
        "orientation": scan.orientation,
        "modality": scan.modality,
    }


def _labelled(job: Job) -> bool:
    return job.scan.labels is not None and job.named_labels


def _file_checksum(path: Path | None) -> str:
    """Give the SHA-256 of a file, or of a folder's file names and their checksums."""
    if path is None:
        return ""
    digest = hashlib.sha256()
    try:
        if path.is_dir():
            for file in sorted(p for p in path.rglob("*") if p.is_file()):
                digest.update(
                    f"{file.relative_to(path).as_posix()} {_file_checksum(file)}".encode()
                )
            return digest.hexdigest()
        with path.open("rb") as stream:
            while block := stream.read(_BLOCK):
                digest.update(block)
    except OSError as error:
        raise SpadError(f"{path} cannot be read ({error.strerror or error}).") from error
    return digest.hexdigest()


def _key(scan: Scan, number: int, count: int) -> str:
    return scan.key if count == 1 else f"{scan.key}-{number:04d}"


def _present(job: Job, made_by: dict[str, Any]) -> tuple[Row, ...]:
    """Give the rows of a scan whose volumes are all there as they would be made now."""
    rows: list[Row] = []
    count = 1
    for first in (_key(job.scan, 0, 1), _key(job.scan, 0, 2)):
        found = _attributes(job.store, first)
        if found is not None and found["made_by"] == made_by:
            count = int(found["count"])
            break
    for number in range(count):
        found = _attributes(job.store, _key(job.scan, number, count))
        if found is None or found["made_by"] != made_by or found["count"] != count:
            return ()
        row = Row.from_json(found["row"])
        rows.append(replace(row, **_stated(job.scan, count)))
    return tuple(rows)


def _attributes(store: Path, key: str) -> dict[str, Any] | None:
    try:
        text = (store / VOLUMES / key / "zarr.json").read_text(encoding="utf-8")
        return dict(json.loads(text)["attributes"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _stated(scan: Scan, count: int) -> dict[str, Any]:
    """Give the cells of a row that the source states and that leave the voxels as they are."""
    return {
        "source": scan.source,
        "patient": scan.patient,
        "weight": scan.weight * weight_of_part(count),
        "part": scan.part or "",
    }


def _read(job: Job) -> Iterator[Stored]:
    scan = job.scan
    volume = read(scan.path, series=scan.series)
    labels = read_labels(scan.labels, volume) if scan.labels and job.named_labels else None
    yield from volumes_of(volume, labels, job.side, scan.orientation, scan.modality)


def _write(job: Job, number: int, volumes: Sequence[Stored], made_by: dict[str, Any]) -> Row:
    stored, count = volumes[number], len(volumes)
    key = _key(job.scan, number, count)
    cells: dict[str, Any] = stored.figures | _stated(job.scan, count)
    row = Row(
        key=key,
        data_set=job.scan.data_set,
        modality=stored.modality,
        shape=stored.image.shape,
        spacing=stored.spacing,
        orientation=stored.orientation,
        da=stored.da,
        dtype=stored.image.dtype.name,
        limits=stored.limits,
        span=stored.span,
        labels=stored.labels is not None,
        origin_shape=stored.origin_shape,
        origin_spacing=stored.origin_spacing,
        sha256=stores.checksum(stored.image),
        labels_sha256="" if stored.labels is None else stores.checksum(stored.labels),
        source_sha256=made_by["source_sha256"],
        **cells,
    )
    place = job.store / VOLUMES / key
    temporary = place.with_name(f".{place.name}{_TEMPORARY}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.parent.mkdir(parents=True, exist_ok=True)
    attributes = {"row": asdict(row), "made_by": made_by, "count": count}
    stores.write_group(temporary, stored.image, stored.labels, stored.da, attributes)
    if place.exists():
        shutil.rmtree(place)
    temporary.rename(place)
    return row


def _finish(
    store: Path,
    about: dict[str, Any],
    found: Collection,
    rows: Sequence[Row],
    left_out: Sequence[LeftOut],
    options: dict[str, Any],
) -> None:
    """Write the table beside what other data sets have in it; remove what it does not name."""
    others: list[Row] = []
    if (store / TABLE).is_file():
        others = [r for r in stores.open_store(store).rows if r.data_set not in found.data_sets]
    for name in found.data_sets:
        keys = {row.key for row in rows if row.data_set == name}
        for place in (store / VOLUMES / name).glob("*"):
            if f"{name}/{place.name}" not in keys:
                shutil.rmtree(place)
    for name, one in found.data_sets.items():
        known = None if one.known is None else asdict(one.known)
        about["data_sets"][name] = {
            "licence": one.licence,
            "known": known,
            "label_names": one.label_names,
            "options": options,
        }
    kept = [one for one in about["left_out"] if one["data_set"] not in found.data_sets]
    about["left_out"] = sorted(
        [*kept, *map(asdict, left_out)], key=lambda one: (one["data_set"], one["source"])
    )
    about["data_sets"] = dict(sorted(about["data_sets"].items()))
    jsonfile.write(store / ABOUT, about)
    every = sorted([*others, *rows], key=lambda row: row.key)
    jsonfile.write_text(store / TABLE, _table(every))


def _table(rows: Sequence[Row]) -> str:
    text = io.StringIO(newline="")
    names = [field.name for field in fields(Row)]
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(row.to_cells() for row in rows)
    return text.getvalue()
