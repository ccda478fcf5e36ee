"""Messages: volumes cross whole, headers stay with the client, and nothing else slips through."""

from __future__ import annotations

import dataclasses
import pickle

import numpy as np
import pytest

from spad.volumes.volume import Volume
from spad.worker import messages
from spad.worker.arrays import ArrayFolder, map_array, take_array


@pytest.fixture
def folder(parents):
    folder = ArrayFolder.create(parents)
    yield folder
    folder.remove()


def through(value, folder, sources, get=map_array):
    packed = pickle.loads(pickle.dumps(messages.pack(value, folder.write)))
    return messages.unpack(packed, get, sources)


def test_a_request_crosses_with_its_volumes(folder, scan):
    paint = scan.with_array(np.ones(scan.array.shape, dtype=np.uint8), label_names={1: "liver"})
    request = messages.Mask(scan, "mim-tiny", 0.7, 5, paint, "cpu")
    found = through(request, folder, {})
    assert type(found) is messages.Mask
    assert (found.model, found.ratio, found.seed, found.device) == ("mim-tiny", 0.7, 5, "cpu")
    assert isinstance(found.volume.array, np.memmap)
    for name in ("volume", "paint"):
        ours, theirs = getattr(request, name), getattr(found, name)
        np.testing.assert_array_equal(theirs.array, ours.array)
        np.testing.assert_array_equal(theirs.affine, ours.affine)
        for item in ("axes", "slope", "intercept", "label_names", "modality_hint", "spacing", "da"):
            assert getattr(theirs, item) == getattr(ours, item), item
        assert theirs.source.uuid == ours.source.uuid
        assert theirs.source.permutation == ours.source.permutation


def test_headers_stay_behind_and_come_back(folder, scan):
    header = object()  # cannot be pickled to the same thing, as little as a header need be
    scan = dataclasses.replace(scan, source=dataclasses.replace(scan.source, header=header))
    request = messages.Segment(scan)
    there = through(request, folder, {})
    assert there.volume.source.header is None
    labels = there.volume.with_array(np.zeros(scan.array.shape, np.uint8), label_names={})
    back = through(labels, folder, messages.sources_of(request), take_array)
    assert back.source is scan.source
    turned = through(labels.with_depth(0), folder, messages.sources_of(request), take_array)
    assert turned.source.header is header
    assert turned.source.permutation == labels.with_depth(0).source.permutation


def test_answers_cross_with_figures_and_arrays(folder, scan):
    report = {"psnr": np.float32(30.5), "grid": (5, 4, 4), "labels": {"liver": {"mean": None}}}
    usage = np.arange(1024, dtype=np.float32)
    tokens = np.full((5, 4, 4, 1024), 1 / 1024, np.float32)
    answer = messages.Tokenization(scan, scan, scan, scan, usage, tokens, report)
    found = through(answer, folder, {scan.source.uuid: scan.source}, take_array)
    assert found.report == {
        "psnr": 30.5,
        "grid": (5, 4, 4),
        "labels": {"liver": {"mean": None}},
    }
    assert type(found.report["psnr"]) is float
    np.testing.assert_array_equal(found.usage, usage)
    np.testing.assert_array_equal(found.probabilities, tokens)
    assert found.error.source is scan.source


def test_organs_with_their_confidence_and_a_request_with_channels(folder, scan):
    request = messages.Segment((scan, scan), box=((0, 3), (1, 2), (0, 5)), confidence=True)
    there = through(request, folder, {})
    assert (there.box, there.confidence, len(there.volume)) == (request.box, True, 2)
    labels = there.volume[0].with_array(np.ones(scan.array.shape, np.uint8), label_names={1: "a"})
    sure = scan.with_array(np.full(scan.array.shape, 50, np.uint8), slope=0.01)
    back = through(messages.Organs(labels, sure), folder, messages.sources_of(request), take_array)
    assert type(back) is messages.Organs
    assert back.labels.label_names == {1: "a"}
    assert back.labels.source is scan.source
    assert np.allclose(back.confidence.values(), 0.5)


def test_small_arrays_travel_in_the_message(folder):
    little = Volume.from_array(np.arange(8).reshape(2, 2, 2), np.eye(4))
    packed = messages.pack(messages.Describe(little), folder.write)
    assert messages.files_of(packed) == []
    assert [path for parent in folder.paths for path in parent.iterdir()] == []
    large = Volume.from_array(np.zeros((64, 64, 64)), np.eye(4))
    packed = messages.pack([large, {"a": large.array}], folder.write)
    assert len(set(messages.files_of(packed))) == 2
    assert len(pickle.dumps(packed)) < 5000


@pytest.mark.parametrize("value", [object(), {"a": {1, 2}}, [b"bytes"], np.array([None, 1])])
def test_whatever_else_is_refused(folder, value):
    with pytest.raises(TypeError, match="cannot be sent"):
        messages.pack(value, folder.write)
