"""What a model gets of a scan: one path for training, inference and display.

values -> intensity contract -> [0, 1] -> canonical axes, depth first -> working spacing -> model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from spad.data.channels import channels_of, on_one_grid, one_phase
from spad.data.frames import Spacing, WorkingFrame, working_frame
from spad.errors import SpadError
from spad.models.resize import resize
from spad.volumes.axes import to_canonical
from spad.volumes.intensity import Intensity, Limits
from spad.volumes.volume import Volume

SLAB_VOXELS = 4_000_000
"""Voxels that become float at a time on the way to a coarser grid."""
SAMPLE_VOXELS = 5_000_000
"""Voxels of a float scan from which percentiles are taken; integers are counted exactly."""


class Contracts(Protocol):
    """The part of a checkpoint's card that says how the model wants its input."""

    @property
    def intensity(self) -> Mapping[str, Intensity]:
        """Intensity contract by modality; "*" is for any other."""

    @property
    def working_spacing(self) -> Mapping[str, Any] | None:
        """What `working_grid` takes, or None for the scan's own spacing."""


@dataclass(frozen=True, eq=False)
class UnitVolume:
    """A scan on its working grid in [0, 1].

    Attributes:
        array: (D, H, W) float32 in [0, 1], contiguous.
        frame: its grid.
        contract: the intensity contract that was applied.
        limits: the scan's values that became 0 and 1.
    """

    array: np.ndarray
    frame: WorkingFrame
    contract: Intensity
    limits: Limits

    @property
    def da(self) -> int:
        """Degree of anisotropy of the working grid."""
        return self.frame.da

    @property
    def spacing(self) -> Spacing:
        """Spacing of the working grid in mm (z, y, x)."""
        return self.frame.spacing

    @property
    def affine(self) -> np.ndarray:
        """(4, 4), index of `array` to RAS+ mm."""
        return self.frame.affine


class ChannelContracts(Contracts, Protocol):
    """The same of a model that may take several channels."""

    @property
    def channels(self) -> Sequence[str]:
        """Names of the channels; empty for one."""


@dataclass(frozen=True, eq=False)
class UnitChannels:
    """A scan of one to n channels on its working grid in [0, 1].

    Attributes:
        array: (C, D, H, W) float32 in [0, 1], contiguous.
        frame: its grid.
        contracts: the intensity contract of each channel.
        limits: each channel's values that became 0 and 1.
        copied: whether a scan of one channel was copied to all channels of the model.
    """

    array: np.ndarray
    frame: WorkingFrame
    contracts: tuple[Intensity, ...]
    limits: tuple[Limits, ...]
    copied: bool = False

    @property
    def da(self) -> int:
        """Degree of anisotropy of the working grid."""
        return self.frame.da

    @property
    def spacing(self) -> Spacing:
        """Spacing of the working grid in mm (z, y, x)."""
        return self.frame.spacing

    def to_model(self, region: tuple[slice, slice, slice]) -> np.ndarray:
        """Give a region of all channels in the model's range: (C, d, h, w) float32."""
        parts = zip(self.contracts, self.array, strict=True)
        return np.stack([contract.to_model(channel[region]) for contract, channel in parts])


@dataclass(frozen=True, eq=False)
class ModelInput:
    """A scan as a model takes it.

    Attributes:
        tensor: (1, D, H, W) float32 in the range of the model's contract.
        unit: the same in [0, 1], with the grid and all that the way back needs.
    """

    tensor: torch.Tensor
    unit: UnitVolume

    @property
    def da(self) -> int:
        """Degree of anisotropy of the working grid."""
        return self.unit.da

    @property
    def spacing(self) -> Spacing:
        """Spacing of the working grid in mm (z, y, x)."""
        return self.unit.spacing

    @property
    def limits(self) -> Limits:
        """The scan's values that became 0 and 1."""
        return self.unit.limits


def model_input(
    volume: Volume, card: Contracts, modality: str | None = None, *, phase: int = 0
) -> ModelInput:
    """Bring a scan into the form that a model was trained on.

    Args:
        volume: the scan, in its own unit and on its own grid.
        card: the checkpoint's contracts.
        modality: "CT", "MR", ...; None to take the volume's own.
        phase: which time (or channel) of a 4D scan.

    Returns:
        The tensor (1, D, H, W) in the model's range, and the scan in [0, 1] on the same grid.

    Raises:
        SpadError: the model has no contract for the modality, the phase does not exist or the
            scan has no finite voxel.
    """
    unit = unit_volume(volume, card, modality, phase=phase)
    tensor = torch.from_numpy(unit.contract.to_model(unit.array))[None]
    return ModelInput(tensor, unit)


def unit_volume(
    volume: Volume, card: Contracts, modality: str | None = None, *, phase: int = 0
) -> UnitVolume:
    """Bring a scan to [0, 1] on its working grid; arguments and errors as `model_input`.

    A scan that gets coarser is read slab by slab, so that no float copy of all of it is made.
    """
    refuse_labels(volume)
    contract = contract_for(card, modality or volume.modality)
    scan = one_phase(volume, phase)
    limits = scan_limits(scan, contract)
    frame = working_frame(scan, card.working_spacing)
    stored, _ = to_canonical(scan, depth_first=True)
    shrunk = tuple(min(a, b) for a, b in zip(frame.full_size, frame.size, strict=True))
    array = np.empty((frame.full_size[0], *shrunk[1:]), np.float32)
    for slab in _slabs(frame.full_size):
        unit = contract.to_unit(in_unit(scan, stored[slab]), limits)
        array[slab] = _resized(unit, (len(unit), *shrunk[1:]))
    return UnitVolume(_resized(array, frame.size), frame, contract, limits)


def unit_channels(
    volumes: Sequence[Volume],
    card: ChannelContracts,
    modality: str | None = None,
    *,
    phase: int = 0,
) -> UnitChannels:
    """Bring a scan of one to n channels to [0, 1] on its working grid.

    Each channel has limits of its own, by the contract for its modality where its header or file
    name tells one that the model knows (PET beside CT), else for `modality`. A model of one channel
    takes one scan as `unit_volume` does. One of several takes as many scans, or one scan with a
    channel axis (or, of equal length, a time axis, which is where NIfTI files often keep channels);
    a scan of one channel is copied to all of them, as the authors do with T2-SPIR beside T1-DUAL.

    Args:
        volumes: one scan for each channel, in the order of `card.channels`, on one grid (another
            order of axes will do), or a single scan.
        card: the checkpoint's card.
        modality: "CT", "MR", ... of the first channel; None to take the scan's own.
        phase: which time of a 4D scan.

    Returns:
        The channels on the working grid of the first.

    Raises:
        SpadError: as `unit_volume`; another number of channels than the model's, or channels that
            lie on different grids.
    """
    wanted = max(1, len(card.channels))
    if wanted == 1 and len(volumes) == 1:
        parts = [one_phase(volumes[0], phase)]
    else:
        times = len(volumes) == 1 and volumes[0].array.shape[0] == wanted
        parts = [part for v in volumes for part in channels_of(v, phase, times=times)]
    if len(parts) not in (1, wanted):
        said = f" ({', '.join(card.channels)})" if card.channels else ""
        raise SpadError(
            f"The scan has {len(parts)} channels, but the model was made for {wanted}{said}; give "
            "these, in this order."
        )
    found = unit_of(parts, card, modality or volumes[0].modality)
    if len(parts) == wanted:
        return found
    array = np.repeat(found.array, wanted, axis=0)
    contracts, limits = found.contracts * wanted, found.limits * wanted
    return UnitChannels(array, found.frame, contracts, limits, copied=True)


def unit_of(channels: Sequence[Volume], card: Contracts, modality: str | None) -> UnitChannels:
    """Bring the channels of a scan (3D each) to [0, 1] on the working grid; see `unit_channels`.

    Raises:
        SpadError: as `unit_volume`, or channels lie on different grids.
    """
    placed = on_one_grid(channels)
    made = unit_volume(placed[0], card, modality)
    array = np.empty((len(placed), *made.array.shape), np.float32)
    array[0] = made.array
    contracts, limits = [made.contract], [made.limits]
    for number, channel in enumerate(placed[1:], 1):
        one = unit_volume(channel, card, channel_modality(channels[number], card, modality))
        array[number] = one.array
        contracts.append(one.contract)
        limits.append(one.limits)
    return UnitChannels(array, made.frame, tuple(contracts), tuple(limits))


def channel_modality(channel: Volume, card: Contracts, modality: str | None) -> str | None:
    """Give what its header or file name says, if the model knows it; else the scan's modality."""
    own = channel.modality
    told = channel.modality_source in ("header", "file name")
    return own if told and (own in card.intensity or "*" in card.intensity) else modality


def refuse_labels(volume: Volume) -> None:
    """Refuse labels where a scan is wanted.

    Raises:
        SpadError: the volume holds labels.
    """
    if volume.is_labels:
        raise SpadError(
            f"{volume.source.path or 'The volume'} holds labels, but a model works on a scan; give "
            "the scan that the labels belong to."
        )


def contract_for(card: Contracts, modality: str | None) -> Intensity:
    """Find the intensity contract for a modality.

    Raises:
        SpadError: the model has none; the sentence names the modalities it has.
    """
    found = card.intensity.get(modality or "*") or card.intensity.get("*")
    if found is not None:
        return found
    known = " or ".join(sorted(card.intensity)) or "none"
    if modality is None:
        raise SpadError(
            "Neither the file nor the intensities of this scan tell its modality, and the model "
            f"treats modalities differently (it knows {known}); state the modality."
        )
    raise SpadError(
        f"The scan is {modality}, but this model was made for {known}; choose another model, or "
        "state the modality if it was told wrongly."
    )


def scan_limits(volume: Volume, contract: Intensity) -> Limits:
    """Find the scan's values that become 0 and 1.

    Percentiles of a large float scan come from a fixed grid of at most about 5 million voxels,
    above the minimum of all voxels.

    Args:
        volume: the whole scan, 3D (a crop has other percentiles).
        contract: the model's contract for its modality.

    Raises:
        SpadError: no voxel is finite.
    """
    stored = volume.array
    counted = stored.dtype.kind in "iu" and stored.dtype.itemsize <= 2
    if contract.kind == "window" or counted or stored.size <= SAMPLE_VOXELS:
        return contract.limits_of(volume)
    step = int(np.ceil((stored.size / SAMPLE_VOXELS) ** (1 / 3)))
    sample = volume.values((slice(step // 2, None, step),) * 3).reshape(-1)
    lowest = min(_lowest(volume.values(slab)) for slab in _slabs(volume.spatial_shape))
    return contract.limits(np.append(sample, np.float32(lowest)))


def in_unit(volume: Volume, stored: np.ndarray) -> np.ndarray:
    """Turn stored voxels of a volume into its unit (HU for CT): a new float32 array."""
    values = np.array(stored, dtype=np.float32, order="C")
    if volume.slope != 1:
        values *= np.float32(volume.slope)
    if volume.intercept != 0:
        values += np.float32(volume.intercept)
    return values


def _resized(array: np.ndarray, size: Sequence[int]) -> np.ndarray:
    return resize(torch.from_numpy(array)[None, None], size)[0, 0].contiguous().numpy()


def _slabs(size: Sequence[int]) -> Iterator[slice]:
    thick = max(1, SLAB_VOXELS // max(1, int(size[1]) * int(size[2])))
    for start in range(0, int(size[0]), thick):
        yield slice(start, min(start + thick, int(size[0])))


def _lowest(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.min()) if finite.size else float("inf")
