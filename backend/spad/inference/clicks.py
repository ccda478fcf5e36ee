"""Clicks on a scan from Python: `with spad.ClickSession(volume) as session: session.click(...)`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import DTypeLike

from spad.checkpoints import zoo
from spad.data.model_input import one_phase, unit_channels
from spad.device import choose
from spad.errors import SpadError
from spad.inference.click_canvas import organ_part
from spad.inference.click_input import ClickScan, click_scan
from spad.inference.click_model import ClickModel
from spad.inference.features import Encoding, Features
from spad.inference.models import loaded
from spad.progress import Progress, silent
from spad.prompts.clicks_file import from_mm
from spad.prompts.part import Part, part_of
from spad.prompts.prompt import Prompt, point
from spad.prompts.session import Change, Object, Session
from spad.volumes.volume import Volume


class ClickSession:
    """Objects of a scan by prompts.

    Args:
        volume: the scan.
        model: name or file of a clicker; None for the default.
        modality: "CT", "MR", ...; None to take the scan's own.
        device: "auto", "cpu" or "cuda".
        phase: which time of a 4D scan.
        features: use what the segmenter knows of the scan, which takes some seconds at first.
        organs: also tell the decoder the automatic probability of the organ that is meant.
        labels_type: of the labels' voxels; a wider one has room for labels above 255.
        progress: told while features are computed.

    Raises:
        SpadError: there is no such model, or the scan cannot be used.
    """

    def __init__(
        self,
        volume: Volume,
        model: str | Path | None = None,
        modality: str | None = None,
        device: str = "auto",
        *,
        phase: int = 0,
        features: bool = True,
        organs: bool = True,
        labels_type: DTypeLike = np.uint8,
        progress: Progress = silent,
    ) -> None:
        place = choose(device)
        self.volume, self.phase = volume, phase
        self.model = ClickModel(model, place)
        self.scan = click_scan(volume, self.model.card, modality, phase)
        self.features = (
            known_features(volume, self.model, self.scan, device, phase, progress)
            if features
            else None
        )
        self.told_organs, self.tells_features = organs, True
        shape = volume.spatial_shape
        self.session = Session(np.zeros(shape, labels_type), self._predict)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.features = None

    def click(
        self,
        voxel: Sequence[float] | None = None,
        *,
        mm: Sequence[float] | None = None,
        label: str,
        positive: bool = True,
    ) -> Change:
        """Click on a place.

        Args:
            voxel: index into the spatial axes of `volume.array`.
            mm: RAS+ position, instead.
            label: name of the object; that of an organ tells the model which.
            positive: whether the place belongs to the object.

        Raises:
            SpadError: the place lies outside the scan, or both or neither of voxel and mm.
        """
        if (voxel is None) == (mm is None):
            raise SpadError("A click needs either a voxel or a position in mm; give one of them.")
        if mm is not None:
            made = Prompt("point", from_mm(np.array([mm], float), self.volume), positive)
        else:
            assert voxel is not None
            made = point(voxel, positive)
        return self.prompt(made, label=label)

    def prompt(self, prompt: Prompt, *, label: str) -> Change:
        """Give any prompt: a point, a scribble, a box or a lasso."""
        prompt.check_inside(self.volume.spatial_shape)
        self.session.add(label, self._number(label))
        return self.session.prompt(label, prompt)

    def start(self, label: str, mask: np.ndarray | None = None) -> Change:
        """Start an object from a mask, or from the automatic result for the organ of that name.

        Args:
            label: name of the object.
            mask: booleans along `volume.array`; None for the automatic organ.

        Raises:
            SpadError: the mask has another shape, or the model knows no such organ.
        """
        self.session.add(label, self._number(label))
        if mask is None:
            return self.session.begin_with(label, self.automatic(label), "the automatic result")
        if mask.shape != self.volume.spatial_shape:
            raise SpadError(
                f"A mask of {mask.shape} voxels was given for a scan of "
                f"{self.volume.spatial_shape}; give one on the scan's own grid."
            )
        return self.session.begin_with(label, part_of(mask.astype(np.uint8), 1), "a mask")

    def automatic(self, label: str) -> Part | None:
        """Give an organ as the segmenter finds it by itself; None where it finds none.

        Raises:
            SpadError: the segmenter knows no organ of that name, or there are no features.
        """
        if self.features is None or label not in self.features.names.values():
            known = [] if self.features is None else list(self.features.names.values())
            raise SpadError(
                f"No automatic result for '{label}' is known; expected one of "
                f"{', '.join(known) or 'none, since there are no features'}."
            )
        return organ_part(self.features, label, self.scan)

    def undo(self) -> Change | None:
        """Take the last step back."""
        return self.session.undo()

    def redo(self) -> Change | None:
        """Take again what was taken back."""
        return self.session.redo()

    def remove(self, index: int, *, label: str) -> Change:
        """Delete prompt `index` of an object and find it anew."""
        return self.session.remove(label, index)

    @property
    def labels(self) -> Volume:
        """The objects on the scan's grid, with their names."""
        names = {one.label: one.name for one in self.session.objects.values()}
        return one_phase(self.volume, self.phase).with_array(
            self.session.labels.copy(), label_names=names
        )

    def _number(self, label: str) -> int | None:
        """Give an organ the number that the segmenter gives it, where that is free."""
        names = {} if self.features is None else self.features.names
        used = {one.label for one in self.session.objects.values()}
        return next((n for n, name in names.items() if name == label and n not in used), None)

    def _predict(self, thing: Object, previous: Part | None) -> Part:
        return self.model.answer(
            self.scan,
            self.features if self.tells_features else None,
            thing.prompts,
            previous,
            thing.name,
            organs=self.told_organs,
            by_prompts=thing.by_prompts,
        )


def known_features(
    volume: Volume,
    model: ClickModel,
    scan: ClickScan,
    device: str,
    phase: int,
    progress: Progress,
) -> Features | None:
    """Compute what the clicker's segmenter knows of a scan; None where it does not know such scans.

    Raises:
        SpadError: the clicker was made for the features of another model.
    """
    work = encoding(volume, model, scan, device, phase)
    if work is None:
        return None
    for number in work.windows():
        progress(number / work.count, f"Features: window {number} of {work.count}")
    return work.features


def encoding(
    volume: Volume, model: ClickModel, scan: ClickScan, device: str, phase: int
) -> Encoding | None:
    """Begin to compute features; arguments and errors as `known_features`."""
    name = model.card.segmenter
    if name is None or not model.network.features:
        return None
    entry = zoo.find(name)
    made_for = model.card.provenance.get("segmenter_sha256")
    if made_for and made_for != entry.sha256():
        raise SpadError(
            f"The clicker '{model.entry.name}' was made for another file than the '{entry.name}' "
            "that is here, whose features it would misread; use the pair that belongs together, or "
            "train clicks on this one ('spad train clicks --segmenter')."
        )
    if scan.modality not in entry.card.intensity and "*" not in entry.card.intensity:
        return None
    network, card = loaded(entry, choose(device))
    unit = unit_channels([volume], card, scan.modality, phase=phase)
    return Encoding(network, card, unit, card.label_names(scan.modality))
