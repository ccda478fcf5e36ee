"""Reading scans of folders and stores, and making phantoms, into a cohort."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import psutil
import torch

from spad import phantoms
from spad.data.cases import Case, Folder, read_case_labels, read_channels, unnamed_channels
from spad.data.cohort import Cohort, Contract, Prepared, Voxels
from spad.data.frames import Spacing, labels_on_working_grid, working_frame
from spad.data.known_sets import UNKNOWN
from spad.data.model_input import channel_modality, contract_for, in_unit, unit_of, unit_volume
from spad.data.store import Row, Store
from spad.errors import SpadError
from spad.progress import Progress, silent
from spad.volumes.anisotropy import FLAT
from spad.volumes.axes import to_canonical
from spad.volumes.intensity import Intensity, Limits
from spad.volumes.statistics import stored_statistics
from spad.volumes.volume import Volume

CENTRES = 2000
"""Voxels remembered of each label, from which crops are centred."""

LEAST_AIR = -100
"""HU: a CT with no voxel below this is not in HU."""

PHANTOM_GRIDS = {"CT": ((3.0, 3.0, 3.0), (96, 112, 128)), "MR": ((7.7, 2.5, 2.5), (38, 128, 152))}
"""Spacing in mm and shape of the phantoms that training draws from."""


def prepare(
    sources: Sequence[Folder | Store],
    contract: Contract,
    *,
    with_labels: bool,
    phantom_count: int = 0,
    label_names: Mapping[int, str] | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> Cohort:
    """Decode every scan once; those of stores that are too large for memory are read as needed.

    With labels, the channels of a scan stay together: all scans have equally many, and those of one
    channel count for as many by copies of it, as the authors do with T2-SPIR beside T1-DUAL (the
    samples and the model copy them). Without labels each channel is a scan of its own.

    Args:
        sources: what `read_source` gave for each folder or store.
        contract: intensity contracts and working spacing.
        with_labels: leave out scans without labels and number the labels of all sources by name.
        phantom_count: made-up abdomens to add, CT and MR in turn.
        label_names: labels that are there whatever the sources have, id to name; others follow.
        seed: that of the run; phantoms take theirs from it.
        progress: told after each scan.

    Raises:
        SpadError: a scan cannot be read, labels or channels lie on another grid, scans have
            different numbers of channels, or nothing is left to train on.
    """
    known = {name: number for number, name in (label_names or {}).items()}
    names = _numbering(sources, phantom_count, known) if with_labels else {}
    folders = [source for source in sources if isinstance(source, Folder)]
    stores = [source for source in sources if isinstance(source, Store)]
    cases = [(f, c) for f in folders for c in f.cases if c.labels is not None or not with_labels]
    rows = [(s, r) for s in stores for r in _rows(s, with_labels)]
    lazy = contract.working_spacing is None and _too_large([row for _, row in rows])
    total = max(1, len(cases) + len(rows) + phantom_count)
    scans: list[Prepared] = []
    for done, (folder, case) in enumerate(cases, 1):
        scans += _from_case(folder, case, names, contract, with_labels)
        progress(done / total, f"reading {case.name}")
    for done, (store, row) in enumerate(rows, len(cases) + 1):
        scans.append(_from_row(store, row, names, contract, with_labels, lazy))
        progress(done / total, f"reading {row.key}")
    for index in range(phantom_count):
        scans.append(_from_phantom(index, seed, names, contract, with_labels))
        progress((len(cases) + len(rows) + index + 1) / total, f"making phantom {index + 1}")
    channels = _channels(scans, folders) if with_labels else ()
    cohort = Cohort(tuple(scans), {number: name for name, number in names.items()}, channels)
    if not cohort.part(validation=False):
        raise SpadError(
            f"{', '.join(str(s.path) for s in sources)} holds no scan to train on"
            f"{' with labels' if with_labels else ''}; expected img<ID>.nii.gz with "
            f"label<ID>.nii.gz, or a store of such; give other data."
        )
    return cohort


def _channels(scans: Sequence[Prepared], folders: Sequence[Folder]) -> tuple[str, ...]:
    """Name the channels that scans have; none where all have one.

    Raises:
        SpadError: scans of several channels have different numbers of them.
    """
    counts = {scan.image.shape[0]: scan.name for scan in reversed(scans)}
    counts.pop(1, None)
    if not counts:
        return ()
    if len(counts) > 1:
        said = " and ".join(f"{name} has {count}" for count, name in sorted(counts.items()))
        raise SpadError(
            f"The scans have different numbers of channels ({said}); expected equally many, or "
            "one; train on them apart."
        )
    (count,) = counts
    stated = [folder.channels for folder in folders if len(folder.channels) == count]
    return stated[0] if stated else unnamed_channels(count)


def _rows(store: Store, with_labels: bool) -> list[Row]:
    """List the volumes of a store that are for training or validation."""
    return [r for r in store.rows if r.part != "aside" and (r.labels or not with_labels)]


def _too_large(rows: Sequence[Row]) -> bool:
    """Tell whether volumes would take half of the free memory or more."""
    return sum(row.nbytes for row in rows) >= psutil.virtual_memory().available / 2


def _numbering(
    sources: Sequence[Folder | Store], phantom_count: int, known: Mapping[str, int]
) -> dict[str, int]:
    names = dict(known)
    listed: list[dict[int, str]] = []
    for source in sources:
        if isinstance(source, Folder):
            listed += [source.label_names, *(c.label_names for c in source.cases if c.label_names)]
            listed += [source.names_of(case) for case in source.cases if case.labels]
        else:
            listed += source.label_names.values()
    listed += [phantoms.LABELS] if phantom_count else []
    for labels in listed:
        for name in (labels[key] for key in sorted(labels)):
            names.setdefault(name, len(names) + 1)
    if not names:
        raise SpadError(
            f"{', '.join(str(source.path) for source in sources)} holds no labels; expected "
            "label<ID>.nii.gz beside img<ID>.nii.gz, or another known layout; give other data."
        )
    return names


def _from_case(
    folder: Folder,
    case: Case,
    names: dict[str, int],
    contract: Contract,
    with_labels: bool,
) -> list[Prepared]:
    """Read a case: one scan, or without labels one for each channel."""
    channels = read_channels(folder, case)
    labels = read_case_labels(case, channels[0]) if with_labels else None
    told = [c.modality for c in channels if c.modality is not None]
    if not told:
        raise SpadError(
            f"{case.image} does not tell its modality; expected CT values in HU, or CT or MR in "
            f"the file's name; "
            "rename it."
        )
    own_names = folder.names_of(case) if labels is not None else {}
    apart = [[c] for c in channels] if not with_labels else [channels]
    prepared = []
    for number, group in enumerate(apart, 1):
        name = case.name if len(apart) == 1 else f"{case.name}/{number}"
        modality = group[0].modality or told[0]
        made = _prepared(
            name, modality, group, labels, own_names, names, contract, False, case.validation
        )
        prepared.append(made)
    return prepared


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
        name, modality, [made.image], labels, phantoms.LABELS, names, contract, True, False
    )


def _prepared(
    name: str,
    modality: str,
    channels: Sequence[Volume],
    labels: Volume | None,
    own_names: dict[int, str],
    names: dict[str, int],
    contract: Contract,
    phantom: bool,
    validation: bool,
) -> Prepared:
    array = None if labels is None else labels_on_working_grid(labels, contract.working_spacing)
    drawn = _drawn(array, own_names, names, name)
    form = _in_hu(channels[0], modality, contract) if len(channels) == 1 else None
    image, limits, span, spacing, da = form or _in_unit(channels, modality, contract)
    others = [channel_modality(channel, contract, modality) for channel in channels[1:]]
    return Prepared(
        *(name, modality, image, *drawn, da, phantom, validation),
        limits=limits,
        span=span,
        spacing=spacing,
        channel_modalities=(modality, *others) if others else (),
    )


def _from_row(
    store: Store,
    row: Row,
    names: dict[str, int],
    contract: Contract,
    with_labels: bool,
    lazy: bool,
) -> Prepared:
    """Take a volume of a store; on a working grid of its own spacing it is read only if asked."""
    affine = _affine(row)
    marks, own_names = None, store.label_names[row.data_set]
    if with_labels:
        labels = Volume.from_array(store.labels(row), affine, label_names={})
        marks = labels_on_working_grid(labels, contract.working_spacing)
    drawn = _drawn(marks, own_names, names, row.key)
    modality = None if row.modality == UNKNOWN else row.modality
    limits = _limits(row, contract)
    image: Voxels = store.image(row)
    span = None if row.span is None else (row.span[0], row.span[1])
    spacing, da = _three(row.spacing), row.da
    if contract.working_spacing is not None:
        image, spacing, da = _coarser(store, row, limits, contract)
        limits, span = (0.0, 1.0), None
    elif not lazy:
        image = image[:, :, :, :]
    return Prepared(
        *(row.key, modality, image, *drawn, da, False, row.part == "validation"),
        limits=limits,
        span=span,
        weight=row.weight,
        spacing=spacing,
    )


def _limits(row: Row, contract: Contract) -> Limits:
    """Give the stored values that become 0 and 1: of HU by the contract, else the store's own."""
    if row.span is None:
        return row.limits[0], row.limits[1]
    intensity = contract_for(contract, "CT")
    return float(intensity.low), float(intensity.high)


def _coarser(
    store: Store, row: Row, limits: Limits, contract: Contract
) -> tuple[torch.Tensor, Spacing, int]:
    """Resample a volume in [0, 1] to the working grid, channel by channel."""
    window = Contract({"*": Intensity("window", *limits)}, contract.working_spacing)
    affine = _affine(row)
    made = [
        unit_volume(Volume.from_array(channel.numpy(), affine), window, "*")
        for channel in store.image(row)[:, :, :, :]
    ]
    image = torch.stack([torch.from_numpy(one.array).half() for one in made])
    flat = row.da == FLAT and "da" not in (contract.working_spacing or {})
    return image, made[0].spacing, FLAT if flat else made[0].da


def _affine(row: Row) -> np.ndarray:
    """Give a volume's axes and spacing as an affine; where it starts plays no part."""
    affine = np.zeros((4, 4))
    for axis, (letter, spacing) in enumerate(zip(row.orientation, row.spacing, strict=True)):
        world = next(w for w, ends in enumerate(("LR", "PA", "IS")) if letter in ends)
        affine[world, axis] = spacing if letter in "RAS" else -spacing
    affine[3, 3] = 1
    return affine


def _three(spacing: Sequence[float]) -> Spacing:
    z, y, x = spacing
    return z, y, x


Drawn = tuple[torch.Tensor | None, tuple[int, ...], dict[int, np.ndarray]]
"""Labels in the cohort's numbering, those that are known, and voxels of each."""


def _drawn(
    array: np.ndarray | None, own_names: dict[int, str], names: dict[str, int], case: str
) -> Drawn:
    if array is None:
        return None, (), {}
    known = tuple(sorted(names[own] for own in own_names.values()))
    array = _renumbered(array, own_names, names, case)
    centres = {label: _centres(array, label) for label in known if (array == label).any()}
    return torch.from_numpy(array), known, centres


Form = tuple[torch.Tensor, Limits, Limits | None, Spacing, int]
"""Voxels (C, D, H, W), what becomes 0 and 1, the span of HU, spacing and `da`."""


def _in_hu(scan: Volume, modality: str, contract: Contract) -> Form | None:
    """Keep HU on the scan's own grid, for windows drawn at random; None where it cannot be."""
    intensity = contract_for(contract, modality)
    if contract.working_spacing is not None or intensity.unit != "HU":
        return None
    found = stored_statistics(scan, (0.5, 99.5), None)
    if found.minimum > LEAST_AIR:
        return None
    frame, (view, _) = working_frame(scan, None), to_canonical(scan, depth_first=True)
    whole = scan.slope % 1 == 0 and scan.intercept % 1 == 0 and scan.array.dtype.kind in "iu"
    image = np.empty(frame.size, np.int16 if whole else np.float16)
    for index, plane in enumerate(view):
        image[index] = np.clip(np.nan_to_num(in_unit(scan, plane), nan=-32768), -32768, 32767)
    limits = (float(intensity.low), float(intensity.high))
    span = (found.percentiles[0], found.percentiles[1])
    return torch.from_numpy(image)[None], limits, span, frame.spacing, frame.da


def _in_unit(channels: Sequence[Volume], modality: str, contract: Contract) -> Form:
    made = unit_of(channels, contract, modality)
    return torch.from_numpy(made.array).half(), (0.0, 1.0), None, made.spacing, made.da


def _renumbered(
    array: np.ndarray, own_names: dict[int, str], names: dict[str, int], case: str
) -> np.ndarray:
    unnamed = sorted(set(np.unique(array).tolist()) - set(own_names) - {0})
    if unnamed:
        raise SpadError(
            f"The labels of {case} hold {unnamed[0]}, which the data set does not name; add its "
            "name where the others stand, such as labels.json."
        )
    table = np.zeros(max([*own_names, 0]) + 1, np.uint8)
    for own, label in own_names.items():
        table[own] = names[label]
    return table[array]


def _centres(array: np.ndarray, label: int) -> np.ndarray:
    voxels = np.argwhere(array == label)
    return voxels[:: max(1, len(voxels) // CENTRES)].astype(np.float32)
