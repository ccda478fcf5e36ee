"""Clicks on scans, with a decoder that marks what is as bright as the place clicked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage

import spad
from spad.checkpoints.card import Card
from spad.checkpoints.file import save
from spad.data.model_input import unit_channels
from spad.errors import SpadError
from spad.inference.click_canvas import about, sureness
from spad.inference.click_input import Before, click_scan, told
from spad.inference.click_model import ClickModel
from spad.inference.click_scans import open_scan
from spad.inference.clicks import ClickSession
from spad.inference.features import Encoding, Features
from spad.inference.models import loaded
from spad.models.clicker import INPUTS, Clicker
from spad.prompts.part import Part, part_of
from spad.prompts.prompt import Prompt
from spad.volumes.axes import to_canonical
from spad.volumes.volume import Volume

from .conftest import CT, MR, SIGNED_AXES, affine_of


def alike_clicker() -> Clicker:
    """Marks what is more alike in brightness to the positive points than the patch's mean."""
    torch.manual_seed(0)
    model = Clicker(8, (8, 8, 8, 8))
    mix = model.ups[0].mix
    with torch.no_grad():
        for conv, source in (
            (model.encoder[0].conv1, INPUTS.index("alike")),
            (model.encoder[0].conv2, 0),
            (mix.conv1, mix.conv1.weight.shape[1] // 2),
            (mix.conv2, 0),
        ):
            conv.weight.zero_()
            conv.weight[0, source, 1, 1, 1] = 1
        model.head.weight.zero_()
        model.head.weight[0, 0] = 10
        model.head.bias.zero_()
    return model.eval()


@pytest.fixture(scope="module")
def clicker(home: Path) -> str:
    """A clicker on the features of the segmenter "block"."""
    card = Card(
        "clicker", "alike", {}, {"CT": CT, "MR": MR, "*": MR}, segmenter="block", licence="none"
    )
    save(home / "models" / "alike.safetensors", alike_clicker(), card)
    return "alike"


def scan_with(
    box, shape=(40, 60, 60), spacing=(3.0, 2.0, 2.0), order=(2, 1, 0), signs=(-1, -1, -1)
):
    """A CT of soft tissue with a bright block, and where that is."""
    rng = np.random.default_rng(0)
    wanted = np.zeros(shape, bool)
    wanted[tuple(slice(*pair) for pair in box)] = True
    array = np.where(wanted, 200, -60) + rng.normal(0, 4, shape)
    affine = affine_of(order, signs, spacing)
    return Volume.from_array(array.round().astype(np.int16), affine, modality_hint="CT"), wanted


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


BOX = ((12, 26), (20, 45), (15, 38))


def test_one_click_finds_a_block_and_a_second_label_another_place(clicker: str) -> None:
    scan, wanted = scan_with(BOX)
    with spad.ClickSession(scan, clicker, features=False) as session:
        session.click((18, 30, 25), label="thing")
        labels = session.labels
        assert labels.label_names == {1: "thing"}
        assert dice(labels.array == 1, wanted) > 0.9
        session.click((5, 10, 50), label="rest")
        assert session.labels.array[5, 10, 50] == 2
        session.undo()
        np.testing.assert_array_equal(session.labels.array, labels.array)


@pytest.mark.parametrize("number", range(0, 48, 7))
def test_every_order_of_axes_gives_the_same_voxels(clicker: str, number: int) -> None:
    reference, _ = scan_with(BOX)
    order, signs = SIGNED_AXES[number]
    view, affine = to_canonical(reference, depth_first=False)
    turned = Volume.from_array(view, affine, modality_hint="CT")
    axes = [2 - order[n] for n in range(3)]
    flips = tuple(slice(None, None, -1) if signs[n] > 0 else slice(None) for n in range(3))
    array = turned.array.transpose(axes)[flips]
    step = np.eye(4)
    new = np.zeros((4, 4))
    new[3, 3] = 1
    for n in range(3):
        step_sign = -1 if signs[n] > 0 else 1
        new[axes[n], n] = step_sign
        new[axes[n], 3] = array.shape[n] - 1 if step_sign < 0 else 0
    del step
    other = Volume.from_array(np.ascontiguousarray(array), affine @ new, modality_hint="CT")
    place = reference.affine @ [18, 30, 25, 1]
    found = []
    for one in (reference, other):
        with ClickSession(one, clicker, features=False) as session:
            session.click(mm=place[:3], label="thing")
            found.append(to_canonical(session.labels, depth_first=False)[0])
    assert found[0].any()
    if np.argmax(np.abs(other.affine[:3, 0])) == np.argmax(np.abs(reference.affine[:3, 0])):
        np.testing.assert_array_equal(*found)
    else:  # another depth axis is another patch
        assert dice(found[0] > 0, found[1] > 0) > 0.85


def test_the_region_grows_with_the_object_and_a_coarse_answer_comes_first(clicker: str) -> None:
    box = ((4, 86), (8, 162), (8, 160))
    scan, wanted = scan_with(box, (90, 170, 170), (2.4, 1.2, 1.2))
    model = ClickModel(clicker, torch.device("cpu"))
    seen: list[Part] = []
    known = click_scan(scan, model.card)
    part = model.answer(
        known, None, [Prompt("point", ((8, 14, 16),))], None, None, show=seen.append
    )
    found = np.zeros(scan.spatial_shape, bool)
    found[part.region] = part.mask
    assert dice(found, wanted) > 0.9
    assert len(seen) == 1
    assert seen[0].digest() != part.digest()


def test_an_object_of_few_clicks_is_drawn_anew_and_another_where_one_clicked(clicker: str) -> None:
    scan, wanted = scan_with(BOX)
    model = ClickModel(clicker, torch.device("cpu"))
    known = click_scan(scan, model.card)
    before = wanted.copy()
    before[:, 20:26] = before[:, 39:45] = False  # both ends are missing
    previous = part_of(before.astype(np.uint8), 1)
    inside, end = (Prompt("point", ((18, row, 25),)) for row in (30, 22))

    def found(prompts: list[Prompt], *, by_prompts: bool) -> np.ndarray:
        part = model.answer(known, None, prompts, previous, None, by_prompts=by_prompts)
        made = before.copy()
        made[part.region] = part.mask
        assert made[18, 22, 25]
        return made

    assert found([inside, end], by_prompts=True)[18, 42, 25]
    assert not found([inside, end], by_prompts=False)[18, 42, 25]
    assert not found([inside, inside, inside, end], by_prompts=True)[18, 42, 25]


def test_the_farther_from_a_click_the_surer_a_change_must_be() -> None:
    region = (slice(0, 20), slice(0, 30), slice(0, 100))
    clicked = np.array([[10, 10, 10], [10, 12, 14]])
    sure = sureness(region, clicked, np.array([4.0, 2.0, 1.0]))
    assert sure.shape == (20, 30, 100)
    for voxel, wanted in (
        ((10, 11, 12), 0.7),
        ((15, 12, 12), 0.8),
        ((10, 10, 44), 0.85),
        ((10, 0, 99), 0.98),
    ):
        assert float(sure[voxel]) == pytest.approx(wanted, abs=1e-6)
    assert float(sureness(region, None, np.ones(3))) == pytest.approx(0.7)


def test_what_was_clicked_is_what_was_said_and_far_voxels_stay(clicker: str) -> None:
    scan, _ = scan_with(((240, 252), (20, 45), (15, 38)), (260, 60, 60), (2.0, 2.0, 2.0))
    start = np.zeros(scan.spatial_shape, bool)
    start[4:9, 30:36, 30:36] = True
    with ClickSession(scan, clicker, features=False) as session:
        session.start("thing", start)
        session.click((246, 30, 25), label="thing")
        now = session.labels.array > 0
        np.testing.assert_array_equal(now[:60], start[:60])
        assert now[244, 25, 20]
        session.prompt(Prompt("scribble", ((246, 31, 25), (246, 32, 25)), False), label="thing")
        assert not session.labels.array[246, 31:33, 25].any()
        session.prompt(Prompt("scribble", ((3, 3, 3), (3, 4, 3))), label="thing")
        assert session.labels.array[3, 3:5, 3].all()


@pytest.mark.parametrize("kind", ["box", "flat box", "lasso", "scribble"])
def test_every_prompt_finds_its_place(clicker: str, kind: str) -> None:
    scan, _ = scan_with(BOX)
    made = {
        "box": Prompt("box", ((12, 20, 15), (25, 44, 37))),
        "flat box": Prompt("box", ((18, 20, 15), (18, 44, 37))),
        "lasso": Prompt("lasso", ((18, 20, 15), (18, 44, 15), (18, 30, 37))),
        "scribble": Prompt("scribble", ((18, 30, 20), (18, 30, 25), (18, 30, 30))),
    }[kind]
    with ClickSession(scan, clicker, features=False) as session:
        change = session.prompt(made, label="thing")
        assert all(r.start <= 18 < r.stop for r in change.region[:1])
        assert session.session.objects["thing"].prompts == (made,)


@pytest.mark.parametrize("positive", [True, False])
def test_a_click_changes_what_it_is_about(positive: bool) -> None:
    """The decoder moves the whole edge and changes two places; one of them was clicked."""
    small = np.zeros((30, 30, 60), bool)
    small[8:22, 8:22, 8:40] = True
    large = ndimage.binary_dilation(small)
    large[10:20, 10:20, 2:8] = large[10:20, 10:20, 41:50] = True
    before, after = (small, large) if positive else (large, small)
    made = about(np.array([[15, 15, 45]]), positive, before, after)
    clicked, other = (slice(11, 19), slice(11, 19), slice(42, 50)), (slice(10, 20),) * 2
    assert made[clicked].all() == positive
    assert made[clicked].any() == positive
    assert np.array_equal(made[(*other, slice(2, 8))], before[(*other, slice(2, 8))])
    assert np.array_equal(made[:, :8], before[:, :8])
    assert np.array_equal(about(np.array([[15, 15, 45]]), not positive, before, after), before)


def test_what_a_removal_cuts_off_goes_with_it_if_it_is_smaller() -> None:
    before = np.zeros((20, 20, 40), bool)
    before[5:15, 5:15, 5:35] = True
    before[2, 2, 25] = True
    after = before.copy()
    after[5:15, 5:15, 20:30] = False
    # the decoder leaves a crumb in the middle of what it takes away
    after[10, 10, 25:27] = True
    made = about(np.array([[8, 8, 22]]), False, before, after)
    assert not made[5:15, 5:15, 21:29].any()
    assert made[5:15, 5:15, 5:18].all()
    assert made[5:15, 5:15, 32:35].all()
    # one that was apart before is none
    assert made[2, 2, 25]
    # and one that is larger stays
    after = before.copy()
    after[9:12, 9:12, 9:30] = False
    after[10, 10, 10:29] = True
    few = about(np.array([[9, 9, 12]]), False, before, after)
    assert few[7, 7, 5:35].all()


def test_what_adds_takes_nothing_away_and_the_other_way_round(clicker: str) -> None:
    """With a second place of another brightness the decoder would draw nothing that was there."""
    scan, _ = scan_with(BOX)
    with ClickSession(scan, clicker, features=False) as session:
        session.click((18, 30, 25), label="thing")
        first = session.labels.array > 0
        session.click((18, 30, 45), label="thing")
        second = session.labels.array > 0
        assert not (first & ~second).any()
        assert second[18, 30, 45]
        session.click((18, 30, 22), label="thing", positive=False)
        third = session.labels.array > 0
        assert not (third & ~second).any()
        assert not third[18, 30, 22]


def test_the_piece_that_is_meant_is_looked_at(clicker: str) -> None:
    scan, _ = scan_with(BOX)
    known = click_scan(scan, ClickModel(clicker, torch.device("cpu")).card)
    mask = np.zeros(scan.array.shape, bool)
    mask[5:9, 5:9, 5:9] = mask[30:36, 40:50, 50:52] = True
    before = Before(Part((0, 0, 0), mask), known)
    for voxel, size in (((7, 7, 7), (4, 4, 4)), ((28, 44, 51), (6, 10, 2))):
        place = known.canonical(np.array([voxel]))[0]
        assert sorted(np.ptp(before.piece(place), axis=0)) == sorted(size)


def test_a_lasso_holds_its_inside(clicker: str) -> None:
    scan, _ = scan_with(BOX)
    model = ClickModel(clicker, torch.device("cpu"))
    known = click_scan(scan, model.card)
    corners = ((18, 20, 15), (18, 40, 15), (18, 40, 35), (18, 20, 35))
    inside = told([Prompt("lasso", corners)], known).lassos[0]
    assert len(inside) == 21 * 21


@pytest.mark.parametrize(
    ("kind", "corners"),
    [
        ("box", ((11, 19, 14), (26, 45, 38))),
        ("lasso", ((18, 18, 13), (18, 46, 13), (18, 46, 40), (18, 18, 40))),
    ],
)
def test_what_is_drawn_around_an_object_finds_it_without_a_click(
    clicker: str, kind: str, corners: tuple[tuple[int, int, int], ...]
) -> None:
    scan, wanted = scan_with(BOX)
    with ClickSession(scan, clicker, features=False) as session:
        session.prompt(Prompt(kind, corners), label="thing")
        assert dice(session.labels.array > 0, wanted) > 0.9


@pytest.mark.parametrize("kind", ["box", "flat box", "lasso"])
def test_an_object_stays_in_what_is_drawn_around_it_until_one_clicks(
    clicker: str, kind: str
) -> None:
    scan, wanted = scan_with(BOX)
    # half of the block
    drawn = {
        "box": Prompt("box", ((14, 22, 17), (24, 32, 36))),
        "flat box": Prompt("box", ((18, 22, 17), (18, 32, 36))),
        "lasso": Prompt("lasso", ((18, 22, 17), (18, 32, 17), (18, 32, 36), (18, 22, 36))),
    }[kind]
    solid = kind == "box"
    allowed = np.full(wanted.shape, not solid)
    allowed[18] = False
    allowed[14 : 25 if solid else 15, 22:33, 17:37] = True
    allowed[18, 22:33, 17:37] = True
    with ClickSession(scan, clicker, features=False) as session:
        session.prompt(drawn, label="thing")
        assert not (session.labels.array.astype(bool) & ~allowed).any()
        assert (session.labels.array[18] > 0).any()
        if not solid:
            # it says nothing of other slices
            assert (session.labels.array[16] > 0)[35:43].any()
        session.click((18, 40, 25), label="thing")
        assert session.labels.array[18, 40, 25]
        assert (session.labels.array.astype(bool) & ~allowed).any()
    with ClickSession(scan, clicker, features=False) as session:
        # an object that began otherwise is not cut
        session.start("thing", wanted)
        session.prompt(drawn, label="thing")
        assert session.labels.array[18, 40, 25]


def test_a_click_says_more_than_a_box(clicker: str) -> None:
    scan, _ = scan_with(BOX)
    known = click_scan(scan, ClickModel(clicker, torch.device("cpu")).card)
    box, click = Prompt("box", ((1, 2, 3), (5, 8, 9))), Prompt("point", ((18, 30, 25),))
    no = Prompt("point", ((2, 2, 3),), positive=False)
    middle = known.canonical(np.array([[3, 5, 6]]))
    for prompts in ([box], [box, no]):
        np.testing.assert_array_equal(told(prompts, known).seeds, middle)
        assert len(told(prompts, known).regions[0]) == 1
    both = told([box, click], known)
    np.testing.assert_array_equal(both.seeds, [*middle, *both.positive])
    assert both.regions == ([], [])
    assert len(told([click, box], known).regions[0]) == 1
    assert len(told([no], known).seeds) == 0


def test_features_are_those_of_the_segmenter_whole_and_in_order(home: Path, clicker: str) -> None:
    scan, _ = scan_with(BOX, (60, 100, 100), spacing=(2.0, 2.0, 2.0))
    network, card = loaded("block", "cpu")
    unit = unit_channels([scan], card)
    work = Encoding(network, card, unit, {1: "block"})
    assert work.count > 1
    seen = []
    for _ in work.windows(near=(0.0, 0.0, 0.0)):
        seen.append(int(work.features.seen.sum()))
        assert bool(work.features.seen[0, 0, 0])
    assert work.features.complete
    assert bool(work.features.seen.all())
    assert seen == sorted(seen)
    assert work.features.maps.shape[1:] == (30, 50, 50)
    total = work.features.organs.int().sum(0)
    assert int(total.min()) >= 253
    assert int(total.max()) <= 257
    other = Encoding(network, card, unit, {1: "block"})
    for number, _ in enumerate(other.windows()):
        if number == 1:  # a second pass overtakes the first
            list(other.windows())
    torch.testing.assert_close(
        other.features.organs.float(), work.features.organs.float(), atol=1, rtol=0
    )


def test_an_automatic_organ_is_what_segment_gives(clicker: str) -> None:
    scan, _ = scan_with(BOX, (40, 64, 64), spacing=(2.0, 2.0, 2.0))
    with ClickSession(scan, clicker) as session:
        session.start("block")
        by_clicks = session.labels.array > 0
    assert dice(by_clicks, spad.segment(scan, model="block").array > 0) > 0.98


def test_the_air_around_a_body_is_not_looked_at(home: Path, clicker: str) -> None:
    scan, _ = scan_with(BOX, (60, 100, 100), spacing=(2.0, 2.0, 2.0))
    array = np.pad(scan.array, (0, 70), constant_values=-1000)
    network, card = loaded("block", "cpu")
    counts = []
    for one in (array[:60, :100, :100], array):
        volume = Volume.from_array(one, scan.affine, modality_hint="CT")
        work = Encoding(network, card, unit_channels([volume], card), {1: "block"})
        counts.append(len(list(work.windows())))
        organs = work.features.organs
        assert bool(((organs[0] == 255) & (organs[1] == 0)).any()) is (one is array)
        assert bool((organs.int().sum(0) > 250).all())
    assert counts[1] < 3 * counts[0]


def test_small_pieces_of_an_automatic_organ_do_not_count() -> None:
    organs = torch.zeros(2, 10, 20, 20, dtype=torch.uint8)
    organs[0] = 255
    for box in (
        (slice(2, 8), slice(2, 8), slice(2, 8)),
        (slice(4, 6), slice(14, 16), slice(14, 16)),
    ):
        organs[0][box], organs[1][box] = 0, 255
    seen = torch.ones(organs.shape[1:], dtype=torch.bool)
    known = Features(torch.zeros(1, 5, 10, 10), organs, [0, 7], {7: "block"}, seen)
    known.least_piece = {1: 0.5}
    assert known.best[5, 15, 15] == 1
    known.complete, known._best = True, None
    assert known.best[5, 15, 15] == 0
    assert known.best[5, 5, 5] == 1


def test_a_first_click_on_an_automatic_organ_gives_that_piece(clicker: str) -> None:
    scan, wanted = scan_with(BOX, (40, 64, 64), spacing=(2.0, 2.0, 2.0))
    other = np.zeros_like(wanted)
    other[30:36, 4:12, 4:12] = True
    array = scan.array.copy()
    array[other] = 200
    scan = Volume.from_array(array, scan.affine, modality_hint="CT")
    automatic = spad.segment(scan, model="block").array > 0
    assert automatic[other].all()
    with ClickSession(scan, clicker) as session:
        session.click((18, 30, 25), label="block")
        now = session.labels.array > 0
        assert not now[other].any()
        assert dice(now, automatic & ~other) > 0.98
        session.undo()
        session.click((18, 30, 25), label="not block")
        assert (session.labels.array > 0).any()
        assert dice(session.labels.array > 0, now) < 1


def test_an_open_scan_is_encoded_once_and_answers_before(clicker: str) -> None:
    scan, wanted = scan_with(BOX)
    opened = open_scan(scan, clicker, None, "cpu", 0)
    assert open_scan(scan, clicker, None, "cpu", 0) is opened
    prompts = [Prompt("point", ((18, 30, 25),))]
    part = opened.click(prompts, None, "block", features=True, organs=True)
    assert part.mask.any()
    assert opened.features is None
    with pytest.raises(SpadError, match="not ready yet"):
        opened.organ("block")
    report = opened.encode((0.5, 0.5, 0.5), "cpu", lambda fraction, text: None)
    assert report["windows"] >= 1
    assert report["organs"] == ["block"]
    assert report["features_mb"] > 0
    found = opened.organ("block")
    assert found is not None
    with pytest.raises(SpadError, match="knows no 'heart'"):
        opened.organ("heart")
    places = opened.doubts(None, 3)
    assert all(all(0 <= v < n for v, n in zip(p, wanted.shape, strict=True)) for p in places)


def test_doubts_lie_at_the_edge_of_the_object(clicker: str) -> None:
    scan, _ = scan_with(BOX)
    opened = open_scan(scan, clicker, None, "cpu", 0)
    opened.encode((0.5, 0.5, 0.5), "cpu", lambda fraction, text: None)
    part = Part((10, 10, 10), np.ones((12, 20, 20), bool))
    places = opened.doubts(part, 5)
    assert places
    for voxel in places:
        depth = [min(v - 10, 10 + n - 1 - v) for v, n in zip(voxel, (12, 20, 20), strict=True)]
        assert -3 <= min(depth) <= 3


def test_a_clicker_of_another_segmenter_s_features_is_refused(home: Path, clicker: str) -> None:
    card = Card("clicker", "other", {}, {"CT": CT}, segmenter="block", licence="none")
    card.provenance["segmenter_sha256"] = "0" * 64
    save(home / "models" / "other.safetensors", alike_clicker(), card)
    with pytest.raises(SpadError, match="made for another file"):
        ClickSession(scan_with(BOX)[0], "other")


def test_bad_clicks_are_one_sentence_and_change_nothing(clicker: str) -> None:
    scan, _ = scan_with(BOX)
    with ClickSession(scan, clicker, features=False) as session:
        with pytest.raises(SpadError, match="outside the scan"):
            session.click((18, 30, 99), label="thing")
        with pytest.raises(SpadError, match="outside the scan"):
            session.click(mm=(1000, 0, 0), label="thing")
        with pytest.raises(SpadError, match="either a voxel or"):
            session.click(label="thing")
        with pytest.raises(SpadError, match="No automatic result"):
            session.start("thing")
        with pytest.raises(SpadError, match="scan's own grid"):
            session.start("thing", np.ones((2, 2, 2), bool))
        assert not session.labels.array.any()
    with pytest.raises(SpadError, match="a clicker is needed"):
        ClickSession(scan, "block")
    with pytest.raises(SpadError, match="holds labels"):
        ClickSession(scan.with_array(scan.array * 0, label_names={1: "a"}), clicker)
