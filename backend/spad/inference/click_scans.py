"""Scans that are being clicked on: read once, encoded once, used by every click."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import ndimage

from spad.data.channels import one_phase
from spad.device import choose
from spad.errors import SpadError
from spad.inference.click_canvas import organ_part
from spad.inference.click_input import ClickScan, click_scan
from spad.inference.click_model import ClickModel
from spad.inference.clicks import encoding
from spad.inference.features import Encoding, Features
from spad.progress import Progress
from spad.prompts.part import Part
from spad.prompts.prompt import Prompt
from spad.volumes.volume import Volume

KEPT = 2
"""Scans held at a time; the one used longest ago goes first."""

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
            `windows, seconds, features_mb, organs` (names of those that the segmenter found); no
            windows where the clicker has no segmenter for such scans.
        """
        begun = time.perf_counter()
        progress(0.0, "Reading the scan for clicks")
        if not self._known:
            self._encoding = encoding(self.volume, self.model, self.scan, device, 0)
            self._known = True
        work = self._encoding
        if work is None:
            return {"windows": 0, "seconds": 0.0, "features_mb": 0.0, "organs": []}
        for number in work.windows(near):
            progress(number / work.count, f"Looking ahead: window {number} of {work.count}")
        found = work.features
        best = found.organs.argmax(0)
        present = set(torch.unique(best).tolist())
        return {
            "windows": work.count,
            "seconds": time.perf_counter() - begun,
            "features_mb": found.megabytes,
            "organs": [found.names[i] for n, i in enumerate(found.ids) if i and n in present],
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
        found = self.features
        if found is None:
            raise SpadError(
                "The automatic organs of this scan are not ready yet; wait until 'Looking ahead' "
                "has ended."
            )
        if name not in found.names.values():
            raise SpadError(
                f"The segmenter knows no '{name}'; expected one of "
                f"{', '.join(found.names.values())}."
            )
        return organ_part(found, name, self.scan)

    def doubts(self, part: Part | None, count: int) -> list[tuple[int, int, int]]:
        """Give the places where the automatic result is least certain, the worst first.

        Args:
            part: an object, near whose edge to look; None for the whole scan.
            count: how many places, at least about 15 mm apart.

        Returns:
            Voxels of the scan's array.
        """
        found = self.features
        if found is None:
            return []
        return doubtful(found, self.scan, part, count)


def doubtful(
    features: Features, scan: ClickScan, part: Part | None, count: int
) -> list[tuple[int, int, int]]:
    """See `OpenScan.doubts`; doubt is the entropy of the classes, over 3 voxels each way."""
    chances = features.organs.float() / 255
    entropy = -(chances * torch.log(chances.clamp(min=1e-6))).sum(0)
    doubt = torch.nn.functional.avg_pool3d(entropy[None, None], 3, 1, 1)[0, 0].numpy()
    size = np.array(doubt.shape)
    shape = np.array(scan.shape)
    if part is not None:
        start, mask = scan.canonical_part(part)
        low = np.clip(((start - 2) * size / shape).astype(int), 0, size - 1)
        high = np.clip(np.ceil((start + mask.shape + 2) * size / shape).astype(int), low + 1, size)
        inside = np.zeros_like(doubt)
        where = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        places = [
            ((np.arange(a, b) + 0.5) * n / m - begin).astype(int)
            for a, b, n, m, begin in zip(low, high, shape, size, start, strict=True)
        ]
        padded = np.pad(mask, 1)
        cells = np.ix_(
            *(np.clip(at + 1, 0, n + 1) for at, n in zip(places, mask.shape, strict=True))
        )
        thing = padded[cells]
        edge = ndimage.binary_dilation(thing) & ~ndimage.binary_erosion(thing)
        inside[where] = doubt[where] * edge
        doubt = inside
    apart = np.maximum(1, np.round(15.0 / (np.array(scan.spacing) * shape / size)).astype(int))
    found: list[tuple[int, int, int]] = []
    for _ in range(count):
        at = np.array(np.unravel_index(int(doubt.argmax()), doubt.shape))
        if doubt[tuple(at)] <= 0.05:
            break
        voxel = np.minimum(((at + 0.5) * shape / size).astype(int), shape - 1)
        found.append(scan.array_voxel(voxel))
        around = tuple(slice(max(0, a - r), a + r + 1) for a, r in zip(at, apart, strict=True))
        doubt[around] = 0
    return found


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
