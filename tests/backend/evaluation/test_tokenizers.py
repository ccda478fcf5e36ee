"""Judging a tokenizer: figures as `spad.tokenize` reports them, means, aims, what is left out."""

from __future__ import annotations

import json
import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy import fft

import spad
from spad import jsonfile
from spad.errors import Cancelled, SpadError
from spad.evaluation.scans import Scan
from spad.evaluation.tokenizers import AIMS, BASELINES, TOKENS, Judgement, judge
from spad.phantoms import Phantom
from spad.volumes.volume import Volume

from .conftest import CODES

pytestmark = pytest.mark.usefixtures("tokenizers")


def scan_of(volume: Volume, name: str = "made/1", phantom: bool = False) -> Scan:
    return Scan(name, name.partition("/")[0], lambda: volume, phantom)


def colours() -> Volume:
    array = np.random.default_rng(0).integers(0, 255, (3, 1, 40, 40), np.uint8)
    affine = np.array([[0, 0, -1, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]])
    return Volume.from_array(array, affine, axes="czyx", modality_hint="OP", rgb=True)


def refused() -> Volume:
    raise SpadError("It cannot be read; choose another.")


@pytest.fixture(scope="module")
def found(ct_phantom: Phantom, mr_phantom: Phantom) -> Judgement:
    """Two CT, one MR that counts as a phantom, and two that are left out."""
    whole = ct_phantom.image
    lower = Volume.from_array(whole.array[:20, :50, :60], whole.affine, modality_hint="CT")
    scans = [
        scan_of(ct_phantom.image, "one/a"),
        Scan("one/b", "one", refused),
        scan_of(lower, "two/c"),
        scan_of(mr_phantom.image, "phantoms/d", phantom=True),
        scan_of(colours(), "phantoms/e", phantom=True),
    ]
    return judge(scans, "gray", "cpu")


def group(found: Judgement, kind: str, name: str) -> dict:
    (only,) = (g for g in found.report["groups"] if (g["group"], g["name"]) == (kind, name))
    return only


class TestCases:
    def test_model_and_trilinear_as_tokenize_reports(
        self, found: Judgement, ct_phantom: Phantom
    ) -> None:
        case, report = found.report["cases"][0], spad.tokenize(ct_phantom.image, "gray").report
        for key in ("da", "grid", "psnr", "ssim", "l1", "l1_unit", "trilinear", *TOKENS):
            assert case[key] == report[key], key

    def test_dct_by_its_own_formula(self, found: Judgement, ct_phantom: Phantom) -> None:
        unit = (np.clip(ct_phantom.image.values().astype(float), -125, 275) + 125) / 400
        unit = np.flip(unit, 0)  # head first, as models see it
        case = found.report["cases"][0]
        block = (16 >> case["da"], 16, 16)
        order = sorted(np.ndindex(*block), key=lambda k: (sum(n * n for n in k), k))
        keep = np.zeros(block)
        keep[tuple(zip(*order[:16], strict=True))] = 1
        error = 0.0
        for corner in np.ndindex(*(n // b for n, b in zip(unit.shape, block, strict=True))):
            cut = (slice(c * b, (c + 1) * b) for c, b in zip(corner, block, strict=True))
            part = unit[tuple(cut)]
            again = np.clip(fft.idctn(fft.dctn(part, norm="ortho") * keep, norm="ortho"), 0, 1)
            error += np.abs(again - part).sum()
        assert case["dct16"]["l1"] == pytest.approx(400 * error / unit.size, rel=1e-3)
        assert case["dct16_largest"]["l1"] < case["dct16"]["l1"] < case["trilinear"]["l1"]
        assert case["dct16"]["psnr"] > case["trilinear"]["psnr"]

    def test_ratios(self, found: Judgement) -> None:
        for case in found.report["cases"]:
            for name in BASELINES:
                assert case[f"l1_to_{name}"] == case["l1"] / case[name]["l1"]

    def test_what_is_left_out_says_why(self, found: Judgement) -> None:
        first, second = found.report["left_out"]
        assert first == {"case": "one/b", "reason": "It cannot be read; choose another."}
        assert second["case"] == "phantoms/e"
        assert "colours" in second["reason"]

    def test_report_is_plain_json(self, found: Judgement) -> None:
        read_back = json.loads(jsonfile.dumps(found.report))
        assert [g["name"] for g in read_back["groups"]] == [
            g["name"] for g in found.report["groups"]
        ]


class TestGroups:
    def test_which(self, found: Judgement) -> None:
        names = [(g["group"], g["name"]) for g in found.report["groups"]]
        assert names[:5] == [
            *(("all", "all"), ("scans", "scans"), ("phantoms", "phantoms")),
            *(("modality", "CT"), ("modality", "MR (phantom)")),
        ]
        assert names[5:7] == [("data set", "one"), ("data set", "two")]
        assert {kind for kind, _ in names[7:]} == {"da"}

    def test_means_over_cases(self, found: Judgement) -> None:
        cases, ct = found.report["cases"], group(found, "modality", "CT")
        assert ct["cases"] == 2
        for key in ("psnr", "ssim", "l1", "l1_to_dct16"):
            assert ct[key] == pytest.approx((cases[0][key] + cases[1][key]) / 2)
        mean = (cases[0]["trilinear"]["l1"] + cases[1]["trilinear"]["l1"]) / 2
        assert ct["trilinear"]["l1"] == pytest.approx(mean)
        assert ct["l1_unit"] == "HU"

    def test_no_mean_of_different_units(self, found: Judgement) -> None:
        whole = group(found, "all", "all")
        assert whole["l1"] is None
        assert whole["dct16"]["l1"] is None
        assert whole["l1_unit"] is None
        assert whole["psnr"] == pytest.approx(np.mean([c["psnr"] for c in found.report["cases"]]))

    def test_usage_is_pooled_over_tokens(
        self, found: Judgement, ct_phantom: Phantom, mr_phantom: Phantom
    ) -> None:
        ct, mr = (spad.tokenize(p.image, "gray") for p in (ct_phantom, mr_phantom))
        both = judge([scan_of(ct_phantom.image), scan_of(mr_phantom.image)], "gray")
        n, m = ct.codes.array.size, mr.codes.array.size
        assert n != m
        assert np.allclose(both.usage["all"], (n * ct.usage + m * mr.usage) / (n + m), atol=1e-6)
        assert np.allclose(both.usage["CT"], ct.usage, atol=1e-6)
        whole = group(both, "all", "all")
        used = set(np.unique(ct.codes.array)) | set(np.unique(mr.codes.array))
        assert (whole["codes_used"], whole["codes"], whole["tokens"]) == (len(used), CODES, n + m)
        entropy = (n * ct.report["mean_entropy"] + m * mr.report["mean_entropy"]) / (n + m)
        assert whole["mean_entropy"] == pytest.approx(entropy, abs=1e-5)
        assert whole["mean_kl_to_uniform"] == pytest.approx(math.log(CODES) - entropy, abs=1e-5)

    def test_phantoms_are_counted(self, found: Judgement) -> None:
        assert [group(found, k, k)["phantoms"] for k in ("all", "scans", "phantoms")] == [1, 0, 1]
        assert found.report["cases"][2]["phantom"]


class TestAims:
    def test_found_and_met(self, found: Judgement) -> None:
        for aim in found.report["aims"]:
            here = group(found, aim["group"], aim["name"])
            assert aim["found"] == here[aim["figure"]]
            if aim["met"] is not None:
                below = aim["figure"] in ("l1_to_trilinear", "l1_to_dct16", "most_over_least")
                assert aim["met"] == (
                    aim["found"] <= aim["bound"] if below else aim["found"] >= aim["bound"]
                )
        assert len(found.report["aims"]) == len(AIMS) * 5

    def test_too_few_tokens_say_nothing(self, found: Judgement) -> None:
        (used,) = (aim for aim in AIMS if aim.figure == "codes_used_share")
        whole = {**group(found, "all", "all"), "codes_used_share": 1.0, "codes": 10}
        assert used.judged({**whole, "tokens": 49})["met"] is None
        assert used.judged({**whole, "tokens": 50})["met"] is True
        (dct,) = (aim for aim in AIMS if aim.figure == "l1_to_dct16")
        assert dct.judged({**whole, "l1_to_dct16": 1.01})["met"] is False


class TestPictures:
    def test_one_for_each_modality_and_da(self, found: Judgement) -> None:
        titles = [row.title for row in found.rows]
        assert titles == sorted(set(titles))
        assert any(title.startswith("MR (phantom)") for title in titles)

    def test_the_middle_slice(self, found: Judgement, ct_phantom: Phantom) -> None:
        row = next(row for row in found.rows if row.case == "one/a")
        image = ct_phantom.image
        assert row.width == 400
        middle = image.array.shape[0] - 1 - image.array.shape[0] // 2  # head first
        unit = (np.clip(image.values(middle), -125, 275) + 125) / 400
        assert np.allclose(row.scan, unit, atol=1e-6)
        again = spad.tokenize(image, "gray").reconstruction.values(middle)
        assert np.allclose(row.reconstruction, (again + 125) / 400, atol=1e-5)
        assert row.trilinear.shape == unit.shape
        assert np.abs(row.trilinear - unit).mean() > 0.01

    def test_colours(self) -> None:
        found = judge([scan_of(colours(), phantom=True)], "colours")
        (row,) = found.rows
        assert row.scan.shape == row.reconstruction.shape == row.trilinear.shape == (40, 40, 3)
        assert np.allclose(row.scan, colours().array[:, 0].transpose(1, 2, 0) / 255, atol=1e-6)
        assert row.width == 255


class TestEnds:
    def test_nothing_left(self) -> None:
        with pytest.raises(SpadError, match=r"No scan of 1 .* It cannot be read"):
            judge([Scan("one/b", "one", refused)], "gray")

    def test_no_scans(self) -> None:
        with pytest.raises(SpadError, match="No scan of 0"):
            judge([], "gray")

    def test_not_a_tokenizer(self) -> None:
        with pytest.raises(SpadError, match="no model called"):
            judge([], "none-such")

    def test_a_modality_that_the_model_refuses(
        self, ct_phantom: Phantom, mr_phantom: Phantom
    ) -> None:
        found = judge([scan_of(mr_phantom.image, "a/mr"), scan_of(ct_phantom.image)], "ct")
        (left,) = found.report["left_out"]
        assert left["case"] == "a/mr"
        assert "MR" in left["reason"]

    @pytest.mark.parametrize("at", [0.0, 0.4])
    def test_cancelled(self, ct_phantom: Phantom, at: float) -> None:
        with pytest.raises(Cancelled):
            judge([scan_of(ct_phantom.image)], "gray", progress=stop_at(at))


def stop_at(fraction: float) -> Callable[[float, str], None]:
    def progress(done: float, text: str) -> None:
        if done >= fraction:
            raise Cancelled

    return progress
