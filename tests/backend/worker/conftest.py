"""A real client with a real worker process, whose folders lie where the test can look."""

from __future__ import annotations

import numpy as np
import pytest

from spad.volumes.volume import Volume
from spad.worker.client import WorkerClient

AFFINE = np.array([[0, 0, -0.8, 90.0], [0, -0.8, 0, 70.0], [2.5, 0, 0, -30.0], [0, 0, 0, 1]])


@pytest.fixture
def parents(tmp_path):
    """Stand-ins for shared memory and the temporary folder."""
    folders = (tmp_path / "memory", tmp_path / "disk")
    for folder in folders:
        folder.mkdir()
    return folders


@pytest.fixture
def client(parents):
    with WorkerClient(parents) as client:
        yield client
    left = [path for parent in parents for path in parent.rglob("*")]
    assert left == [], "the client left files behind"


@pytest.fixture
def scan():
    """A CT of 20 x 60 x 50 voxels in stored integers."""
    array = np.random.default_rng(0).integers(0, 2000, (20, 60, 50)).astype(np.int16)
    return Volume.from_array(array, AFFINE, slope=0.5, intercept=-1000.0, modality_hint="CT")


@pytest.fixture
def endless():
    """A small scan of so many slices that measuring it takes many seconds."""
    return Volume.from_array(np.zeros((1_000_000, 2, 2), dtype=np.int16), AFFINE)
