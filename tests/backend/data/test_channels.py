"""Scans of several channels on their way to a model: grids, limits, copies, and what is refused."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest

from spad.data.channels import channels_of, on_grid_of
from spad.data.model_input import UnitChannels, unit_channels, unit_volume
from spad.errors import SpadError
from spad.volumes.intensity import CT, MR, Intensity
from spad.volumes.volume import Volume

AFFINE = np.array([[0, 0, -2.0, 9], [0, -2.0, 0, 4], [-3.0, 0, 0, 70], [0, 0, 0, 1]])
TURNED = AFFINE @ np.array([[0, 0, -1, 5], [0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]])
"""The same grid for an array whose axes run x, y, z, the last one upwards."""


@dataclass
class Wants:
    """The part of a card that the model input needs."""

    channels: list[str] = field(default_factory=lambda: ["in phase", "out phase"])
    working_spacing: dict[str, float] | None = None
    intensity: dict[str, Intensity] = field(default_factory=lambda: {"CT": CT, "MR": MR})


def values(seed: int, high: int = 900) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, high, (6, 8, 10)).astype(np.int16)


def scan(array: np.ndarray, modality: str | None = "MR", affine: np.ndarray = AFFINE) -> Volume:
    axes = "zyx" if array.ndim == 3 else "czyx"
    return Volume.from_array(array, affine, axes=axes, modality_hint=modality)


def alone(array: np.ndarray, modality: str = "MR", card: Wants | None = None) -> np.ndarray:
    return unit_volume(scan(array, modality), card or Wants()).array


class TestUnitChannels:
    def test_two_scans_and_a_channel_axis_give_the_same(self) -> None:
        first, second = values(0), values(1, 200)
        apart = unit_channels([scan(first), scan(second)], Wants())
        joined = unit_channels([scan(np.stack([first, second]))], Wants())
        assert np.array_equal(apart.array, joined.array)
        assert np.array_equal(apart.array, np.stack([alone(first), alone(second)]))
        assert apart.limits[0] != apart.limits[1]
        assert not apart.copied

    def test_on_the_working_grid(self) -> None:
        card = Wants(working_spacing={"in_plane": 4.0})
        found = unit_channels([scan(values(0)), scan(values(1))], card)
        assert found.array.shape == (2, *found.frame.size) == (2, 4, 4, 5)
        assert np.array_equal(found.array[1], alone(values(1), card=card))

    def test_a_channel_may_have_another_order_of_axes(self) -> None:
        first, second = values(0), values(1)
        turned = scan(second[::-1].transpose(2, 1, 0), affine=TURNED)
        found = unit_channels([scan(first), turned], Wants())
        assert np.array_equal(found.array[1], alone(second))

    def test_one_scan_is_copied(self) -> None:
        found = unit_channels([scan(values(0))], Wants())
        assert found.copied
        assert np.array_equal(found.array, np.stack([alone(values(0))] * 2))
        assert len(found.contracts) == len(found.limits) == 2

    def test_pet_beside_ct(self) -> None:
        pet = Intensity("percentiles", 1, 99, shift=0.5, scale=0.25)
        card = Wants(["CT", "PET"], intensity={"CT": CT, "PT": pet})
        found = unit_channels([scan(values(0) - 300, "CT"), scan(values(1), "PT")], card)
        assert found.contracts == (CT, pet)
        region = (slice(1, 3), slice(2, 5), slice(0, 4))
        given = found.to_model(region)
        assert np.array_equal(given[0], CT.to_model(found.array[0][region]))
        assert np.array_equal(given[1], pet.to_model(found.array[1][region]))

    def test_a_stated_modality_is_that_of_channels_that_tell_none(self) -> None:
        low = (values(0) % 40).astype(np.uint8)
        found = unit_channels([scan(low, None), scan(low, None)], Wants(), "MR")
        assert found.contracts == (MR, MR)

    def test_times_of_a_file_stand_for_channels(self) -> None:
        times = Volume.from_array(
            np.stack([values(0), values(1)]), AFFINE, axes="tzyx", modality_hint="MR"
        )
        found = unit_channels([times], Wants())
        assert np.array_equal(found.array[1], alone(values(1)))

    def test_a_model_of_one_channel(self) -> None:
        card = Wants(channels=[])
        found = unit_channels([scan(values(0))], card)
        assert isinstance(found, UnitChannels)
        assert np.array_equal(found.array[0], alone(values(0)))
        times = Volume.from_array(
            np.stack([values(0), values(1)]), AFFINE, axes="tzyx", modality_hint="MR"
        )
        assert np.array_equal(unit_channels([times], card, phase=1).array[0], alone(values(1)))

    @pytest.mark.parametrize(
        ("scans", "channels", "sentence"),
        [
            ([scan(values(0))] * 3, ["a", "b"], r"has 3 channels.* made for 2 \(a, b\)"),
            ([scan(values(0))] * 2, [], "has 2 channels.* made for 1"),
            ([scan(values(0)), scan(values(0)[:4])], ["a", "b"], "on one grid"),
        ],
    )
    def test_what_does_not_fit_is_refused(self, scans, channels, sentence) -> None:
        with pytest.raises(SpadError, match=sentence):
            unit_channels(scans, Wants(channels))


def test_channels_keep_slope_and_unit() -> None:
    stack = np.stack([values(0), values(1)])
    volume = Volume.from_array(stack, AFFINE, axes="czyx", slope=2.0, intercept=-5.0)
    parts = channels_of(volume)
    assert [np.array_equal(p.values(), 2.0 * a - 5) for p, a in zip(parts, stack, strict=True)] == [
        True,
        True,
    ]


def test_colours_are_no_channels() -> None:
    colours = Volume.from_array(
        np.zeros((3, 1, 5, 5), np.uint8), AFFINE, axes="czyx", rgb=True, modality_hint="MR"
    )
    with pytest.raises(SpadError, match="colours"):
        channels_of(colours)


def test_another_place_is_another_grid() -> None:
    moved = AFFINE.copy()
    moved[0, 3] += 1
    assert on_grid_of(scan(values(0), affine=moved), scan(values(0))) is None
