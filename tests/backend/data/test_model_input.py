"""What a model gets of a scan: geometry, intensities, spacing, and the way back."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

from spad.data import model_input as module
from spad.data.frames import (
    coarser_affine,
    labels_on_working_grid,
    labels_to_source,
    working_frame,
    working_grid,
)
from spad.data.model_input import contract_for, model_input, scan_limits, unit_volume
from spad.errors import SpadError
from spad.models.resize import resize
from spad.volumes.axes import orientation_letters, to_canonical
from spad.volumes.intensity import CT, MR, Intensity
from spad.volumes.volume import Volume

SIGNED_AXES = [
    (order, signs)
    for order in itertools.permutations(range(3))
    for signs in itertools.product((1, -1), repeat=3)
]


@dataclass
class Wants:
    """The part of a card that the model input needs."""

    working_spacing: dict[str, float] | None = None
    intensity: dict[str, Intensity] = field(default_factory=lambda: {"CT": CT, "MR": MR})


def affine_of(order=(2, 1, 0), signs=(1, 1, 1), spacing=(3.0, 1.5, 2.0), tilt=0.0) -> np.ndarray:
    """Array axis n runs along world axis order[n] in the direction signs[n]."""
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis in range(3):
        affine[order[axis], axis] = signs[axis] * spacing[axis]
    c, s = np.cos(tilt), np.sin(tilt)
    affine[:3, :3] = np.array([[1, 0, 0], [0, c, -s], [0, s, c]]) @ affine[:3, :3]
    affine[:3, 3] = (-40.0, 25.0, 10.0)
    return affine


def scan_of(shape=(6, 9, 7), seed=0, **geometry) -> Volume:
    array = np.random.default_rng(seed).integers(-300, 500, shape).astype(np.int16)
    return Volume.from_array(array, affine_of(**geometry), modality_hint="CT")


class TestAxes:
    @pytest.mark.parametrize(("order", "signs"), SIGNED_AXES)
    def test_every_voxel_keeps_its_place_in_the_world(self, order, signs) -> None:
        scan = scan_of(order=order, signs=signs, tilt=0.2)
        unit = unit_volume(scan, Wants())
        stored = CT.to_unit(scan.array, (-125, 275))
        for index in np.ndindex(2, 2, 2):
            there = tuple(np.array(index) * (np.array(unit.array.shape) - 1))
            here = np.linalg.solve(scan.affine, unit.affine @ (*there, 1))[:3]
            assert np.allclose(here, here.round(), atol=1e-6)
            assert unit.array[there] == stored[tuple(here.round().astype(int))]

    @pytest.mark.parametrize(("order", "signs"), SIGNED_AXES)
    def test_depth_comes_first_and_the_rest_is_canonical(self, order, signs) -> None:
        letters = orientation_letters(
            unit_volume(scan_of(order=order, signs=signs), Wants()).affine
        )
        assert letters[0] == "LPI"[order[0]]
        assert letters[1:] == "IPL".replace(letters[0], "")


class TestWorkingGrid:
    def test_no_spacing_leaves_the_grid(self) -> None:
        assert working_grid((5, 6, 7), (3, 1, 2), None) == ((5, 6, 7), (3.0, 1.0, 2.0))

    def test_thick_slices_stay(self) -> None:
        size, spacing = working_grid((40, 256, 256), (5.0, 0.8, 0.8), {"in_plane": 1.6})
        assert size == (40, 128, 128)
        assert spacing == pytest.approx((5.0, 1.6, 1.6))

    def test_thin_slices_are_joined(self) -> None:
        size, spacing = working_grid((90, 64, 64), (1.0, 1.5, 1.5), {"in_plane": 3.0})
        assert size == (30, 32, 32)
        assert spacing == pytest.approx((3.0, 3.0, 3.0))

    def test_extent_is_kept_where_voxels_do_not_divide(self) -> None:
        size, spacing = working_grid((3, 7, 100), (4.0, 0.9, 0.7), {"in_plane": 3.0})
        assert size == (3, 2, 23)
        assert [n * s for n, s in zip(size, spacing, strict=True)] == pytest.approx([12, 6.3, 70])

    def test_isotropic_voxels(self) -> None:
        wanted = {"in_plane": 2.0, "isotropic": True}
        size, spacing = working_grid((30, 128, 128), (7.7, 1.0, 1.0), wanted)
        assert size == (116, 64, 64)
        assert spacing == pytest.approx((1.991, 2.0, 2.0), abs=1e-3)
        size, spacing = working_grid((30, 128, 128), (7.7, 1.0, 1.25), {"isotropic": True})
        assert size == (231, 128, 160)
        assert spacing == pytest.approx((1.0, 1.0, 1.0))

    def test_at_least_one_voxel(self) -> None:
        assert working_grid((1, 1, 1), (0.1, 0.1, 0.1), {"in_plane": 3.0})[0] == (1, 1, 1)

    @pytest.mark.parametrize(("order", "signs"), SIGNED_AXES[::5])
    def test_outer_corners_coincide(self, order, signs) -> None:
        scan = scan_of(order=order, signs=signs, tilt=0.3)
        frame = working_frame(scan, {"in_plane": 4.2})
        full = working_frame(scan, None)
        for corner in np.ndindex(2, 2, 2):
            places = [
                (f.affine @ (*(np.array(corner) * f.size - 0.5), 1))[:3] for f in (frame, full)
            ]
            assert np.allclose(*places)
        assert np.allclose(np.linalg.norm(frame.affine[:3, :3], axis=0), frame.spacing)

    def test_coarser_affine_moves_the_first_centre(self) -> None:
        assert np.allclose(coarser_affine(np.eye(4), (1, 4, 16))[:3, 3], (0, 1.5, 7.5))

    @pytest.mark.parametrize(
        ("spacing", "shape", "wanted", "da"),
        [
            ((3.0, 0.8, 0.8), (9, 30, 30), None, 1),
            ((3.0, 0.8, 0.8), (9, 30, 30), {"in_plane": 3.0}, 0),
            ((7.7, 1.25, 1.25), (9, 30, 30), {"in_plane": 3.0}, 1),
            ((7.7, 1.25, 1.25), (1, 30, 30), {"in_plane": 3.0}, 5),
            ((64.0, 1.0, 1.0), (9, 30, 30), None, 5),
            ((7.7, 1.25, 1.25), (9, 30, 30), {"in_plane": 3.0, "isotropic": True}, 0),
            ((7.7, 1.25, 1.25), (9, 30, 30), {"isotropic": True}, 0),
            ((0.4, 3.0, 3.0), (9, 30, 30), {"isotropic": True}, 0),
            ((7.7, 1.25, 1.25), (1, 30, 30), {"isotropic": True}, 5),
            ((7.7, 1.25, 1.25), (9, 30, 30), {"in_plane": 3.0, "da": 0}, 0),
            ((1.0, 1.0, 1.0), (9, 30, 30), {"da": 2}, 2),
        ],
    )
    def test_da_is_that_of_the_working_grid(self, spacing, shape, wanted, da) -> None:
        scan = scan_of(shape=shape, spacing=spacing)
        assert unit_volume(scan, Wants(wanted)).da == da


class TestIntensities:
    def test_unit_and_model_range(self) -> None:
        scan = scan_of()
        wants = Wants(intensity={"CT": Intensity("window", -125, 275, 0.5, 0.5, "HU")})
        made = model_input(scan, wants)
        view, _ = to_canonical(scan, depth_first=True)
        unit = (np.clip(view, -125, 275).astype(float) + 125) / 400
        assert np.allclose(made.unit.array, unit, atol=1e-6)
        assert made.tensor.shape == (1, 6, 9, 7)
        assert made.tensor.dtype == torch.float32
        assert np.allclose(made.tensor[0].numpy(), 2 * unit - 1, atol=1e-6)
        assert made.limits == (-125.0, 275.0)

    def test_clipped_copy_gives_the_same_input(self) -> None:
        scan = scan_of()
        clipped = scan.with_array(np.clip(scan.array, -125, 275))
        a, b = (model_input(v, Wants({"in_plane": 4.0})) for v in (scan, clipped))
        assert torch.equal(a.tensor, b.tensor)

    def test_slope_and_intercept(self) -> None:
        scan = scan_of()
        stored = ((scan.array.astype(int) + 1000) * 2).astype(np.uint16)
        scaled = Volume.from_array(stored, scan.affine, slope=0.5, intercept=-1000)
        a, b = unit_volume(scan, Wants()).array, unit_volume(scaled, Wants()).array
        assert np.allclose(a, b, atol=1e-6)

    def test_nan_is_background(self) -> None:
        array = scan_of().array.astype(np.float32)
        array[0, 0, 0] = np.nan
        made = unit_volume(Volume.from_array(array, affine_of()), Wants(), "CT")
        assert np.isfinite(made.array).all()
        assert (made.array == 0).any()

    def test_limits_of_integers_are_exact_percentiles_of_the_whole_scan(self) -> None:
        rng = np.random.default_rng(0)
        scan = Volume.from_array(rng.gamma(2, 100, (8, 40, 40)).astype(np.int16), affine_of())
        above = scan.array[scan.array > scan.array.min()]
        wanted = tuple(np.percentile(above, (0.5, 99.5)))
        assert scan_limits(scan, MR) == pytest.approx(wanted)
        assert unit_volume(scan, Wants({"in_plane": 9.0}), "MR").limits == pytest.approx(wanted)

    def test_limits_of_a_large_float_scan_are_near_and_always_the_same(self, monkeypatch) -> None:
        rng = np.random.default_rng(0)
        array = rng.gamma(2, 100, (24, 70, 70)).astype(np.float32)
        array[:, :, :30] = 0
        array[0, 0, 0] = -7
        scan = Volume.from_array(array, affine_of())
        exact = scan_limits(scan, MR)
        monkeypatch.setattr(module, "SAMPLE_VOXELS", 20_000)
        low, high = scan_limits(scan, MR)
        assert (low, high) == scan_limits(scan, MR)
        assert low == pytest.approx(exact[0], abs=1)
        assert high == pytest.approx(exact[1], rel=0.05)

    def test_slabs_give_what_the_whole_scan_gives(self, monkeypatch) -> None:
        scan = scan_of(shape=(11, 40, 30), spacing=(1.0, 1.0, 1.0))
        monkeypatch.setattr(module, "SLAB_VOXELS", 40 * 30 * 3)
        for target in (2.3, 0.7):
            made = unit_volume(scan, Wants({"in_plane": target}))
            whole = unit_volume(scan, Wants()).array
            wanted = resize(torch.from_numpy(whole)[None, None], made.frame.size)[0, 0].numpy()
            assert np.allclose(made.array, wanted, atol=1e-6)


class TestContract:
    def test_star_is_for_any_other(self) -> None:
        wants = Wants(intensity={"CT": CT, "*": MR})
        assert contract_for(wants, "CT") is CT
        assert contract_for(wants, "PT") is MR
        assert contract_for(wants, None) is MR

    def test_unknown_modality_is_asked_for(self) -> None:
        quiet = Volume.from_array(np.zeros((2, 3, 4), np.float32), affine_of())
        with pytest.raises(SpadError, match=r"CT or MR.*state the modality"):
            model_input(quiet, Wants())
        assert model_input(quiet, Wants(), "MR").tensor.shape == (1, 2, 3, 4)

    def test_another_modality_is_refused(self) -> None:
        with pytest.raises(SpadError, match="is PT, but this model was made for CT or MR"):
            model_input(scan_of(), Wants(), "PT")

    def test_a_stated_modality_goes_before_the_file(self) -> None:
        made = unit_volume(scan_of(), Wants(), "MR")
        assert made.contract is MR


class TestTimes:
    def test_phase(self) -> None:
        array = np.random.default_rng(0).integers(0, 900, (3, 4, 5, 6)).astype(np.int16)
        series = Volume.from_array(array, affine_of(), axes="tzyx", slope=2.0, intercept=-500)
        for phase in range(3):
            single = Volume.from_array(array[phase], affine_of(), slope=2.0, intercept=-500)
            a = model_input(series, Wants(), "CT", phase=phase)
            b = model_input(single, Wants(), "CT")
            assert torch.equal(a.tensor, b.tensor)
            assert np.allclose(a.unit.affine, b.unit.affine)
            la = labels_on_working_grid(series, {"in_plane": 4.0}, phase=phase)
            assert np.array_equal(la, labels_on_working_grid(single, {"in_plane": 4.0}))

    @pytest.mark.parametrize("phase", [-1, 3])
    def test_no_such_time(self, phase) -> None:
        series = Volume.from_array(np.zeros((3, 2, 2, 2)), affine_of(), axes="tzyx")
        with pytest.raises(SpadError, match="from 0 to 2"):
            model_input(series, Wants(), "CT", phase=phase)


class TestLabels:
    @pytest.mark.parametrize(("order", "signs"), SIGNED_AXES)
    def test_there_and_back_on_the_scan_s_own_spacing(self, order, signs) -> None:
        labels = scan_of(order=order, signs=signs, tilt=0.2)
        there = labels_on_working_grid(labels, None)
        assert np.array_equal(there, to_canonical(labels, depth_first=True)[0])
        assert np.array_equal(labels_to_source(there, labels), labels.array)

    @pytest.mark.parametrize(("order", "signs"), SIGNED_AXES[::7])
    def test_there_and_back_through_a_finer_grid(self, order, signs) -> None:
        labels = scan_of(order=order, signs=signs, spacing=(3.0, 3.0, 3.0))
        there = labels_on_working_grid(labels, {"in_plane": 1.0})
        assert there.size == 9 * labels.array.size
        assert np.array_equal(labels_to_source(there, labels), labels.array)

    def test_labels_lie_where_the_image_does(self) -> None:
        array = np.zeros((12, 40, 44), np.uint8)
        array[3:9, 10:31, 8:30] = 1
        labels = Volume.from_array(array, affine_of(order=(1, 2, 0), tilt=0.1), label_names={})
        scan = labels.with_array(array.astype(np.int16) * 400 - 125)
        spacing = {"in_plane": 3.1}
        image = unit_volume(scan, Wants(spacing), "CT").array
        marks = labels_on_working_grid(labels, spacing)
        assert image.shape == marks.shape
        assert (image[marks == 1] > 0.45).mean() > 0.97
        assert (image[marks == 0] < 0.55).mean() > 0.99


def test_one_voxel() -> None:
    scan = Volume.from_array(np.full((1, 1, 1), 75, np.int16), affine_of())
    made = model_input(scan, Wants({"in_plane": 0.5}), "CT")
    assert made.da == 5
    assert made.tensor.shape == (1, 1, 3, 4)
    assert torch.allclose(made.tensor, torch.tensor(0.5))


def test_labels_are_no_scan(ct_phantom) -> None:
    with pytest.raises(SpadError, match="holds labels"):
        unit_volume(ct_phantom.labels, Wants(), "CT")
