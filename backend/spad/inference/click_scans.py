"""Scans that are being clicked on: read once, encoded once, used by every click."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from spad.data.channels import one_phase
from spad.device import choose
from spad.errors import SpadError
from spad.inference.click_canvas import organ_part
from spad.inference.click_doubts import of_automatic
from spad.inference.click_input import ClickScan, click_scan
from spad.inference.click_model import ClickModel
from spad.inference.clicks import encoding
from spad.inference.features import Encoding, Features
from spad.progress import Progress
from spad.prompts.part import Part
from spad.prompts.prompt import Prompt, Voxel
from spad.volumes.volume import Volume

KEPT = 2
"""Scans held at a time; the one used longest ago goes first."""

_SPOKEN = {"PT": "PET", "US": "ultrasound"}
"""How modalities are called where not by their code."""
_lock = threading.Lock()
_held: dict[Any, OpenScan] = {}


@dataclass(eq=False)
class OpenScan:
    """A scan with what clicks need of it.

    Attributes:
        volume: the scan, 3D; it keeps the voxels in place.
        model: the clicker.
        scan: its voxels as the decoder sees them.
    """

    volume: Volume
    model: ClickModel
    scan: ClickScan
    _encoding: Encoding | None = None
    _known: bool = False

    @property
    def features(self) -> Features | None:
        """What the segmenter knows, once it has seen all of the scan."""
        found = None if self._encoding is None else self._encoding.features
        return found if found is not None and found.complete else None

    @property
    def may_have_features(self) -> bool:
        """Whether `encode` has not yet been found to give nothing."""
        return not self._known or self._encoding is not None

    def place_of(self, prompts: Sequence[Prompt]) -> tuple[float, float, float]:
        """Give where the last prompt is, as shares of the canonical sides; the middle without."""
        if not prompts:
            return 0.5, 0.5, 0.5
        voxels = self.scan.canonical(np.array(prompts[-1].voxels))
        z, y, x = (voxels.mean(0) + 0.5) / np.array(self.scan.shape)
        return float(z), float(y), float(x)

    def encode(self, near: Sequence[float], device: str, progress: Progress) -> dict[str, Any]:
        """Compute the features, or what is left of them.

        Args:
            near: where a person looks, shares of the canonical sides; windows near it come first.
            device: "auto", "cpu" or "cuda".
            progress: told after each window; clicks may come in between.

        Returns:
            `windows, seconds, features_mb, organs` (names of those that the segmenter found) and
            `uncertainty` (see `mean_doubt`); no windows where the clicker has no segmenter for such
            scans.
        """
        begun = time.perf_counter()
        progress(0.0, "Reading the scan for clicks")
        if not self._known:
            self._encoding = encoding(self.volume, self.model, self.scan, device, 0)
            self._known = True
        work = self._encoding
        if work is None:
            nothing: dict[str, Any] = {"windows": 0, "seconds": 0.0, "features_mb": 0.0}
            return {**nothing, "organs": [], "uncertainty": None}
        for number in work.windows(near):
            progress(number / work.count, f"Looking ahead: window {number} of {work.count}")
        found = work.features
        present = set(np.unique(found.best).tolist())
        return {
            "windows": work.count,
            "seconds": time.perf_counter() - begun,
            "features_mb": found.megabytes,
            "organs": [found.names[i] for n, i in enumerate(found.ids) if i and n in present],
            "uncertainty": mean_doubt(found),
        }

    def click(
        self,
        prompts: Sequence[Prompt],
        previous: Part | None,
        name: str | None,
        *,
        features: bool,
        organs: bool,
        by_prompts: bool = True,
        show: Callable[[Part], None] | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> Part:
        """Find an object anew; see `ClickModel.answer`."""
        known = self.features if features else None
        return self.model.answer(
            *(self.scan, known, prompts, previous, name),
            organs=organs,
            by_prompts=by_prompts,
            show=show,
            check=check,
        )

    def organ(self, name: str) -> Part | None:
        """Give an organ of the automatic result.

        Raises:
            SpadError: the scan has not been looked at yet, or the segmenter knows no such organ.
        """
        found = self._automatic()
        if name not in found.names.values():
            raise SpadError(
                f"The segmenter knows no '{name}'; expected one of "
                f"{', '.join(found.names.values())}."
            )
        return organ_part(found, name, self.scan)

    def doubts(
        self,
        part: Part | None,
        count: int,
        prompts: Sequence[Prompt] = (),
        name: str | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> list[Voxel]:
        """Give places that are likely wrong, the worst first, at least 15 mm apart.

        Args:
            part: an object, see `ClickModel.doubts`; None for all of the automatic result.
            count: how many places at most.
            prompts: the object's.
            name: what is meant by it.
            check: called before each look of the decoder; may raise `Cancelled`.

        Returns:
            Voxels of the scan's array.

        Raises:
            SpadError: there is no automatic result, or not yet.
        """
        if part is None:
            found = of_automatic(self._automatic(), self.scan.shape, self.scan.spacing, count)
        else:
            found = self.model.doubts(
                *(self.scan, self.features, prompts, part, name, count, check)
            )
        return [self.scan.array_voxel(voxel) for voxel in found]

    def _automatic(self) -> Features:
        """Give what the segmenter knows, once it has seen all of the scan.

        Raises:
            SpadError: it has not, or will never.
        """
        found = self.features
        if found is not None:
            return found
        if self.may_have_features:
            raise SpadError(
                "The automatic organs of this scan are not ready yet; wait until 'Looking ahead' "
                "has ended."
            )
        modality = _SPOKEN.get(self.scan.modality or "", self.scan.modality or "such")
        raise SpadError(
            f"No automatic model knows {modality} scans, so there is no automatic result; click on "
            "an object, and look for its doubts."
        )


def mean_doubt(features: Features) -> float | None:
    """Give how unsure the segmenter is of a whole scan: 0 (sure) to ln(number of classes), nats.

    It is the entropy of the classes, its mean over the voxels of each organ that was found, and of
    these the mean: so neither air nor a large liver outweighs a pancreas, as in a mean Dice, which
    it follows better than a mean over all of these voxels does.

    Args:
        features: all of the scan has been looked at.

    Returns:
        The figure; None where no organ was found.
    """
    count = len(features.ids)
    sums, voxels = np.zeros(count), np.zeros(count)
    for chances, classes in zip(features.organs.unbind(1), features.best, strict=True):
        inside = classes > 0
        share = chances[:, torch.from_numpy(inside)].float() / 255
        entropy = -(share * torch.log(share.clamp(min=1e-6))).sum(0).numpy()
        sums += np.bincount(classes[inside], entropy, count)
        voxels += np.bincount(classes[inside], minlength=count)
    found = voxels > 0
    return float((sums[found] / voxels[found]).mean()) if found.any() else None


def open_scan(
    volume: Volume, model: str | None, modality: str | None, device: str, phase: int
) -> OpenScan:
    """Give the scan as it is held, read it else.

    Raises:
        SpadError: there is no such model, or the scan cannot be used.
    """
    scan = one_phase(volume, phase)
    place = choose(device)
    array = scan.array
    key = (
        array.__array_interface__["data"][0],
        array.shape,
        array.strides,
        str(array.dtype),
        scan.slope,
        scan.intercept,
        scan.affine.tobytes(),
        modality or scan.modality,
        model,
        str(place),
    )
    with _lock:
        found = _held.pop(key, None)
        if found is None:
            clicker = ClickModel(model, place)
            found = OpenScan(scan, clicker, click_scan(scan, clicker.card, modality))
        _held[key] = found
        while len(_held) > KEPT:
            del _held[next(iter(_held))]
    return found
