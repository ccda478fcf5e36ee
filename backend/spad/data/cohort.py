"""A cohort: scans and phantoms, decoded once, with one list of labels for all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from spad import phantoms
from spad.data.folder import Case, Folder
from spad.data.model_input import labels_on_working_grid, unit_volume
from spad.errors import SpadError
from spad.progress import Progress, silent
from spad.volumes.files import read
from spad.volumes.intensity import CT, MR, Intensity
from spad.volumes.volume import Volume

CENTRES = 2000
"""Voxels remembered of each label, from which crops are centred."""

PHANTOM_GRIDS = {"CT": ((3.0, 3.0, 3.0), (96, 112, 128)), "MR": ((7.7, 2.5, 2.5), (38, 128, 152))}
"""Spacing in mm and shape of the phantoms that training draws from."""


def model_contracts() -> dict[str, Intensity]:
    """Give the contracts of the models that are trained here.

    CT of -125 to 275 HU becomes -1 to 1; MR and all else do so by percentiles 0.5 to 99.5.
    """
    return {
        "CT": replace(CT, shift=0.5, scale=0.5),
        "MR": replace(MR, shift=0.5, scale=0.5),
        "*": replace(MR, shift=0.5, scale=0.5),
    }


@dataclass(frozen=True)
class Contract:
    """What preparing a scan needs of a card."""

    intensity: dict[str, Intensity]
    working_spacing: dict[str, float] | None


@dataclass(frozen=True, eq=False)
class Prepared:
    """One scan on the working grid.

    Attributes:
        name: folder and ID.
        modality: "CT", "MR", ... or None.
        image: (D, H, W) float16 in [0, 1], axes S->I, A->P, R->L with depth first.
        labels: (D, H, W) uint8 in the cohort's numbering, or None.
        known: labels that its annotators drew (cohort's numbering).
        centres: for each known label that occurs, (n, 3) voxels of it.
        da: degree of anisotropy of the working grid.
        phantom: whether it is made up.
        validation: whether it is kept out of training.
    """

    name: str
    modality: str | None
    image: torch.Tensor
    labels: torch.Tensor | None
    known: tuple[int, ...]
    centres: dict[int, np.ndarray]
    da: int
    phantom: bool
    validation: bool


@dataclass(frozen=True, eq=False)
class Cohort:
    """All scans of a run.

    Attributes:
        scans: train and validation scans.
        label_names: id -> name, the same for all scans; empty without labels.
    """

    scans: tuple[Prepared, ...]
    label_names: dict[int, str]

    def part(self, validation: bool) -> list[Prepared]:
        """The scans for training, or those for validation (never phantoms)."""
        return [s for s in self.scans if s.validation == validation]

    def modality_labels(self) -> dict[str, list[int]]:
        """List, for each modality, the labels of its real scans (of phantoms if there are none)."""
        real = [s for s in self.scans if not s.phantom] or list(self.scans)
        modalities = {s.modality for s in real if s.modality}
        return {
            m: sorted({i for s in real if s.modality == m for i in s.known})
            for m in sorted(modalities)
        }


def prepare(
    folders: Sequence[Folder],
    contract: Contract,
    *,
    with_labels: bool,
    phantom_count: int = 0,
    seed: int = 0,
    progress: Progress = silent,
) -> Cohort:
    """Decode every scan once.

    Args:
        folders: what `read_folder` gave.
        contract: intensity contracts and working spacing.
        with_labels: leave out scans without labels and number the labels of all folders by name.
        phantom_count: made-up abdomens to add, CT and MR in turn.
        seed: that of the run; phantoms take theirs from it.
        progress: told after each scan.

    Raises:
        SpadError: a scan cannot be read, labels lie on another grid, or nothing is left to train
            on.
    """
    names = _numbering(folders, phantom_count) if with_labels else {}
    cases = [(f, c) for f in folders for c in f.cases if c.labels is not None or not with_labels]
    total = max(1, len(cases) + phantom_count)
    scans: list[Prepared] = []
    for folder, case in cases:
        scans.append(_from_case(case, folder.label_names, names, contract, with_labels))
        progress(len(scans) / total, f"reading {case.name}")
    for index in range(phantom_count):
        scans.append(_from_phantom(index, seed, names, contract, with_labels))
        progress(len(scans) / total, f"making phantom {index + 1}")
    cohort = Cohort(tuple(scans), {number: name for name, number in names.items()})
    if not cohort.part(validation=False):
        raise SpadError(
            f"{', '.join(str(f.path) for f in folders)} holds no scan to train on"
            f"{' with labels' if with_labels else ''}; expected img<ID>.nii.gz with "
            f"label<ID>.nii.gz; give other data."
        )
    return cohort


def _numbering(folders: Sequence[Folder], phantom_count: int) -> dict[str, int]:
    names: dict[str, int] = {}
    listed = [f.label_names for f in folders] + ([phantoms.LABELS] if phantom_count else [])
    for labels in listed:
        for name in (labels[key] for key in sorted(labels)):
            names.setdefault(name, len(names) + 1)
    if not names:
        raise SpadError(
            'No folder has a labels.json; expected {"1": "spleen", ...} beside the scans; write '
            "one."
        )
    return names


def _from_case(
    case: Case,
    own_names: dict[int, str],
    names: dict[str, int],
    contract: Contract,
    with_labels: bool,
) -> Prepared:
    scan = read(case.image)
    labels = read(case.labels) if with_labels and case.labels is not None else None
    if labels is not None and not np.allclose(labels.affine, scan.affine, atol=1e-3):
        raise SpadError(
            f"{case.labels} lies on another grid than {case.image}; expected the same; correct one."
        )
    modality = scan.modality
    if modality is None:
        raise SpadError(
            f"{case.image} does not tell its modality; expected CT values in HU, or CT or MR in "
            f"the file's name; "
            "rename it."
        )
    return _prepared(
        case.name, modality, scan, labels, own_names, names, contract, False, case.validation
    )


def _from_phantom(
    index: int, seed: int, names: dict[str, int], contract: Contract, with_labels: bool
) -> Prepared:
    modality = "CT" if index % 2 == 0 else "MR"
    spacing, shape = PHANTOM_GRIDS[modality]
    made = phantoms.phantom(
        1000 * (seed + 1) + index, modality=modality, spacing=spacing, shape=shape
    )
    labels = made.labels if with_labels else None
    name = f"phantom/{index}"
    return _prepared(
        name, modality, made.image, labels, phantoms.LABELS, names, contract, True, False
    )


def _prepared(
    name: str,
    modality: str,
    scan: Volume,
    labels: Volume | None,
    own_names: dict[int, str],
    names: dict[str, int],
    contract: Contract,
    phantom: bool,
    validation: bool,
) -> Prepared:
    unit = unit_volume(scan, contract, modality)
    image = torch.from_numpy(unit.array).half()
    known = tuple(sorted(names[own] for own in own_names.values())) if labels is not None else ()
    numbered, centres = None, {}
    if labels is not None:
        array = _renumbered(
            labels_on_working_grid(labels, contract.working_spacing), own_names, names, name
        )
        numbered = torch.from_numpy(array)
        centres = {label: _centres(array, label) for label in known if (array == label).any()}
    return Prepared(name, modality, image, numbered, known, centres, unit.da, phantom, validation)


def _renumbered(
    array: np.ndarray, own_names: dict[int, str], names: dict[str, int], case: str
) -> np.ndarray:
    unnamed = sorted(set(np.unique(array).tolist()) - set(own_names) - {0})
    if unnamed:
        raise SpadError(
            f"The labels of {case} hold {unnamed[0]}, which labels.json does not name; add its "
            f"name."
        )
    table = np.zeros(max([*own_names, 0]) + 1, np.uint8)
    for own, label in own_names.items():
        table[own] = names[label]
    return table[array]


def _centres(array: np.ndarray, label: int) -> np.ndarray:
    voxels = np.argwhere(array == label)
    return voxels[:: max(1, len(voxels) // CENTRES)].astype(np.float32)
