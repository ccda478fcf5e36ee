"""How good a tokenizer is: figures over scans, beside what plain numbers on the token grid give.

The report that `judge` gives has the keys

- `model`, `device`, `seconds`, `kept` (DCT coefficients per token);
- `cases`: of each scan `case, data_set, modality, phantom, da, grid, psnr, ssim, l1, l1_unit,
  codes_used, perplexity, mean_entropy, mean_kl_to_uniform, position_information` as `spad tokenize`
  reports them; `trilinear`, `dct16` (lowest frequencies) and `dct16_largest` (largest magnitudes),
  each `{psnr, ssim, l1}`; the scan's l1 over theirs as `l1_to_trilinear`, `l1_to_dct16` and
  `l1_to_dct16_largest`; `seconds`;
- `groups`: for `all` scans, `scans` and `phantoms` where there are both, and each `modality`,
  `data set` and `da`: `group, name, cases, phantoms` (how many of the cases are made up), the mean
  over cases of the figures of images (`l1` null where units differ, or modalities without a unit),
  and over all tokens of the group what `Usage.figures` gives, with `position_information` over
  crops of all its scans (`position_crops`; at most the logarithm of their number);
- `aims`: `group, name, phantoms, aim, figure, found, bound, met` (null where the group is too small
  to tell) of what a good tokenizer should reach;
- `left_out`: `case, reason` of each scan that the model refused.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from spad.checkpoints.zoo import Entry
from spad.data.model_input import UnitVolume
from spad.device import choose
from spad.errors import Cancelled, SpadError
from spad.evaluation.baselines import KEPT, dct_largest, dct_lowest, trilinear
from spad.evaluation.scans import Scan
from spad.evaluation.usage import Positions, Usage
from spad.inference import codes
from spad.inference.codes import token_grid
from spad.inference.figures import image_figures
from spad.inference.models import chosen, loaded
from spad.inference.sight import seen
from spad.inference.stages import share
from spad.inference.tokens import Tokenization, tokenize
from spad.models.resize import resize
from spad.models.tokenizer import Tokenizer
from spad.progress import Progress, silent
from spad.volumes.axes import to_canonical
from spad.volumes.volume import Volume

CROP = (4, 8, 8)
"""Tokens of the crops from which position information is measured, those of training."""
CROPS = 8
"""At most so many of each scan."""

IMAGE = ("psnr", "ssim", "l1")
BASELINES = ("trilinear", "dct16", "dct16_largest")
RATIOS = tuple(f"l1_to_{name}" for name in BASELINES)
TOKENS = (
    *("codes_used", "perplexity", "mean_entropy", "mean_kl_to_uniform"),
    "position_information",
)


@dataclass(frozen=True)
class Aim:
    """What a good tokenizer reaches.

    Attributes:
        words: the aim as a person reads it.
        figure: key of a group.
        bound: the largest or the smallest value.
        at_most: whether `bound` is the largest.
        tokens_per_code: with fewer of them a group says nothing about the aim.
    """

    words: str
    figure: str
    bound: float
    at_most: bool
    tokens_per_code: int = 0

    def judged(self, group: Mapping[str, Any]) -> dict[str, Any]:
        """Tell whether a group meets it; `met` is None where the group cannot tell."""
        found = group[self.figure]
        met = None
        if found is not None and group["tokens"] >= self.tokens_per_code * group["codes"]:
            met = found <= self.bound if self.at_most else found >= self.bound
        return {
            **{key: group[key] for key in ("group", "name", "phantoms")},
            "aim": self.words,
            "figure": self.figure,
            "found": found,
            "bound": self.bound,
            "met": met,
        }


AIMS = (
    Aim("error at most a third of trilinear's", "l1_to_trilinear", 1 / 3, True),
    Aim("error below that of 16 DCT coefficients per token", "l1_to_dct16", 1.0, True),
    Aim("at least 99 % of the codes used", "codes_used_share", 0.99, False, 5),
    Aim("most used code at most 10 times the least used", "most_over_least", 10, True, 5),
    Aim("position information of at least 1 nat", "position_information", 1.0, False),
)


@dataclass(frozen=True, eq=False)
class Row:
    """The middle slice of a scan and what is left of it.

    Attributes:
        title: modality and da, and whether it is a phantom.
        case: the scan's name.
        scan: (H, W), or (H, W, 3) in colours, in [0, 1]; so are the next two.
        reconstruction: by the tokenizer.
        trilinear: by the means of the tokens.
        width: what 1 stands for, in the scan's unit.
        unit: the scan's unit.
        aspect: height of a pixel over its width.
    """

    title: str
    case: str
    scan: NDArray[np.float32]
    reconstruction: NDArray[np.float32]
    trilinear: NDArray[np.float32]
    width: float
    unit: str
    aspect: float


@dataclass(frozen=True, eq=False)
class Judgement:
    """What `judge` found.

    Attributes:
        report: figures, see the module's description.
        usage: name of a group ("all" or a modality) to (K,) mean probabilities of its codes.
        rows: one for each modality and da, for the figure.
    """

    report: dict[str, Any]
    usage: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)


def judge(
    scans: Sequence[Scan],
    model: str | Path | None = None,
    device: str = "auto",
    progress: Progress = silent,
) -> Judgement:
    """Judge a tokenizer on scans that it has not seen.

    Args:
        scans: of `spad.evaluation.scans`; read one at a time.
        model: name or file of a tokenizer, or the folder of a run; None for the default.
        device: "auto", "cpu" or "cuda".
        progress: told about every scan; may raise `Cancelled`.

    Returns:
        Figures, usage and pictures. A scan that cannot be read or is refused is left out.

    Raises:
        SpadError: there is no such model, or no scan is left.
    """
    start = time.perf_counter()
    entry = chosen("tokenizer", model, None)
    groups, cases, left_out = _Groups(), [], []
    rows: dict[str, Row] = {}
    for number, scan in enumerate(scans):
        part = _named(share(progress, number / len(scans), (number + 1) / len(scans)), scan.name)
        try:
            case, row = _judged(scan, entry, model or entry.name, device, groups, part)
        except Cancelled:
            raise
        except SpadError as error:
            left_out.append({"case": scan.name, "reason": _reason(error, scan.folder)})
            continue
        cases.append(case)
        rows.setdefault(row.title, row)
    if not cases:
        first = f"; the first: {left_out[0]['reason']}" if left_out else "."
        raise SpadError(f"No scan of {len(scans)} could be judged{first}")
    progress(1.0, "Done")
    found = groups.figures()
    report = {
        "model": entry.name,
        "device": choose(device).type,
        "kept": KEPT,
        "cases": cases,
        "groups": found,
        "aims": [aim.judged(g) for g in found if g["group"] in _AIMED for aim in AIMS],
        "left_out": left_out,
        "seconds": time.perf_counter() - start,
    }
    return Judgement(report, groups.usage(), [rows[title] for title in sorted(rows)])


def _judged(
    scan: Scan,
    entry: Entry,
    model: str | Path,
    device: str,
    groups: _Groups,
    progress: Progress,
) -> tuple[dict[str, Any], Row]:
    """Judge one scan: its figures and its picture; its tokens go to its groups."""
    start = time.perf_counter()
    progress(0.0, "")
    volume = scan.read()
    result = tokenize(volume, model, device, share(progress, 0.05, 0.5))
    _, unit = seen(volume, entry)
    network, _ = loaded(entry, choose(device))
    case = {
        "case": scan.name,
        "data_set": scan.data_set,
        "modality": volume.modality or ("colours" if volume.rgb else "unknown"),
        "phantom": scan.phantom,
        **{key: result.report[key] for key in ("da", "grid", *IMAGE, "l1_unit", *TOKENS)},
        "trilinear": result.report["trilinear"],
        **_dct_figures(unit, network.token_factors(unit.da), share(progress, 0.5, 0.9)),
    }
    for name, ratio in zip(BASELINES, RATIOS, strict=True):
        plain = case[name]["l1"]
        case[ratio] = case["l1"] / plain if plain else None
    groups.add(case, result, _crops(network, unit))
    row = _row(case, unit, result.reconstruction)
    case["seconds"] = time.perf_counter() - start
    return case, row


def _dct_figures(unit: UnitVolume, factors: Sequence[int], progress: Progress) -> dict[str, Any]:
    width = unit.limits[1] - unit.limits[0]
    found = {}
    makers = {"dct16": dct_lowest, "dct16_largest": dct_largest}
    for number, (name, make) in enumerate(makers.items()):
        part = share(progress, number / len(makers), (number + 1) / len(makers))
        figures = image_figures(make(unit.array, factors), unit.array, part)
        found[name] = {**figures, "l1": float(figures["l1"] or 0.0) * width}
    return found


def _crops(network: Tokenizer, unit: UnitVolume) -> Iterator[NDArray[np.float32]]:
    """Encode crops that do not overlap, spread evenly over a scan: (z, y, x, K) each."""
    grid = token_grid(unit, network.token_factors(unit.da))
    size = [min(n, side) for n, side in zip(grid.shape, CROP, strict=True)]
    corners = list(
        product(*(range(0, n - side + 1, side) for n, side in zip(grid.shape, size, strict=True)))
    )
    wanted = np.unique(np.linspace(0, len(corners) - 1, min(CROPS, len(corners))).round())
    for number in wanted.astype(int):
        cells = [slice(a, a + side) for a, side in zip(corners[number], size, strict=True)]
        voxels = unit.array[(..., *grid.voxels(cells))]
        depth, height, width = voxels.shape[-3:]
        crop = replace(unit, array=voxels, frame=replace(unit.frame, size=(depth, height, width)))
        part = token_grid(crop, grid.factors)
        yield codes.encode(network, crop, part, silent).probabilities


def _row(case: Mapping[str, Any], unit: UnitVolume, reconstruction: Volume) -> Row:
    """Take the middle slice of a scan, of its reconstruction and of its trilinear likeness."""
    depth = unit.frame.size[0]
    stored, _ = to_canonical(reconstruction, depth_first=True)
    near = stored[..., int((depth // 2 + 0.5) * unit.frame.full_size[0] / depth), :, :]
    values = near * np.float32(reconstruction.slope) + np.float32(reconstruction.intercept)
    plane = torch.from_numpy(unit.contract.to_unit(values, unit.limits))
    plane = resize(plane.reshape(1, -1, 1, *near.shape[-2:]), (1, *unit.frame.size[1:]))[0, :, 0]
    middle = (..., depth // 2, slice(None), slice(None))
    return Row(
        title=f"{_modality(case)}, da {case['da']}",
        case=case["case"],
        scan=_shown(unit.array[middle]),
        reconstruction=_shown(plane.numpy()),
        trilinear=_shown(trilinear(unit.array, case["grid"])[middle]),
        width=unit.limits[1] - unit.limits[0],
        unit=case["l1_unit"],
        aspect=unit.spacing[1] / unit.spacing[2],
    )


def _shown(plane: NDArray[np.float32]) -> NDArray[np.float32]:
    """Put colours last; drop the axis of a gray plane."""
    if plane.ndim == 3 and len(plane) == 1:
        plane = plane[0]
    return np.ascontiguousarray(plane if plane.ndim == 2 else np.moveaxis(plane, 0, -1))


def _modality(case: Mapping[str, Any]) -> str:
    """A case's modality as tables name it, so that no phantom counts as a scan."""
    return f"{case['modality']} (phantom)" if case["phantom"] else str(case["modality"])


_AIMED = ("all", "scans", "phantoms", "modality")


class _Group:
    """The cases of one group, and sums over their tokens."""

    def __init__(self, codes: int) -> None:
        self.cases: list[dict[str, Any]] = []
        self.usage, self.positions = Usage(codes), Positions()

    def figures(self) -> dict[str, Any]:
        units = {case["l1_unit"] for case in self.cases}
        # what has no unit can be averaged within a modality at most
        scales = {(c["l1_unit"], c["modality"] * (c["l1_unit"] == "1")) for c in self.cases}
        one_unit = len(scales) == 1
        found: dict[str, Any] = {
            "cases": len(self.cases),
            "phantoms": sum(case["phantom"] for case in self.cases),
            **_means(self.cases, IMAGE, one_unit),
            "l1_unit": units.pop() if one_unit else None,
            **{b: _means([case[b] for case in self.cases], IMAGE, one_unit) for b in BASELINES},
            **_means(self.cases, RATIOS),
            **self.usage.figures(),
            "position_information": self.positions.information,
            "position_crops": self.positions.crops,
        }
        return found


class _Groups:
    """All groups: kind and name to `_Group`, in order of appearance within a kind."""

    def __init__(self) -> None:
        self._groups: dict[tuple[str, str], _Group] = {}

    def add(
        self, case: dict[str, Any], result: Tokenization, crops: Iterable[NDArray[np.float32]]
    ) -> None:
        """Add a case to the groups that it belongs to."""
        keys = (
            ("all", "all"),
            ("phantoms" if case["phantom"] else "scans",) * 2,
            ("modality", _modality(case)),
            ("da", str(case["da"])),
            *((("data set", case["data_set"]),) if not case["phantom"] else ()),
        )
        groups = [self._groups.setdefault(key, _Group(len(result.usage))) for key in keys]
        for group in groups:
            group.cases.append(case)
            group.usage.add(result.probabilities)
        for crop in crops:
            for group in groups:
                group.positions.add(crop)

    def figures(self) -> list[dict[str, Any]]:
        """Give one row for each group; scans and phantoms only where there are both."""
        both = ("scans", "scans") in self._groups and ("phantoms", "phantoms") in self._groups
        kinds = ("all", *(("scans", "phantoms") if both else ()), "modality", "data set", "da")
        return [
            {"group": kind, "name": name, **group.figures()}
            for wanted in kinds
            for (kind, name), group in sorted(self._groups.items())
            if kind == wanted
        ]

    def usage(self) -> dict[str, NDArray[np.float64]]:
        """Give the mean probabilities of all and of each modality."""
        return {
            name: group.usage.mean
            for (kind, name), group in sorted(self._groups.items())
            if kind in ("all", "modality")
        }


def _means(
    rows: Sequence[Mapping[str, float | None]], keys: Sequence[str], with_l1: bool = True
) -> dict[str, float | None]:
    """Mean of each figure over the rows that have it; no l1 where units differ."""
    means: dict[str, float | None] = {}
    for key in keys:
        values = [value for row in rows if (value := row[key]) is not None]
        hidden = not values or (key == "l1" and not with_l1)
        means[key] = None if hidden else math.fsum(values) / len(values)
    return means


def _reason(error: SpadError, folder: Path | None) -> str:
    """Give an error's sentence without the folder of the scan."""
    return str(error) if folder is None else str(error).replace(f"{folder}{os.sep}", "")


def _named(progress: Progress, name: str) -> Progress:
    """Tell of the scan instead of its stages."""
    return lambda fraction, _: progress(fraction, name)
