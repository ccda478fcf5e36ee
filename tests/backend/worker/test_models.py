"""The models' jobs through the worker give what the same functions give here."""

from __future__ import annotations

import os
import signal
import threading
import time

import numpy as np
import psutil
import pytest
import torch

from spad import turns
from spad.checkpoints.card import Card
from spad.checkpoints.file import save
from spad.errors import Cancelled
from spad.inference.decoding import alone, decode, decode_slice
from spad.inference.segment import segment
from spad.inference.tokens import mask, tokenize
from spad.models.segmenter import Segmenter
from spad.models.tokenizer import Tokenizer
from spad.models.vit import MaskedImageModel
from spad.volumes.intensity import CT
from spad.volumes.volume import Volume
from spad.worker import messages
from spad.worker.client import WorkerDied
from spad.worker.describe import describe

VIT = {"dim": 32, "depth": 2, "heads": 2, "position_grid": (2, 4, 4)}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Three untrained models: what they say is of no use, but always the same."""
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    card = {"architecture": {}, "intensity": {"CT": CT}, "licence": "none"}
    tokens = save(
        folder / "tokens.safetensors",
        Tokenizer(in_channels=1, channels=(8, 16, 32), codes=64),
        Card("tokenizer", "tokens", **card),
    )
    masks = save(
        folder / "masks.safetensors",
        MaskedImageModel({"in_channels": 1, **VIT}, codes=64),
        Card("mim", "masks", tokenizer=str(tokens), **card),
    )
    segmenter = Segmenter(
        in_channels=1,
        classes=3,
        vit={**VIT, "depth": 4},
        blocks=(0, 1, 2, 3),
        decoder_channels=(16, 16, 16, 16),
        encoder_channels=(8, 8, 16, 16),
    )
    labels = {1: "spleen", 2: "liver"}
    organs = save(
        folder / "organs.safetensors",
        segmenter,
        Card("segmenter", "organs", labels=labels, window=[16, 32, 32], **card),
    )
    return {"tokens": str(tokens), "masks": str(masks), "organs": str(organs)}


def assert_same(ours, theirs):
    np.testing.assert_allclose(theirs.array, ours.array, rtol=1e-4, atol=1e-3)
    assert theirs.array.dtype == ours.array.dtype
    np.testing.assert_array_equal(theirs.affine, ours.affine)
    assert theirs.axes == ours.axes
    assert theirs.label_names == ours.label_names


def no_answers_left(client):
    return not [path for folder in client.folders for path in folder.glob("out*")]


def test_tokenize(client, ct_phantom, models):
    scan = ct_phantom.image
    progress = []
    job = client.submit(
        messages.Tokenize(scan, models["tokens"], "cpu"), lambda *report: progress.append(report)
    )
    theirs = job.result(120)
    ours = tokenize(scan, models["tokens"], "cpu")
    assert type(theirs) is messages.Tokenization
    for name in ("reconstruction", "error", "codes"):
        assert_same(getattr(ours, name), getattr(theirs, name))
    np.testing.assert_allclose(theirs.usage, ours.usage, rtol=1e-4)
    assert theirs.reconstruction.source is scan.source
    assert theirs.report.keys() == ours.report.keys()
    assert theirs.report["psnr"] == pytest.approx(ours.report["psnr"], rel=1e-5)
    assert theirs.report["device"] == "cpu"
    assert theirs.report["seconds"]["total"] > 0
    assert [fraction for fraction, _ in progress] == sorted(fraction for fraction, _ in progress)
    assert no_answers_left(client)


def test_decode(client, ct_phantom, models):
    scan, model = ct_phantom.image, models["tokens"]
    answer = client.submit(messages.Tokenize(scan, model, "cpu")).result(120)
    p, limits = answer.probabilities, tuple(answer.report["limits"])
    theirs = client.submit(messages.Decode(scan, p, model, 0.5, 8, "cpu")).result(120)
    ours = decode(scan, p, model, 0.5, 8, "cpu")
    assert type(theirs) is messages.Decoding
    assert_same(ours.reconstruction, theirs.reconstruction)
    assert_same(ours.error, theirs.error)
    assert theirs.report["psnr"] == pytest.approx(ours.report["psnr"], rel=1e-5)
    one = messages.DecodeSlice(scan, p, model, 0.5, 8, "cpu", axis=1, index=9, limits=limits)
    pixels = client.submit(one).result(120)
    np.testing.assert_allclose(
        pixels, decode_slice(scan, p, model, 1, 9, limits, 0.5, 8, "cpu"), atol=1e-3
    )
    tiles = client.submit(messages.DecodeAlone(model, 0, "CT", device="cpu")).result(120)
    np.testing.assert_allclose(tiles, alone(model, 0, "CT", device="cpu"), atol=1e-4)
    assert no_answers_left(client)


def test_decoding_is_cancelled_without_a_new_worker(client, models):
    """A slider's work goes on for seconds here; the next setting ends it."""
    going = threading.Event()
    large = Volume.from_array(np.zeros((256, 384, 384), np.int16), np.eye(4), modality_hint="CT")
    tokens = np.full((16, 24, 24, 64), 1 / 64, np.float32)
    request = messages.Decode(large, tokens, models["tokens"], device="cpu")
    client.submit(messages.Warm((models["tokens"],), "cpu")).result(120)
    pid = client.pid
    job = client.submit(request, lambda fraction, text: going.set())
    assert going.wait(60)
    job.cancel(patience=60)
    with pytest.raises(Cancelled):
        job.result(60)
    client.submit(messages.DecodeAlone(models["tokens"], 0, device="cpu")).result(120)
    assert client.pid == pid


def test_mask(client, ct_phantom, models):
    scan = ct_phantom.image
    drawn = client.submit(messages.Mask(scan, models["masks"], 0.4, 3, device="cpu")).result(120)
    ours = mask(scan, models["masks"], 0.4, 3, device="cpu")
    assert type(drawn) is messages.Masking
    assert_same(ours.mask, drawn.mask)
    assert_same(ours.reconstruction, drawn.reconstruction)
    assert drawn.report["masked"] == ours.report["masked"]
    corner = np.zeros(scan.array.shape, dtype=np.uint8)
    corner[:16, :16, :16] = 1
    paint = scan.with_array(corner, label_names={})
    painted = client.submit(messages.Mask(scan, models["masks"], paint=paint, device="cpu"))
    expected = mask(scan, models["masks"], paint=paint, device="cpu")
    assert_same(expected.mask, painted.result(120).mask)
    assert 0 < expected.mask.array.sum() < ours.mask.array.sum()


def test_segment(client, ct_phantom, models):
    scan = ct_phantom.image
    theirs = client.submit(messages.Segment(scan, models["organs"], "CT", "cpu")).result(120)
    ours = segment(scan, models["organs"], "CT", "cpu")
    assert np.mean(theirs.array != ours.array) < 1e-3
    assert theirs.array.shape == scan.array.shape
    assert theirs.label_names == {1: "spleen", 2: "liver"}
    assert theirs.source is scan.source
    assert theirs.array.flags.writeable, "a person paints on the labels"
    assert theirs.report["device"] == "cpu"
    assert theirs.report["seconds"]["total"] > 0
    assert no_answers_left(client)


def test_models_stay_loaded(client, ct_phantom, models):
    names = tuple(models.values())
    first = client.warm(names, "cpu").result(120)
    assert first["models"] == list(names)
    assert client.warm(names, "cpu").result(30)["seconds"] < 0.1
    report = client.submit(messages.Segment(ct_phantom.image, names[2], "CT", "cpu")).result(60)
    assert report.report["seconds"]["load"] < 0.05


def test_cancelling_while_torch_loads(client, ct_phantom, models):
    request = messages.Segment(ct_phantom.image, models["organs"], "CT", "cpu")
    for wait in (0.3, 0.6, 1.2):
        job = client.submit(request)
        time.sleep(wait)
        began = time.monotonic()
        job.cancel()
        with pytest.raises(Cancelled):
            job.result(5)
        assert time.monotonic() - began < 0.5
    assert client.submit(request).result(120).label_names == {1: "spleen", 2: "liver"}


@pytest.mark.skipif(os.name != "posix", reason="stops a process with a signal")
def test_a_worker_that_had_to_be_killed_comes_back_warm(client, ct_phantom, models):
    client.warm((models["organs"],), "cpu").result(120)
    pid = client.pid
    os.kill(pid, signal.SIGSTOP)
    job = client.submit(messages.Segment(ct_phantom.image, models["organs"], "CT", "cpu"))
    time.sleep(0.1)
    job.cancel()
    with pytest.raises(Cancelled):
        job.result(5)
    end = time.monotonic() + 60
    while client.pid in (None, pid) or psutil.Process(client.pid).memory_info().rss < 150e6:
        assert time.monotonic() < end, "no new worker loaded torch"
        time.sleep(0.1)
    job = client.submit(messages.Segment(ct_phantom.image, models["organs"], "CT", "cpu"))
    assert job.result(120).report["seconds"]["load"] < 0.05


@pytest.fixture
def long_request(ct_phantom, models):
    """A segmentation of many windows."""
    array = np.tile(np.asarray(ct_phantom.image.array), (3, 2, 2))
    scan = Volume.from_array(array, ct_phantom.image.affine, modality_hint="CT")
    return messages.Segment(scan, models["organs"], "CT", "cpu")


def begun(client, request):
    """Submit a request and wait until a model is at work."""
    going = threading.Event()

    def hear(fraction, text):
        if text.startswith("Window"):
            going.set()

    job = client.submit(request, hear)
    assert going.wait(60)
    return job


def test_a_job_of_higher_priority_overtakes_one_that_is_under_way(client, long_request, scan):
    expected = client.submit(long_request).result(120)
    ends = []
    slow = begun(client, long_request)
    waiting = client.submit(messages.Warm(device="cpu"), on_result=lambda _: ends.append("last"))
    for number in range(3):
        quick = client.submit(messages.Describe(scan), on_result=lambda _, n=number: ends.append(n))
    assert quick.result(10) == describe(scan)
    assert not slow.done, "the segmentation was too short for this test"
    np.testing.assert_array_equal(slow.result(120).array, expected.array)
    waiting.result(60)
    assert ends == [0, 1, 2, "last"]


def test_a_job_that_stands_still_is_cancelled_without_the_one_that_overtook_it(
    client, long_request, scan, endless
):
    slow = begun(client, long_request)
    going = threading.Event()
    quick = client.submit(messages.Describe(endless), lambda *_: going.set())
    assert going.wait(10)
    pid, began = client.pid, time.monotonic()
    slow.cancel()
    with pytest.raises(Cancelled):
        slow.result(5)
    assert time.monotonic() - began < 0.5
    time.sleep(0.6)
    assert not quick.done
    quick.cancel()
    with pytest.raises(Cancelled):
        quick.result(5)
    assert client.submit(messages.Describe(scan)).result(10) == describe(scan)
    assert client.pid == pid


@pytest.mark.skipif(os.name != "posix", reason="stops a process with a signal")
def test_a_job_that_stood_still_begins_again_if_the_worker_must_be_killed(
    client, long_request, endless
):
    expected = client.submit(long_request).result(120)
    slow = begun(client, long_request)
    going = threading.Event()
    quick = client.submit(messages.Describe(endless), lambda *_: going.set())
    assert going.wait(10)
    pid = client.pid
    os.kill(pid, signal.SIGSTOP)
    quick.cancel()
    with pytest.raises(Cancelled):
        quick.result(5)
    np.testing.assert_array_equal(slow.result(120).array, expected.array)
    assert client.pid != pid


@pytest.mark.skipif(os.name != "posix", reason="stops a process with a signal")
def test_both_jobs_of_a_worker_that_dies_are_told(client, long_request, endless, scan):
    slow = begun(client, long_request)
    going = threading.Event()
    quick = client.submit(messages.Describe(endless), lambda *_: going.set())
    assert going.wait(10)
    os.kill(client.pid, signal.SIGKILL)
    for job, doing in ((quick, "measuring a scan"), (slow, "segmenting a scan")):
        with pytest.raises(WorkerDied, match=f"while it was {doing}"):
            job.result(10)
    assert client.submit(messages.Describe(scan)).result(30) == describe(scan)


def test_trainings_can_see_that_a_model_is_at_work(
    client, long_request, scan, tmp_path, monkeypatch
):
    monkeypatch.setenv("SPAD_HOME", str(tmp_path / "home"))
    client.submit(messages.Describe(scan)).result(30)
    assert not turns.is_taken()
    slow = begun(client, long_request)
    assert turns.is_taken()
    slow.cancel()
    with pytest.raises(Cancelled):
        slow.result(5)
    client.submit(messages.Describe(scan)).result(30)
    assert not turns.is_taken()
