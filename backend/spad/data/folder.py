"""Labelled scans in the layouts that people have: which files belong together, and who is kept.

Known by themselves: `img<ID>` with `label<ID>` and `labels.json`, any folder of image and labels
pairs, Synapse BTCV and CHAOS as downloaded, nnU-Net raw, MONAI datalists and Medical Decathlon, and
stores of `spad prepare`. `split.json` ({"train": [ID], "validation": [ID]}) says who is kept.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path

from spad.data import layouts, layouts_chaos, layouts_lists
from spad.data.cases import Case as Case
from spad.data.cases import Folder
from spad.data.pairs import is_labels_name as is_labels_name
from spad.data.sidecars import stated_parts
from spad.data.store import Store, is_store, open_store
from spad.errors import SpadError


def read_source(path: str | Path, validation_share: float = 0.2) -> Folder | Store:
    """List the scans of a data set, or those of a store that `spad prepare` made.

    Args:
        path: a folder, a JSON datalist or a store.
        validation_share: as for `read_folder`; a store says itself who is kept.

    Raises:
        SpadError: as `read_folder` and `open_store`.
    """
    return open_store(path) if is_store(path) else read_folder(path, validation_share)


def read_folder(path: str | Path, validation_share: float = 0.2) -> Folder:
    """List the scans of a folder, or those of a JSON datalist.

    Args:
        path: the folder or the file.
        validation_share: fraction of the patients with labels (of all, if nobody has any) that is
            kept for validation where nothing says which; spread evenly over the names.

    Raises:
        SpadError: no such folder, no scans in it, or a JSON file that does not say what it should.
    """
    path = Path(path)
    if not path.is_dir() and not (path.is_file() and path.suffix.lower() == ".json"):
        raise SpadError(
            f"{path} is no folder; expected one with scans, a JSON datalist or a store; give such "
            "a place to --data."
        )
    found = known_layout(path) or layouts.find(path)
    if found is None:
        raise SpadError(
            f"{path} holds no .nii, .nii.gz, .nrrd or .mha file; expected scans such as "
            "img0001.nii.gz; give another, or make a store of it with `spad prepare`."
        )
    return _split(found, validation_share)


def known_layout(path: Path) -> Folder | None:
    """Recognise a data set whose layout says more than the names of files do.

    Raises:
        SpadError: it is such a data set, but damaged.
    """
    found = layouts_lists.find(path)
    return layouts_chaos.find(path) if found is None and path.is_dir() else found


def _split(folder: Folder, share: float) -> Folder:
    """Say who is kept for validation: as the data set or a `split.json` states it, else a share."""
    if (folder.path / "split.json").is_file():
        parts = stated_parts(folder.path)
        often = Counter(_last(case) for case in folder.cases)
        kept = [
            any(parts.get(name) == "validation" for name in _ids(case, often))
            for case in folder.cases
        ]
    elif folder.split_stated:
        return folder
    else:
        patients = _kept(folder, share)
        kept = [_patient(case) in patients for case in folder.cases]
    cases = [dataclasses.replace(c, validation=v) for c, v in zip(folder.cases, kept, strict=True)]
    stated = (folder.path / "split.json").is_file()
    return dataclasses.replace(folder, cases=tuple(cases), split_stated=stated)


def _ids(case: Case, often: Counter[str]) -> list[str]:
    """List what a `split.json` may call a case: "MR/1/T2SPIR", its patient "MR/1", or "0001"."""
    last = [_last(case)] if often[_last(case)] == 1 else []
    return [case.name.partition("/")[2], case.patient.partition("/")[2], *last]


def _last(case: Case) -> str:
    return case.name.rpartition("/")[2]


def _patient(case: Case) -> str:
    return case.patient or case.name


def _kept(folder: Folder, share: float) -> set[str]:
    labelled = sorted({_patient(case) for case in folder.cases if case.labels is not None})
    names = labelled or sorted({_patient(case) for case in folder.cases})
    count = round(share * len(names)) if len(names) > 1 else 0
    return {names[(2 * i + 1) * len(names) // (2 * count)] for i in range(count)}
