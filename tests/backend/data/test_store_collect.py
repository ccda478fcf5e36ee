"""What a tree or a manifest holds: data sets, patients, labels, parts and known sets."""

from __future__ import annotations

from pathlib import Path

import pytest

from spad.data.collect import Scan, collect
from spad.data.folder import read_folder
from spad.data.known_sets import known_set, known_sets
from spad.errors import SpadError


def tree(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    return root


def found(root: Path, **options) -> dict[str, Scan]:
    return {scan.key: scan for scan in collect(root, **options).scans}


def test_folders_of_different_files_are_data_sets(tmp_path) -> None:
    root = tree(tmp_path, "a/x1.nii.gz", "a/x2.nrrd", "b/images/y.mha", "b/labels/y.mha", "b/n.txt")
    assert sorted(found(root)) == ["a/x1", "a/x2", "b/y"]


@pytest.mark.parametrize(
    "names",
    [
        ["P1/ct.nii.gz", "P1/mr.nii.gz", "P2/ct.nii.gz", "P2/mr.nii.gz", "P3/ct.nii.gz"],
        ["P1/P1_t1.nii", "P1/P1_t2.nii", "P2/P2_t1.nii", "P2/P2_t2.nii", "P3/P3_t1.nii"],
    ],
)
def test_folders_of_the_same_files_are_patients(tmp_path, names) -> None:
    scans = found(tree(tmp_path / "set", *names))
    assert {scan.data_set for scan in scans.values()} == {"set"}
    assert len(scans) == 5
    assert {scan.patient for scan in scans.values()} == {"P1", "P2", "P3"}


def test_folders_with_their_own_labels_are_data_sets_even_then(tmp_path) -> None:
    root = tree(tmp_path, "a/img01.nii.gz", "b/img01.nii.gz", "c/img01.nii.gz")
    (root / "a" / "labels.json").write_text('{"1": "liver"}')
    assert sorted(found(root)) == ["a/01", "b/01", "c/01"]


def test_labels_are_found_beside_and_across_folders(tmp_path) -> None:
    names = ["img01.nii.gz", "label01.nii.gz", "ct.nii.gz", "ct_seg117.nii.gz", "img02.nii.gz"]
    names += ["imagesTr/liver_1_0000.nii.gz", "labelsTr/liver_1.nii.gz"]
    root = tree(tmp_path / "set", *names)
    assert all(scan.labels is None for scan in found(root).values())  # nobody says what they are
    (root / "labels.json").write_text('{"1": "liver"}')
    labels = {key: s.labels and s.labels.name for key, s in found(root).items()}
    assert labels == {
        "set/01": "label01.nii.gz",
        "set/02": None,
        "set/ct": "ct_seg117.nii.gz",
        "set/liver_1_0000": "liver_1.nii.gz",
    }


def test_a_stated_split_is_kept(tmp_path) -> None:
    root = tree(tmp_path / "set", "img01.nii.gz", "img02.nii.gz", "img03.nii.gz")
    (root / "split.json").write_text('{"train": ["01"], "validation": ["02"]}')
    assert [s.part for s in found(root).values()] == ["train", "validation", "train"]


def test_names_are_unlike_and_fit_for_folders(tmp_path) -> None:
    root = tree(tmp_path / "set", "a.nii", "a.nrrd", "ü b.nii", ".hidden.nii", "c.hdr", "c.img")
    assert sorted(found(root)) == ["set/_b", "set/a.nii", "set/a.nrrd", "set/c"]


def test_a_manifest_states_what_a_tree_cannot(tmp_path) -> None:
    tree(tmp_path, "in/one.nii.gz", "in/two.nii.gz")
    manifest = tmp_path / "scans.csv"
    manifest.write_text(
        "image,patient,data_set,modality,orientation,weight,part\n"
        "in/one.nii.gz,P1,BraTS2023-GLI,MR,,0.5,validation\n"
        "in/two.nii.gz,P2,mine,PT,ASR,,\n"
    )
    one, two = collect(manifest).scans
    assert (one.patient, one.orientation, one.weight, one.part) == ("P1", "SAR", 0.2, "validation")
    assert (two.modality, two.orientation, two.weight, two.part) == ("PT", "ASR", 1.0, None)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("scan\na.nii\n", "has the columns scan"),
        ("image,part\na.nii,test\n", "Line 2 .* part 'test'"),
        ("image,weight\na.nii,-1\n", "weight '-1'"),
        ("image,orientation\na.nii,XYZ\n", "orientation 'XYZ'"),
        ("image,patient\n,P1\n", "no image"),
        ("image\n", "holds no scan"),
    ],
)
def test_what_is_wrong_with_a_manifest_is_said(tmp_path, text, sentence) -> None:
    (tmp_path / "m.csv").write_text(text)
    with pytest.raises(SpadError, match=sentence):
        collect(tmp_path / "m.csv")


def test_the_table_has_the_papers_sets() -> None:
    table = known_sets()
    assert len(table) == len({known.name for known in table}) == 55
    assert sum(known.dimensions == 2 for known in table) == 15
    assert {k.name for k in table if k.orientation != "unknown"} == {
        "BrainPTM",
        *(f"BraTS2023-{part}" for part in ("GLI", "MEN", "MET", "PED", "SSA")),
    }
    assert sum(known.weight != 1 for known in table) == 16
    chest = known_set("nih cxr")
    assert chest is not None
    assert chest.weight == 0.007


def test_a_known_set_gives_its_rules(tmp_path) -> None:
    root = tree(tmp_path / "download", "x-t1.nii.gz", "y-t1.nii.gz")
    scan = found(root, data_set="brats2023 gli")["brats2023_gli/x-t1"]
    assert (scan.orientation, scan.weight) == ("SAR", 0.4)


def test_nothing_to_read_is_said(tmp_path) -> None:
    for place in (tree(tmp_path / "a", "notes.txt"), tmp_path / "none"):
        with pytest.raises(SpadError, match=r"no scan|neither a folder nor a manifest"):
            collect(place)


def test_plain_training_finds_other_formats_in_subfolders(tmp_path) -> None:
    root = tree(tmp_path / "set", "p1/ct.nrrd", "p1/ct_seg.nrrd", "p2/ct.mha", "labels/x.nii")
    assert [case.name for case in read_folder(root).cases] == ["set/p1/ct", "set/p2/ct"]
