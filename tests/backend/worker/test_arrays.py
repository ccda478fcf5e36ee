"""Arrays as files: exact, reserved, sent once, and never left behind."""

from __future__ import annotations

import gc
import subprocess
import sys

import numpy as np
import pytest

from spad.errors import Cancelled, SpadError
from spad.processes import this_process
from spad.worker import arrays
from spad.worker.arrays import ArrayFolder, SentArrays, map_array, take_array


@pytest.fixture
def folder(parents):
    folder = ArrayFolder.create(parents)
    yield folder
    folder.remove()
    assert [path for parent in parents for path in parent.iterdir()] == []


def files(folder):
    return [path for parent in folder.paths for path in parent.iterdir()]


@pytest.mark.parametrize("block", [64, 1 << 20])
@pytest.mark.parametrize(
    "array",
    [
        np.arange(24, dtype=">i2").reshape(2, 3, 4),
        np.arange(24, dtype=np.float64).reshape(2, 3, 4).transpose(2, 0, 1),
        np.arange(4000, dtype=np.uint8).reshape(10, 20, 20)[::-1, ::2, ::-3],
        np.broadcast_to(np.arange(5, dtype=np.float32), (30, 4, 5)),
        np.arange(600).reshape(1, 1, 600) % 7 == 0,
        np.array(3.5, dtype=np.float16),
    ],
)
def test_any_strides_and_types_cross_exactly(folder, monkeypatch, array, block):
    monkeypatch.setattr(arrays, "BLOCK_BYTES", block)
    reference = folder.write(array)
    mapped = map_array(reference)
    assert mapped.dtype == array.dtype
    assert not mapped.flags.writeable
    np.testing.assert_array_equal(mapped, array)
    del mapped
    taken = take_array(reference)
    assert taken.dtype == array.dtype
    assert taken.flags.writeable
    np.testing.assert_array_equal(taken, array)
    assert files(folder) == []


def test_the_folders_are_private_and_name_their_owner(folder):
    me = this_process()
    for path in folder.paths:
        assert path.stat().st_mode & 0o777 == 0o700
        assert f"_{me.pid}_{me.start}_" in path.name


def test_folders_of_the_dead_are_removed_and_those_of_the_living_stay(parents):
    code = (
        "import sys; from pathlib import Path; from spad.worker.arrays import ArrayFolder; "
        "folder = ArrayFolder.create([Path(name) for name in sys.argv[1:]]); "
        "(folder.paths[0] / 'in0').write_bytes(b'scan'); print('made', flush=True); "
        "sys.stdin.readline()"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, parents)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert owner.stdout.readline().strip() == b"made"
    ArrayFolder.create(parents).remove()
    assert [len(list(parent.iterdir())) for parent in parents] == [1, 1]
    owner.kill()
    owner.communicate()
    ArrayFolder.create(parents).remove()
    assert [len(list(parent.iterdir())) for parent in parents] == [0, 0]


def test_a_full_first_folder_gives_way_to_the_second(folder, monkeypatch):
    room = arrays._has_room
    monkeypatch.setattr(
        arrays, "_has_room", lambda path, size: path != folder.paths[0] and room(path, size)
    )
    reference = folder.write(np.zeros(100))
    assert reference.file.startswith(str(folder.paths[1]))


def test_without_room_there_is_one_sentence_and_no_file(folder):
    huge = np.broadcast_to(np.uint8(1), (1 << 50,))
    with pytest.raises(SpadError, match="has no room in"):
        folder.write(huge)
    assert files(folder) == []


@pytest.mark.skipif(sys.platform != "linux", reason="a small tmpfs needs Linux")
def test_space_is_reserved_before_it_is_written(tmp_path, monkeypatch):
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(small)]
    if subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("mounting a small tmpfs needs root")
    folder = ArrayFolder.create([small])
    try:
        # somebody else fills it after we looked
        monkeypatch.setattr(arrays, "_has_room", lambda path, size: True)
        seen = []
        with pytest.raises(SpadError, match="has no room"):
            folder.write(np.zeros(2_000_000, dtype=np.uint8), observe=seen.append)
        assert seen == []
        assert files(folder) == []
        folder.write(np.zeros(900_000, dtype=np.uint8))
    finally:
        folder.remove()
        subprocess.run(["umount", str(small)], check=True)


def test_a_stopped_write_leaves_no_file(folder, monkeypatch):
    monkeypatch.setattr(arrays, "BLOCK_BYTES", 100)
    calls = []

    def check():
        calls.append(1)
        if len(calls) == 20:
            raise Cancelled("stop")

    with pytest.raises(Cancelled):
        folder.write(np.zeros(10_000, dtype=np.uint8), check)
    assert files(folder) == []


def test_a_scan_is_sent_once(folder):
    sent = SentArrays(folder, lambda: None)
    scan = np.arange(1000, dtype=np.int16).reshape(10, 100)
    scan.flags.writeable = False
    first = sent.send(scan[::-1])
    assert sent.send(scan[::-1]) == first
    assert sent.send(scan) != first
    assert len(files(folder)) == 2


def test_labels_that_were_painted_on_are_sent_again(folder):
    sent = SentArrays(folder, lambda: None)
    labels = np.zeros((10, 100), dtype=np.uint8)
    shown = labels[:]
    shown.flags.writeable = False
    first = sent.send(shown)
    assert sent.send(shown) == first
    labels[4, 7] = 3
    second = sent.send(shown)
    assert second != first
    assert map_array(second)[4, 7] == 3
    assert sent.collect() == (first.file,)
    assert len(files(folder)) == 1


def test_a_scan_that_is_closed_is_removed(folder):
    lost = []
    sent = SentArrays(folder, lambda: lost.append(1))
    scan = np.zeros(1000)
    reference = sent.send(scan)
    assert sent.collect() == ()
    del scan
    gc.collect()
    assert lost == [1]
    assert sent.collect() == (reference.file,)
    assert files(folder) == []


def test_the_oldest_scan_goes_when_the_budget_is_spent_but_none_in_use(folder):
    sent = SentArrays(folder, lambda: None, budget=2500)
    one, two, three = (np.full(1000, value, dtype=np.uint8) for value in (1, 2, 3))
    first = sent.send(one)
    second = sent.send(two)
    sent.release()
    assert sent.send(one) == first
    sent.release()
    third = sent.send(three)
    assert sent.collect() == (second.file,)
    assert sent.send(one) == first
    sent.send(two)
    assert map_array(third)[0] == 3, "an array of the present job was removed"
    assert sent.collect() == ()
