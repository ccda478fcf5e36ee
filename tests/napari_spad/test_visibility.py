"""Hidden labels are transparent, and nothing else about them changes."""

from __future__ import annotations

import numpy as np
import pytest
from napari.layers import Labels

from napari_spad import layers, visibility


@pytest.fixture
def organs(ct_phantom):
    data, kwargs, _ = layers.to_layer(ct_phantom.labels, "organs", role="organs")
    return Labels(data, **kwargs)


def colors(layer, ids):
    return {label: np.array(layer.colormap.map(label)) for label in ids}


def test_hidden_labels_are_transparent_and_others_as_they_were(organs):
    ids = sorted(set(np.unique(organs.data)) - {0})
    before, data = colors(organs, ids), np.array(organs.data)
    visibility.hide(organs, ids[:2], ids)
    after = colors(organs, ids)
    assert all(after[label][3] == 0 for label in ids[:2])
    assert all(np.array_equal(after[label], before[label]) for label in ids[2:])
    assert visibility.hidden(organs) == set(ids[:2])
    assert np.array_equal(organs.data, data)
    visibility.hide(organs, ids[1:2], ids)
    assert np.array_equal(colors(organs, ids)[ids[0]], before[ids[0]])
    visibility.hide(organs, (), ids)
    assert all(np.array_equal(one, before[n]) for n, one in colors(organs, ids).items())
    assert visibility.hidden(organs) == set()


def test_files_get_the_colours_of_hidden_labels(organs):
    ids = sorted(set(np.unique(organs.data)) - {0})
    before = layers.volume_of(organs).label_colors
    visibility.hide(organs, ids, ids)
    assert layers.volume_of(organs).label_colors == before


def test_unnamed_labels_keep_the_colours_of_napari():
    layer = Labels(np.arange(64, dtype=np.uint8).reshape(4, 4, 4))
    before = colors(layer, range(1, 64))
    visibility.hide(layer, {7}, range(1, 64))
    after = colors(layer, range(1, 64))
    assert after.pop(7)[3] == 0
    assert all(np.allclose(one, before[label]) for label, one in after.items())
    visibility.hide(layer, (), range(1, 64))
    assert np.array_equal(colors(layer, [7])[7], before[7])


def test_a_copy_keeps_what_is_hidden_by_itself(organs):
    ids = sorted(set(np.unique(organs.data)) - {0})
    visibility.hide(organs, ids[:1], ids)
    twin = Labels(*organs.as_layer_data_tuple()[:1], **organs.as_layer_data_tuple()[1])
    visibility.hide(organs, (), ids)
    assert visibility.hidden(twin) == {ids[0]}
