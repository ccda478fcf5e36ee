"""Labels from prompts on the command line: `spad segment --clicks` and `spad replay`."""

from __future__ import annotations

import difflib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spad.errors import SpadError

if TYPE_CHECKING:
    from spad.inference.clicks import ClickSession
    from spad.progress import Progress
    from spad.prompts.session_file import Record
    from spad.volumes.volume import Volume


def label_by_clicks(
    scan: Volume,
    clicks: Path,
    *,
    model: str | None,
    modality: str | None,
    device: str,
    progress: Progress,
    session_file: Path | None = None,
) -> Volume:
    """Label what the clicks of a file say.

    Args:
        scan: the scan.
        clicks: see `spad.prompts.clicks_file`; a mask "automatic" starts an organ from the
            automatic result.
        model: a clicker, None for the default.
        modality: "CT" or "MR", None to take the scan's own.
        device: "auto", "cpu" or "cuda".
        progress: told about features and clicks.
        session_file: where to write the session, which `spad replay` plays again; its labels lie
            beside it, so that the Segment dock can open it.

    Returns:
        Labels on the scan's grid, with a report.

    Raises:
        SpadError: the file or one of its prompts cannot be used.
    """
    import time

    from spad.inference.clicks import ClickSession
    from spad.prompts import kept
    from spad.prompts.clicks_file import read_clicks

    entries = read_clicks(clicks, scan)
    begun = time.perf_counter()
    with ClickSession(scan, model, modality, device, progress=progress) as session:
        opened = time.perf_counter()
        known = [] if session.features is None else list(session.features.names.values())
        for name in dict.fromkeys(entry.label for entry in entries):
            _note_unknown(name, known)
        for number, entry in enumerate(entries):
            progress(number / len(entries), f"Prompt {number + 1} of {len(entries)}")
            if entry.prompt is not None:
                session.prompt(entry.prompt, label=entry.label)
            elif entry.mask is not None and entry.mask.name == "automatic":
                session.start(entry.label)
            else:
                session.start(entry.label, _mask(entry.mask, scan))
        if session_file is not None:
            kept.write(
                session_file, record_of(session), session.session.objects, session.session.labels
            )
        seconds = {"load": opened - begun, "model": time.perf_counter() - opened}
        return _measured(session, seconds | {"total": time.perf_counter() - begun})


def _mask(path: Path | None, scan: Volume) -> Any:
    import numpy as np

    from spad.data.channels import on_grid_of
    from spad.volumes.files import read

    assert path is not None
    mask = on_grid_of(read(path), scan)
    if mask is None:
        raise SpadError(
            f"{path} lies on another grid than the scan; give a mask on the scan's own grid."
        )
    return np.asarray(mask.array) > 0


def _note_unknown(name: str, known: list[str]) -> None:
    """Say that a name tells the model nothing: a typing error would else go unnoticed."""
    if not known or name in known:
        return
    near = difflib.get_close_matches(name, known, 1)
    hint = f"; did you mean '{near[0]}'?" if near else ""
    print(
        f"'{name}' is no organ that the model knows by itself (it knows {', '.join(known)}), so it "
        f"is found by the prompts alone{hint}",
        file=sys.stderr,
    )


def _measured(session: ClickSession, seconds: dict[str, float]) -> Volume:
    from dataclasses import replace

    from spad.data.channels import one_phase
    from spad.volumes.measures import measure

    labels = session.labels
    scan = one_phase(session.volume, session.phase)
    report = {
        "model": session.model.entry.name,
        "why_model": "It was asked for or is the default for clicks.",
        "modality": session.scan.modality,
        "device": session.model.place.type,
        "seconds": seconds,
        "prompts": sum(len(one.prompts) for one in session.session.objects.values()),
        "labels": measure(scan, labels.array, labels.label_names or {}),
    }
    return replace(labels, report=report)


def record_of(session: ClickSession) -> Record:
    """Give the session file's content for a session of this process."""
    from spad.checkpoints import zoo
    from spad.data.channels import one_phase
    from spad.prompts.made_with import made_with
    from spad.prompts.session_file import Record, scan_entry

    def file_of(entry: zoo.Entry) -> dict[str, str]:
        return {"name": entry.name, "sha256": entry.sha256()}

    segmenter = session.model.card.segmenter
    return Record(
        scan=scan_entry(one_phase(session.volume, session.phase), session.phase),
        models={
            "clicker": file_of(session.model.entry),
            "segmenter": None if segmenter is None else file_of(zoo.find(segmenter)),
        },
        settings={
            "modality": session.scan.modality,
            "features": session.features is not None,
            "organs": session.told_organs,
            **made_with(session.model.place.type),
        },
        steps=session.session.log,
        names={one.label: one.name for one in session.session.objects.values()},
    )
