"""What a training sample is: sizes, working grid, random changes and shares."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class DataOptions:
    """What a sample is.

    Attributes:
        batch: samples in a step; for tasks on tokens as many as hold the tokens of so many 3D
            crops, so that a batch of 2D images has more.
        tokens: (depth, in-plane) tokens of a crop, for tasks on tokens.
        window: voxels (depth, height, width) of a crop at `da` 0, for segmentation.
        in_plane_mm: in-plane spacing of the working grid; None keeps the scan's own.
        isotropic: resample depth to the in-plane spacing as well, so that `da` is 0.
        stated_da: the degree of anisotropy that the model is told of every scan; None tells the
            scan's own.
        label_ratio: share of the training scans with labels that is used, of each source at least
            one, drawn by the seed; a larger share holds a smaller one.
        zoom: smallest and largest random scale, 2 takes every second voxel.
        zoom_share: fraction of samples that are scaled.
        depth_zoom: scale of depth alone for some samples of nearly isotropic scans, after which
            `da` is that of the sample; None scales depth as the plane, and `da` stays.
        rotation: largest random rotation about depth, degrees.
        tilt: largest random rotation about the in-plane axes of nearly isotropic scans, degrees.
        rotation_share: fraction of samples that are rotated.
        flips: mirror each axis at random, as the authors do; of organs that come in pairs a small
            model then learns left from right badly.
        ct_range: HU that become 0 and 1 in CT.
        plan: choose spacing, crop and range of CT by the scans, when the run begins.
        found: what `plan` saw of the scans.
        ct_windows: draw a window of CT for some samples instead of the contract's.
        foreground: fraction of crops centred on a label, all labels equally likely.
        without: names of labels that are left out, for "clicks", to see how well a structure that
            was never named is clicked.
        phantoms: made-up abdomens of random anatomy added to the scans.
        phantom_share: fraction of samples drawn from them.
        mr_share: fraction of samples of real scans drawn from MR, where there are CT and MR.
        validation: scans kept out where the data state no split (fraction).
        workers: processes that make samples ahead; None: none on the processor or where the scans
            fit on the GPU, else several.
    """

    batch: int = 2
    tokens: list[int] = field(default_factory=lambda: [4, 8])
    window: list[int] = field(default_factory=lambda: [64, 64, 96])
    in_plane_mm: float | None = None
    isotropic: bool = False
    stated_da: int | None = None
    label_ratio: float = 1.0
    zoom: list[float] = field(default_factory=lambda: [0.8, 1.25])
    zoom_share: float = 1.0
    depth_zoom: list[float] | None = None
    rotation: float = 0.0
    tilt: float = 0.0
    rotation_share: float = 1.0
    flips: bool = False
    ct_windows: bool = False
    ct_range: list[float] = field(default_factory=lambda: [-125.0, 275.0])
    plan: bool = False
    found: dict[str, Any] = field(default_factory=dict)
    foreground: float = 0.75
    without: list[str] = field(default_factory=list)
    phantoms: int = 0
    phantom_share: float = 0.0
    mr_share: float = 0.3
    validation: float = 0.2
    workers: int | None = None
