"""The store: what goes in comes out, crop by crop, whole or not at all, and only once."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numcodecs.blosc
import numpy as np
import pytest
import torch
import zarr
from torch.utils.data import DataLoader, Dataset

from spad.data import reading
from spad.data.cohort import Contract, model_contracts
from spad.data.folder import Folder, read_folder, read_source
from spad.data.reading import prepare
from spad.data.store import Store, StoredVoxels, open_store, verify
from spad.data.store_writer import prepare_store, split, work
from spad.errors import SpadError
from spad.volumes.files import write
from spad.volumes.volume import Volume

SPACING = (3.0, 1.0, 1.0)


def affine_of(spacing: tuple[float, float, float] = SPACING) -> np.ndarray:
    z, y, x = spacing
    return np.array([[0, 0, -x, 0], [0, -y, 0, 0], [-z, 0, 0, 0], [0, 0, 0, 1.0]])


def ct(seed: int, shape: tuple[int, int, int] = (12, 70, 80)) -> np.ndarray:
    values = np.random.default_rng(seed).normal(0, 200, shape).round().astype(np.int16)
    values[0, 0, 0] = -1000
    return values


def data_set(folder: Path, count: int, labelled: bool = True) -> Path:
    """Write scans as `img<ID>` with `label<ID>`: label 1 is where the scan is above 300."""
    folder.mkdir(parents=True)
    for n in range(count):
        values = ct(n)
        write(Volume.from_array(values, affine_of()), folder / f"img{n:02d}.nii.gz")
        if labelled:
            labels = Volume.from_array((values > 300).astype(np.uint8), affine_of(), label_names={})
            write(labels, folder / f"label{n:02d}.nii.gz")
            (folder / f"label{n:02d}.labels.json").unlink(missing_ok=True)
    if labelled:
        (folder / "labels.json").write_text('{"1": "liver"}')
    return folder


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    return data_set(tmp_path_factory.mktemp("source") / "abdomen", 4)


@pytest.fixture(scope="module")
def store(source, tmp_path_factory) -> Store:
    return prepare_store(source, tmp_path_factory.mktemp("store") / "store").store


def files_of(store: Path) -> dict[str, bytes]:
    files = (path for path in store.rglob("*") if path.is_file())
    return {path.relative_to(store).as_posix(): path.read_bytes() for path in files}


class TestReading:
    def test_voxels_are_the_scan_s(self, store) -> None:
        for n, row in enumerate(store.rows):
            assert row.key == f"abdomen/{n:02d}"
            # the lone voxel of -1000 is below the background, but others of its planes are not
            assert np.array_equal(store.image(row)[:, :, :, :].numpy()[0], ct(n))
            assert row.spacing == pytest.approx(SPACING)
            assert row.da == 1
            assert row.limits == (-125, 275)
            assert row.span == pytest.approx(np.percentile(ct(n)[ct(n) > -1000], (0.5, 99.5)))
            assert (store.labels(row) == (ct(n) > 300)).all()

    def test_any_crop_is_that_part_of_the_whole(self, store) -> None:
        image = store.image(store.rows[0])
        whole = zarr.open_array(image.path)[:]
        rng = np.random.default_rng(0)
        for _ in range(30):
            ends = [sorted(rng.integers(0, n + 1, 2).tolist()) for n in image.shape]
            crop = tuple(slice(a, b) for a, b in ends)
            assert np.array_equal(image[crop].numpy(), whole[crop])

    def test_only_the_chunks_of_a_crop_are_read(self, store, monkeypatch) -> None:
        decoded = []
        decompress = numcodecs.blosc.decompress
        monkeypatch.setattr(
            numcodecs.blosc, "decompress", lambda b: decoded.append(0) or decompress(b)
        )
        image = store.image(store.rows[0])
        assert image[:, 0:8, 0:64, 0:64].shape == (1, 8, 64, 64)
        assert len(decoded) == 1
        assert image[:, 7:9, 60:66, 60:66].shape == (1, 2, 6, 6)
        assert len(decoded) == 1 + 8

    def test_worker_processes_read_what_this_one_reads(self, store) -> None:
        images = [store.image(row) for row in store.rows]
        here = [image[:, 2:6, 10:40, 10:40] for image in images]  # opened before the fork
        for context in ("fork", "spawn"):
            if context == "fork" and sys.platform != "linux":
                continue
            loader = DataLoader(
                Crops(images), batch_size=None, num_workers=1, multiprocessing_context=context
            )
            assert all(torch.equal(a, b) for a, b in zip(loader, here, strict=True))

    def test_a_damaged_volume_is_said(self, store, tmp_path) -> None:
        copy = tmp_path / "store"
        shutil.copytree(store.path, copy)
        shard = next((copy / "volumes/abdomen/02/image/c").rglob("0/0/0/0"))
        content = bytearray(shard.read_bytes())
        content[200] ^= 255
        shard.write_bytes(bytes(content))
        (copy / "volumes/abdomen/01/image/zarr.json").unlink()
        problems = {row.key: problem for row, problem in verify(open_store(copy))}
        assert [key for key, problem in problems.items() if problem] == ["abdomen/01", "abdomen/02"]
        with pytest.raises(SpadError, match="run `spad prepare` on this store again"):
            StoredVoxels(str(copy / "volumes/abdomen/01/image"), (1, 12, 70, 80))[:, 0:1, 0:1, 0:1]

    def test_no_store_and_other_versions_are_refused(self, store, tmp_path) -> None:
        with pytest.raises(SpadError, match="is no store"):
            open_store(tmp_path)
        copy = tmp_path / "store"
        shutil.copytree(store.path, copy)
        (copy / "store.json").write_text('{"version": 99}')
        with pytest.raises(SpadError, match="version 99"):
            open_store(copy)


class Crops(Dataset):
    def __init__(self, images: list[StoredVoxels]) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.images[index][:, 2:6, 10:40, 10:40]


class TestPreparing:
    def test_what_is_there_is_not_made_again(self, source, store, tmp_path) -> None:
        mine, place = tmp_path / "abdomen", tmp_path / "store"
        shutil.copytree(source, mine)
        shutil.copytree(store.path, place)
        before = files_of(place)
        assert prepare_store(mine, place).written == 0
        assert files_of(place) == before
        write(Volume.from_array(ct(77), affine_of()), mine / "img01.nii.gz")
        (mine / "img03.nii.gz").unlink()
        done = prepare_store(mine, place)
        assert done.written == 1
        assert [row.key for row in done.store.rows] == [f"abdomen/0{n}" for n in range(3)]
        assert not (place / "volumes/abdomen/03").exists()
        assert (done.store.image(done.store.rows[1])[:, :, :, :].numpy() == ct(77)).all()
        assert prepare_store(mine, place, side=40).written == 3

    def test_two_processes_make_the_same(self, source, store, tmp_path) -> None:
        prepare_store(source, tmp_path / "store", jobs=2)
        assert files_of(tmp_path / "store") == files_of(store.path)

    def test_a_killed_writer_is_gone_on_from(self, tmp_path) -> None:
        scans = data_set(tmp_path / "abdomen", 12, labelled=False)
        place, undisturbed = tmp_path / "store", tmp_path / "undisturbed"
        command = [sys.executable, "-m", "spad", "prepare", str(scans), str(place), "--jobs", "1"]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE)
        volumes = place / "volumes" / "abdomen"
        until = time.monotonic() + 60
        while len(list(volumes.glob("[!.]*"))) < 3 and time.monotonic() < until:
            time.sleep(0.002)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        made = len(list(volumes.glob("[!.]*")))
        assert 3 <= made < 12
        with pytest.raises(SpadError, match="again, if it was interrupted"):
            open_store(place)
        (volumes / ".05.tmp" / "image").mkdir(parents=True)  # as if half written
        assert prepare_store(scans, place).written == 12 - made
        prepare_store(scans, undisturbed)
        assert files_of(place) == files_of(undisturbed)

    def test_odd_files_are_left_out_and_listed(self, source, tmp_path) -> None:
        scans = tmp_path / "abdomen"
        shutil.copytree(source, scans)
        (scans / "img04.nii.gz").write_bytes((scans / "img00.nii.gz").read_bytes()[:900])
        uneven = Volume.from_array(ct(5), affine_of((3.0, 1.0, 2.0)))
        write(uneven, scans / "img05.nii.gz")
        write(Volume.from_array(ct(6), affine_of((3.0, 60.0, 60.0))), scans / "img06.nii.gz")
        write(Volume.from_array(ct(7) * 0 + 5, affine_of()), scans / "img07.nii.gz")
        done = prepare_store(scans, tmp_path / "store")
        reasons = {one.source: one.reason for one in done.left_out}
        assert sorted(reasons) == [f"img0{n}.nii.gz" for n in (4, 5, 6, 7)]
        for number, word in ((5, "1 x 2 mm|alike within 1%"), (6, "up to 50 mm"), (7, "are alike")):
            assert any(w in reasons[f"img0{number}.nii.gz"] for w in word.split("|"))
        assert json.loads((tmp_path / "store/store.json").read_text())["left_out"] == [
            {"data_set": "abdomen", "source": one.source, "reason": one.reason}
            for one in done.left_out
        ]
        everything = b"".join(files_of(tmp_path / "store").values())
        assert str(tmp_path).encode() not in everything  # no path of this machine
        assert len(done.store.rows) == 4

    def test_an_error_of_ours_loses_one_scan(self, source, tmp_path, monkeypatch) -> None:
        read = work.__globals__["read"]

        def odd(path, **options):
            if path.name == "img02.nii.gz":
                raise IndexError("tuple")
            return read(path, **options)

        monkeypatch.setitem(work.__globals__, "read", odd)
        done = prepare_store(source, tmp_path / "store")
        assert [one.reason for one in done.left_out] == [
            "an error of ours while reading it (IndexError: tuple)"
        ]
        assert len(done.store.rows) == 3

    def test_data_sets_are_added_side_by_side(self, source, store, tmp_path) -> None:
        place = tmp_path / "store"
        shutil.copytree(store.path, place)
        other = data_set(tmp_path / "other", 2, labelled=False)
        done = prepare_store(other, place, licence="CC0")
        assert [row.key for row in done.store.rows] == [
            *(f"abdomen/0{n}" for n in range(4)),
            *("other/00", "other/01"),
        ]
        assert done.store.rows[:4] == store.rows
        assert done.store.about["data_sets"]["other"]["licence"] == "CC0"

    def test_a_place_that_cannot_be_used_is_refused(self, source, tmp_path) -> None:
        (tmp_path / "full").mkdir()
        (tmp_path / "full" / "thesis.doc").write_text("")
        with pytest.raises(SpadError, match=r"not empty \(thesis.doc\)"):
            prepare_store(source, tmp_path / "full")
        with pytest.raises(SpadError, match="lies in"):
            prepare_store(source, source / "store")
        (tmp_path / "one").mkdir()
        place = tmp_path / "one" / "writing.json"
        from spad.processes import this_process

        place.write_text(json.dumps(this_process().to_json()))
        with pytest.raises(SpadError, match="is being written by process"):
            prepare_store(source, tmp_path / "one")


class TestSplit:
    def rows(self, store: Store, *cells: tuple[str, str, str]) -> list:
        from dataclasses import replace

        return [
            replace(store.rows[0], key=f"{s}/{n}", data_set=s, patient=p, modality=m, part="")
            for n, (s, p, m) in enumerate(cells)
        ]

    def test_one_per_modality_and_never_a_patient_on_both_sides(self, store) -> None:
        cells = [("a", f"p{n % 6}", m) for n in range(12) for m in ("CT", "MR")]
        for seed in range(10):
            done = split(self.rows(store, *cells), seed)
            kept = [row for row in done if row.part == "validation"]
            assert sorted(row.modality for row in kept) == ["CT", "MR"]
            assert len({row.patient for row in kept}) == 1
            train = {row.patient for row in done if row.part == "train"}
            assert len(train) == 5
            assert train.isdisjoint(row.patient for row in done if row.part != "train")
        assert len({split(self.rows(store, *cells), s)[0].part for s in range(20)}) > 1

    def test_it_depends_on_the_data_set_and_the_seed_alone(self, store) -> None:
        one = [("a", f"p{n}", "CT") for n in range(9)]
        two = [*one, *(("b", f"q{n}", "CT") for n in range(9))]
        parts = {row.key: row.part for row in split(self.rows(store, *two), 3)}
        assert all(parts[row.key] == row.part for row in split(self.rows(store, *one), 3))

    def test_a_lone_patient_is_trained_on(self, store) -> None:
        cells = [("a", "p0", "CT"), ("a", "p0", "MR"), ("a", "p1", "MR"), ("a", "p2", "MR")]
        for seed in range(10):
            done = split(self.rows(store, *cells), seed)
            assert [row.part for row in done if row.modality == "CT"] == ["train"]
            assert sum(row.part == "validation" for row in done) == 1


class TestCohort:
    def test_a_store_trains_as_its_folder_does(self, source, store, monkeypatch) -> None:
        contract = Contract(model_contracts(), None)
        found = read_source(store.path)
        assert isinstance(found, Store)
        assert isinstance(read_source(source), Folder)
        folder = prepare([read_folder(source)], contract, with_labels=True)
        decoded = prepare([found], contract, with_labels=True)
        monkeypatch.setattr(reading, "_too_large", lambda rows: True)
        lazy = prepare([found], contract, with_labels=True)
        assert isinstance(lazy.scans[0].image, StoredVoxels)
        assert isinstance(decoded.scans[0].image, torch.Tensor)
        crop = (slice(None), slice(2, 9), slice(5, 60), slice(0, 80))
        for a, b, c in zip(folder.scans, decoded.scans, lazy.scans, strict=True):
            assert a.name == b.name == c.name
            assert (a.limits, a.span, a.da) == (b.limits, b.span, b.da)
            assert a.spacing == pytest.approx(b.spacing)
            assert a.known == b.known == c.known == (1,)
            assert a.labels is not None
            assert b.labels is not None
            assert torch.equal(a.labels, b.labels)
            assert torch.equal(a.unit(a.image[crop]), b.unit(b.image[crop]))
            assert torch.equal(b.image[crop], c.image[crop])
        assert [s.validation for s in decoded.scans].count(True) == 1

    def test_on_a_coarser_grid_too(self, source, store) -> None:
        contract = Contract(model_contracts(), {"in_plane": 3.0})
        folder = prepare([read_folder(source)], contract, with_labels=True)
        stored = prepare([read_source(store.path)], contract, with_labels=True)
        for a, b in zip(folder.scans, stored.scans, strict=True):
            assert a.image.shape == b.image.shape == (1, 12, 23, 27)
            torch.testing.assert_close(a.image[:, :, :, :], b.image[:, :, :, :])
            assert a.labels is not None
            assert b.labels is not None
            assert torch.equal(a.labels, b.labels)
            assert (a.da, b.da) == (0, 0)


@pytest.mark.slow
def test_real_scans_of_three_formats(shared_data, tmp_path) -> None:
    done = prepare_store(shared_data / "totalsegmentator", tmp_path / "store")
    rows = {row.key.partition("/")[2]: row for row in done.store.rows}
    assert sorted(rows) == ["example_ct", "example_ct_dicom", "example_ct_sm", "example_mr_sm"]
    assert not done.left_out
    dicom = rows["example_ct_dicom"]
    assert dicom.shape == (1, 20, 512, 512)
    assert dicom.spacing == pytest.approx((2.0, 0.977, 0.977), abs=1e-3)
    assert dicom.da == 1
    assert dicom.span is not None
    assert dicom.span[0] < -900
    assert rows["example_mr_sm"].span is None
    assert all(not problem for _, problem in verify(done.store))
