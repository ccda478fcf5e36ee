"""Data sets as people have them: each layout, built on disk, is recognised and read as it is."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

from spad.data.cases import Folder, channel_names
from spad.data.cohort import Cohort, Contract, model_contracts
from spad.data.collect import collect
from spad.data.folder import read_source
from spad.data.ground import MR_NAMES
from spad.data.layouts import BTCV_NAMES
from spad.data.reading import prepare
from spad.data.store_writer import prepare_store
from spad.errors import SpadError
from spad.volumes.files import write
from spad.volumes.volume import Volume

SHAPE = (6, 20, 24)
SPACING = (3.0, 2.0, 2.0)
AFFINE = np.array([[0, 0, -2.0, 0], [0, -2.0, 0, 0], [-3.0, 0, 0, 0], [0, 0, 0, 1]])
"""Axes S to I, A to P, R to L: what a model sees is the array itself."""


def marks(*labels: int) -> np.ndarray:
    """Give a block of 2 x 4 x 4 voxels for each label; no two alike in place."""
    array = np.zeros(SHAPE, np.uint8)
    for label in labels:
        z, y = label % 4, 2 + 4 * (label % 4)
        array[z : z + 2, y : y + 4, label : label + 4] = label
    return array


def save(path: Path, array: np.ndarray, affine: np.ndarray = AFFINE, axes: str = "zyx") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write(Volume.from_array(array, affine, axes=axes), path)
    return path


def save_scan(path: Path, labels: np.ndarray, seed: int = 0, add: int = 0) -> Path:
    """Write a CT in which each label has its own value."""
    noise = np.random.default_rng(seed).integers(-200, -150, SHAPE)
    return save(path, (noise + 60 * labels.astype(int) + add).astype(np.int16))


def read(path: Path, share: float = 0.5) -> Folder:
    found = read_source(path, share)
    assert isinstance(found, Folder)
    return found


def cohort(path: Path, share: float = 0.5, with_labels: bool = True) -> Cohort:
    return prepare([read(path, share)], Contract(model_contracts(), None), with_labels=with_labels)


def drawn(found: Cohort, name: str) -> np.ndarray:
    scan = next(scan for scan in found.scans if scan.name == name)
    assert scan.labels is not None
    return scan.labels.numpy()


class TestSynapse:
    """BTCV as it is downloaded."""

    @pytest.mark.parametrize(
        ("folders", "scan", "labels"),
        [
            (("Training/img", "Training/label"), "img{}.nii.gz", "label{}.nii.gz"),
            (
                ("averaged-training-images", "averaged-training-labels"),
                "DET{}_avg.nii.gz",
                "DET{}_avg_seg.nii.gz",
            ),
            (
                ("averaged-training-images", "averaged-training-labels"),
                "DET{}_avg.nii.gz",
                "DET{}_avg.nii.gz",
            ),
        ],
    )
    def test_scans_labels_and_organs(self, tmp_path, folders, scan, labels) -> None:
        for number in ("0001", "0002", "0003"):
            organs = marks(6, int(number))
            save_scan(tmp_path / "RawData" / folders[0] / scan.format(number), organs)
            save(tmp_path / "RawData" / folders[1] / labels.format(number), organs)
        if folders[0].startswith("Training"):
            save_scan(tmp_path / "RawData/Testing/img/img0061.nii.gz", marks())
        for place in (tmp_path, tmp_path / "RawData"):
            folder = read(place, 0.34)
            labelled = [case for case in folder.cases if case.labels]
            assert len(labelled) == 3
            assert sum(case.validation for case in labelled) == 1
            assert folder.label_names == BTCV_NAMES
        found = cohort(tmp_path / "RawData", 0.34)
        assert len(found.scans) == 3
        assert found.label_names == BTCV_NAMES
        second = next(s.name for s in found.scans if "2" in s.name)
        assert np.array_equal(drawn(found, second), marks(6, 2))

    def test_names_are_those_of_the_shared_labels(self, shared_data) -> None:
        stated = json.loads((shared_data / "btcv" / "labels.json").read_text())
        assert {int(key): name for key, name in stated.items()} == BTCV_NAMES

    def test_a_labels_json_goes_first(self, tmp_path) -> None:
        save_scan(tmp_path / "img/img0001.nii.gz", marks(1))
        save(tmp_path / "label/label0001.nii.gz", marks(1))
        (tmp_path / "labels.json").write_text('{"0": "background", "1": "femur"}')
        assert read(tmp_path).label_names == {1: "femur"}


def save_series(
    folder: Path, values: np.ndarray, names: list[str], modality: str = "MR", uid: str = ""
) -> None:
    """Write slices (D, H, W) in the order of falling position, named as stated."""
    folder.mkdir(parents=True, exist_ok=True)
    study, uid = generate_uid(), uid or generate_uid()
    for place, (plane, name) in enumerate(zip(values, names, strict=True)):
        ds = Dataset()
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds.SOPClassUID, ds.SOPInstanceUID = MRImageStorage, generate_uid()
        ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
        ds.StudyInstanceUID, ds.SeriesInstanceUID = study, uid
        ds.FrameOfReferenceUID, ds.Modality = study, modality
        ds.ImageType = ["ORIGINAL", "PRIMARY"]
        ds.InstanceNumber = place + 1
        ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        ds.ImagePositionPatient = [0, 0, -SPACING[0] * place]
        ds.PixelSpacing, ds.SliceThickness = [SPACING[1], SPACING[2]], SPACING[0]
        ds.Rows, ds.Columns = plane.shape
        ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
        ds.BitsAllocated = ds.BitsStored = 16
        ds.HighBit, ds.PixelRepresentation = 15, 1
        ds.RescaleSlope, ds.RescaleIntercept = 1, 0
        ds.PixelData = plane.astype(np.int16).tobytes()
        pydicom.dcmwrite(folder / f"{name}.dcm", ds, enforce_file_format=True)


def save_ground(folder: Path, gray: np.ndarray, names: list[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for plane, name in zip(gray, names, strict=True):
        Image.fromarray(plane.astype(np.uint8)).save(folder / f"{name}.png")


def numbered(stem: str, *, downwards: bool = False, step: int = 1, first: int = 1) -> list[str]:
    numbers = [first + step * n for n in range(SHAPE[0])]
    return [f"{stem}{n:05d}" for n in (numbers[::-1] if downwards else numbers)]


def chaos(root: Path) -> Path:
    """Write three MR patients and one CT.

    The reader counts slices upwards. Names rise downwards, against it, in T2-SPIR and CT, and
    upwards in T1-DUAL.
    """
    mr = np.random.default_rng(3).integers(0, 900, (2, *SHAPE))
    for patient in ("1", "2", "3"):
        place = root / "Train_Sets" / "MR" / patient
        organs = marks(1, 2, 3, 4)
        gray = 63 * organs.astype(int)
        gray[gray == 63] = 60  # within the challenge's range
        inside = numbered("IMG-0004-", downwards=True, step=2, first=2)
        outside = numbered("IMG-0004-", downwards=True, step=2, first=1)
        dual = place / "T1DUAL"
        save_series(dual / "DICOM_anon" / "InPhase", mr[0] + 50 * organs, inside)
        save_series(dual / "DICOM_anon" / "OutPhase", mr[1] + 90 * organs, outside)
        save_ground(dual / "Ground", gray, inside)
        spir = place / "T2SPIR"
        names = numbered("IMG-0002-")
        save_series(spir / "DICOM_anon", mr[0] + 70 * organs, names)
        save_ground(spir / "Ground", gray, names)
    ct = root / "Train_Sets" / "CT" / "1"
    hu = np.random.default_rng(4).integers(-900, -150, SHAPE) + 1000 * (marks(3) > 0)
    save_series(ct / "DICOM_anon", hu, numbered("i"), "CT")
    # pictures of CT have names of their own, in the order of the slices' names
    save_ground(ct / "Ground", 255 * (marks(3) > 0), numbered("liver_GT_"))
    return root


@pytest.fixture(scope="module")
def chaos_set(tmp_path_factory) -> Path:
    return chaos(tmp_path_factory.mktemp("data") / "CHAOS")


class TestChaos:
    """CHAOS as it is downloaded."""

    def test_pictures_lie_on_their_slices(self, chaos_set) -> None:
        found = cohort(chaos_set)
        assert found.label_names == MR_NAMES
        for name in ("CHAOS/MR/1/T1DUAL", "CHAOS/MR/2/T2SPIR"):
            assert np.array_equal(drawn(found, name), marks(1, 2, 3, 4))
        assert np.array_equal(drawn(found, "CHAOS/CT/1"), marks(3) > 0)

    def test_phases_are_channels_and_t2_stands_for_both(self, chaos_set) -> None:
        found = cohort(chaos_set)
        assert found.channels == ("in phase", "out phase")
        assert channel_names(read(chaos_set)) == found.channels
        channels = {scan.name: scan.image.shape[0] for scan in found.scans}
        assert channels["CHAOS/MR/1/T1DUAL"] == 2
        assert channels["CHAOS/MR/1/T2SPIR"] == 1
        assert {scan.modality for scan in found.scans} == {"MR", "CT"}

    def test_in_ct_the_liver_alone_was_drawn(self, chaos_set) -> None:
        found = cohort(chaos_set)
        known = {scan.name: scan.known for scan in found.scans}
        assert known["CHAOS/CT/1"] == (1,)
        assert known["CHAOS/MR/1/T2SPIR"] == (1, 2, 3, 4)
        assert read(chaos_set / "Train_Sets" / "CT").label_names == {1: "liver"}

    def test_both_sequences_of_a_patient_are_on_one_side(self, chaos_set) -> None:
        cases = read(chaos_set, 0.3).cases
        kept = {case.patient for case in cases if case.validation}
        assert kept
        assert all((case.patient in kept) == case.validation for case in cases)

    def test_a_split_names_patients(self, tmp_path) -> None:
        root = chaos(tmp_path / "set")
        (root / "split.json").write_text('{"train": [], "validation": ["MR/2"]}')
        kept = [case.name for case in read(root).cases if case.validation]
        assert kept == ["set/MR/2/T1DUAL", "set/MR/2/T2SPIR"]

    @pytest.mark.parametrize(
        ("break_it", "sentence"),
        [
            (lambda p: (p / "T2SPIR/Ground/IMG-0002-00003.png").unlink(), "5 pictures for the 6"),
            (
                lambda p: Image.new("L", (9, 9)).save(p / "T2SPIR/Ground/IMG-0002-00003.png"),
                "9 x 9 pixels, its slice 24 x 20",
            ),
            (
                lambda p: (p / "T1DUAL/DICOM_anon/OutPhase").rename(p / "elsewhere"),
                "OutPhase is absent",
            ),
        ],
    )
    def test_what_is_wrong_is_said(self, tmp_path, break_it, sentence) -> None:
        root = chaos(tmp_path / "set")
        break_it(root / "Train_Sets" / "MR" / "1")
        with pytest.raises(SpadError, match=sentence):
            cohort(root)


def nnunet(root: Path, about: dict, channels: int = 2, ending: str = ".nii.gz") -> Path:
    root.mkdir()
    for number in range(1, 5):
        organs = marks(1, 2)
        for channel in range(channels):
            name = f"liver_{number:03d}_{channel:04d}{ending}"
            save_scan(root / "imagesTr" / name, organs, number + 10 * channel, 300 * channel)
        save(root / "labelsTr" / f"liver_{number:03d}{ending}", organs)
    save_scan(root / "imagesTs" / f"liver_009_0000{ending}", marks())
    (root / "dataset.json").write_text(json.dumps(about))
    return root


VERSION_2 = {
    "channel_names": {"0": "CT", "1": "PET"},
    "labels": {"background": 0, "liver": 1, "tumour": 2},
    "numTraining": 4,
    "file_ending": ".nii.gz",
}
VERSION_1 = {
    "modality": {"0": "CT"},
    "labels": {"0": "background", "1": "liver", "2": "tumour"},
    "training": [{"image": "./imagesTr/liver_001.nii.gz", "label": "./labelsTr/liver_001.nii.gz"}],
}


class TestNnUNet:
    """Raw data sets of nnU-Net."""

    def test_version_2_with_two_channels(self, tmp_path) -> None:
        root = nnunet(tmp_path / "Dataset001_Liver", VERSION_2)
        found = cohort(root)
        assert found.label_names == {1: "liver", 2: "tumour"}
        assert found.channels == ("CT", "PET")
        assert len(found.scans) == 4
        assert {scan.image.shape for scan in found.scans} == {(2, *SHAPE)}
        assert np.array_equal(drawn(found, "Dataset001_Liver/liver_003"), marks(1, 2))
        assert found.modalities() == ["CT", "PT"]
        assert found.scans[0].channel_modalities == ("CT", "PT")

    def test_each_channel_has_its_own_limits(self, tmp_path) -> None:
        scan = cohort(nnunet(tmp_path / "set", VERSION_2)).scans[0]
        image = scan.unit(scan.image[:, :, :, :])
        values = 0.0 + 60 * marks(1, 2) + np.random.default_rng(1).integers(-200, -150, SHAPE)
        assert torch.allclose(
            image[0], torch.from_numpy((values + 125) / 400).clamp(0, 1).float(), atol=1e-3
        )
        assert image[1].min() == 0
        assert image[1].max() == 1

    def test_version_1_is_not_taken_for_a_decathlon(self, tmp_path) -> None:
        root = nnunet(tmp_path / "Task001", VERSION_1, channels=1)
        found = cohort(root)
        assert found.label_names == {1: "liver", 2: "tumour"}
        assert (len(found.scans), found.channels) == (4, ())

    def test_fold_0_is_kept(self, tmp_path) -> None:
        root = nnunet(tmp_path / "set", VERSION_2)
        folds = [
            {"train": ["liver_001"], "val": ["liver_002", "liver_004"]},
            {"val": ["liver_001"]},
        ]
        (root / "splits_final.json").write_text(json.dumps(folds))
        kept = [case.name for case in read(root).cases if case.validation]
        assert kept == ["set/liver_002", "set/liver_004"]

    def test_other_endings(self, tmp_path) -> None:
        root = nnunet(tmp_path / "set", VERSION_2 | {"file_ending": ".nrrd"}, ending=".nrrd")
        assert len(cohort(root).scans) == 4

    @pytest.mark.parametrize(
        ("break_it", "sentence"),
        [
            (lambda p: (p / "imagesTr/liver_002_0001.nii.gz").unlink(), "liver_002 .* 1 channels"),
            (
                lambda p: [f.unlink() for f in p.glob("imagesTr/liver_002*")],
                "liver_002.nii.gz has no scan",
            ),
            (lambda p: (p / "dataset.json").write_text("{"), "JSON"),
            (lambda p: (p / "splits_final.json").write_text("{}"), "who is kept"),
            (
                lambda p: (p / "dataset.json").write_text(
                    json.dumps(VERSION_2 | {"labels": {"liver": 1, "whole": [1, 2]}})
                ),
                "'whole', which stands for the ids",
            ),
            (
                lambda p: (p / "dataset.json").write_text(
                    json.dumps(VERSION_2 | {"labels": {"liver": 1}})
                ),
                "hold 2, which the data set does not name",
            ),
            (
                lambda p: save(
                    p / "imagesTr/liver_002_0001.nii.gz", np.zeros((3, 20, 24), np.int16)
                ),
                "all channels of a scan on one grid",
            ),
        ],
    )
    def test_what_is_wrong_is_said(self, tmp_path, break_it, sentence) -> None:
        root = nnunet(tmp_path / "set", VERSION_2)
        break_it(root)
        with pytest.raises(SpadError, match=sentence):
            cohort(root)

    def test_a_scan_without_labels_is_left_out(self, tmp_path) -> None:
        root = nnunet(tmp_path / "set", VERSION_2)
        (root / "labelsTr" / "liver_002.nii.gz").unlink()
        assert len(cohort(root).scans) == 3


def datalist(root: Path, several: bool = False) -> Path:
    for number in range(4):
        organs = marks(1, 3)
        save_scan(root / "images" / f"a{number}.nii.gz", organs, number)
        save_scan(root / "images" / f"b{number}.nii.gz", organs, number + 10)
        save(root / "truth" / f"a{number}.nii.gz", organs)
    entries = [
        {
            "image": [f"images/{c}{n}.nii.gz" for c in "ab"] if several else f"images/a{n}.nii.gz",
            "label": f"truth/a{n}.nii.gz",
            "fold": n % 2,
        }
        for n in range(4)
    ]
    listed = {"labels": {"0": "background", "1": "liver", "3": "aorta"}, "training": entries[:3]}
    (root / "list.json").write_text(json.dumps(listed | {"validation": entries[3:]}))
    (root / "folds.json").write_text(json.dumps(listed | {"training": entries}))
    return root


class TestDatalist:
    """MONAI's lists, and Medical Decathlon's dataset.json."""

    @pytest.mark.parametrize("several", [False, True])
    def test_training_and_validation(self, tmp_path, several) -> None:
        found = cohort(datalist(tmp_path / "set", several) / "list.json")
        assert [scan.name for scan in found.part(validation=True)] == ["set/a3"]
        assert found.label_names == {1: "liver", 2: "aorta"}
        assert {scan.image.shape[0] for scan in found.scans} == {2 if several else 1}
        assert set(np.unique(drawn(found, "set/a0"))) == {0, 1, 2}

    def test_fold_0_is_kept(self, tmp_path) -> None:
        cases = read(datalist(tmp_path / "set") / "folds.json").cases
        assert [case.validation for case in cases] == [True, False, True, False]

    def test_decathlon_with_channels_on_the_fourth_axis(self, tmp_path) -> None:
        root = tmp_path / "Task01_BrainTumour"
        for number in range(2):
            scans = [np.random.default_rng(k).integers(0, 900, SHAPE) for k in range(4)]
            stack = np.stack(scans).astype(np.int16)
            save(root / "imagesTr" / f"BRATS_{number}.nii.gz", stack, axes="tzyx")
            save(root / "labelsTr" / f"BRATS_{number}.nii.gz", marks(1))
        about = {
            "modality": {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"},
            "labels": {"0": "background", "1": "tumour"},
            "training": [
                {"image": f"./imagesTr/BRATS_{n}.nii.gz", "label": f"./labelsTr/BRATS_{n}.nii.gz"}
                for n in range(2)
            ],
            "test": ["./imagesTs/BRATS_9.nii.gz"],
        }
        (root / "dataset.json").write_text(json.dumps(about))
        found = cohort(root)
        assert found.channels == ("FLAIR", "T1w", "t1gd", "T2w")
        assert [scan.modality for scan in found.scans] == ["MR", "MR"]
        scan = found.scans[0]
        high = np.percentile(scans[2][scans[2] > scans[2].min()], 99.5)
        expected = torch.from_numpy(stack[2] / high).float().clamp(0, 1)
        assert torch.allclose(scan.image[2, :, :, :].float(), expected, atol=2e-2)

    def test_names_beside_the_list(self, tmp_path) -> None:
        root = datalist(tmp_path / "set")
        listed = json.loads((root / "list.json").read_text())
        del listed["labels"]
        (root / "list.json").write_text(json.dumps(listed))
        assert read(root / "list.json").label_names == {1: "1", 3: "3"}
        (root / "labels.json").write_text('{"1": "liver", "3": "aorta"}')
        assert read(root / "list.json").label_names == {1: "liver", 3: "aorta"}

    def test_channels_are_scans_of_their_own_where_nobody_wants_labels(self, tmp_path) -> None:
        found = cohort(datalist(tmp_path / "set", several=True) / "list.json", with_labels=False)
        assert len(found.scans) == 8
        assert found.channels == ()
        assert {scan.image.shape[0] for scan in found.scans} == {1}

    @pytest.mark.parametrize(
        ("text", "sentence"),
        [
            ("[1, 2", "could not be read as JSON"),
            ("[]", "no JSON object"),
            ('{"validation": []}', 'no list under "training"'),
            ('{"training": [{"image": "images/gone.nii.gz"}]}', "gone.nii.gz', which is absent"),
            ('{"training": [{"label": "truth/a0.nii.gz"}]}', 'without a path under "image"'),
            (
                '{"training": [{"image": "images/a0.nii.gz", "label": "gone.nii"}]}',
                "'gone.nii', which is absent",
            ),
            ('{"training": [], "labels": {"liver": "one"}}', "'liver' without an id"),
        ],
    )
    def test_what_is_wrong_is_said(self, tmp_path, text, sentence) -> None:
        root = datalist(tmp_path / "set")
        (root / "list.json").write_text(text)
        with pytest.raises(SpadError, match=sentence):
            read(root / "list.json")


class TestPairs:
    """Any folder of scans and labels."""

    @pytest.mark.parametrize(
        ("scan", "labels"),
        [
            ("images/{}.nii.gz", "labels/{}.nii.gz"),
            ("{}.nii.gz", "{}_seg.nii.gz"),
            ("{}.nii.gz", "{}_labels.nii.gz"),
            ("{}.nii", "{}-mask.nrrd"),
            ("img{}.nii.gz", "label{}.nii.gz"),
            ("image{}.nii.gz", "mask{}.nii.gz"),
            ("train_images/{}.mha", "train_masks/{}.mha"),
            ("p{}/image.nii.gz", "p{}/label.nii.gz"),
            ("p{}/scan.nii.gz", "p{}/scan_segmentation.nii.gz"),
            ("imagesTr/{}_0000.nii.gz", "labelsTr/{}.nii.gz"),
        ],
    )
    def test_pairs_are_found(self, tmp_path, scan, labels) -> None:
        for number in (11, 12):
            save_scan(tmp_path / scan.format(number), marks(number - 10))
            save(tmp_path / labels.format(number), marks(number - 10))
        for sidecar in tmp_path.rglob("*.labels.json"):
            sidecar.unlink()
        found = cohort(tmp_path)
        assert found.label_names == {1: "1", 2: "2"}
        for scan_of, label in zip(found.scans, (1, 2), strict=True):
            assert np.array_equal(drawn(found, scan_of.name), marks(label))
            assert scan_of.known == (1, 2)

    def test_test_labels_stay_with_test_images(self, tmp_path) -> None:
        for part in ("Tr", "Ts"):
            save_scan(tmp_path / f"images{part}" / "a.nii.gz", marks(1))
        save(tmp_path / "labelsTr" / "a.nii.gz", marks(1))
        labels = [case.labels and case.labels.parent.name for case in read(tmp_path).cases]
        assert labels == ["labelsTr", None]

    def test_scans_of_a_patient_are_on_one_side(self, tmp_path) -> None:
        for patient in range(5):
            for name in ("ct", "pet"):
                save_scan(tmp_path / f"P{patient}" / f"{name}.nii.gz", marks(1))
        kept = [case.name.split("/")[1] for case in read(tmp_path, 0.4).cases if case.validation]
        assert kept == ["P1", "P1", "P3", "P3"]

    def test_names_that_files_carry_themselves(self, tmp_path) -> None:
        names = ({1: "liver", 2: "spleen"}, {1: "spleen"})
        for number, own in enumerate(names):
            save_scan(tmp_path / f"{number}.nrrd", marks(*own))
            made = Volume.from_array(marks(*own), AFFINE, label_names=own)
            write(made, tmp_path / f"{number}.seg.nrrd")
        found = cohort(tmp_path)
        assert found.label_names == {1: "liver", 2: "spleen"}
        assert [scan.known for scan in found.scans] == [(1, 2), (2,)]
        assert set(np.unique(drawn(found, f"{tmp_path.name}/1"))) == {0, 2}

    def test_labels_in_another_order_of_axes(self, tmp_path) -> None:
        organs = marks(1, 2)
        save_scan(tmp_path / "a.nii.gz", organs)
        turned = AFFINE @ np.array(
            [[0, 0, -1, SHAPE[0] - 1], [0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]]
        )
        save(tmp_path / "a_seg.nii.gz", organs[::-1].transpose(2, 1, 0), turned)
        assert np.array_equal(drawn(cohort(tmp_path), f"{tmp_path.name}/a"), organs)

    @pytest.mark.parametrize(
        ("labels", "affine", "sentence"),
        [
            (np.zeros((5, 20, 24), np.uint8), AFFINE, "lies on another grid"),
            (marks(1), np.diag([2.0, 2.0, 3.0, 1.0])[[2, 1, 0, 3]], "lies on another grid"),
            (np.full(SHAPE, 0.5, np.float32), AFFINE, "not whole numbers"),
        ],
    )
    def test_labels_that_do_not_fit(self, tmp_path, labels, affine, sentence) -> None:
        save_scan(tmp_path / "a.nii.gz", marks(1))
        save(tmp_path / "a_seg.nii.gz", labels, affine)
        (tmp_path / "labels.json").write_text('{"1": "liver"}')
        with pytest.raises(SpadError, match=sentence):
            cohort(tmp_path)

    def test_no_pair_at_all_is_said(self, tmp_path) -> None:
        save_scan(tmp_path / "a.nii.gz", marks(1))
        with pytest.raises(SpadError, match="holds no labels"):
            cohort(tmp_path)

    def test_two_labels_of_one_scan_are_said(self, tmp_path) -> None:
        save_scan(tmp_path / "a.nii.gz", marks(1))
        for word in ("seg", "mask"):
            save(tmp_path / f"a_{word}.nii.gz", marks(1))
        with pytest.raises(SpadError, match="labels of one scan"):
            read(tmp_path)

    def test_a_channel_axis(self, tmp_path) -> None:
        for number in range(2):
            stack = np.stack([400 * marks(1).astype(int) - 900, np.full(SHAPE, 900)])
            save(tmp_path / f"{number}.nii.gz", stack.astype(np.int16), axes="czyx")
            save(tmp_path / f"{number}_seg.nii.gz", marks(1))
        found = cohort(tmp_path)
        assert found.channels == ("channel 1", "channel 2") == channel_names(read(tmp_path))
        assert found.scans[0].image.shape == (2, *SHAPE)

    def test_different_numbers_of_channels_are_said(self, tmp_path) -> None:
        for count in (2, 3):
            stack = np.random.default_rng(0).integers(-900, 0, (count, *SHAPE)).astype(np.int16)
            save(tmp_path / f"{count}.nii.gz", stack, axes="czyx")
            save(tmp_path / f"{count}_seg.nii.gz", marks(1))
        with pytest.raises(SpadError, match="different numbers of channels"):
            cohort(tmp_path)


class TestStores:
    """`spad prepare` takes the same layouts; each channel is a scan there."""

    def test_chaos(self, chaos_set, tmp_path) -> None:
        done = prepare_store(chaos_set, tmp_path / "store")
        assert not done.left_out
        names = done.store.label_names
        assert names == {"CHAOS": MR_NAMES, "CHAOS-liver": {1: "liver"}}
        rows = {row.key: row for row in done.store.rows}
        assert len(rows) == 10
        dual = rows["CHAOS/MR-1-T1DUAL-1"]
        assert (dual.patient, dual.labels) == ("MR_1", True)
        counts = np.bincount(done.store.labels(dual).ravel())
        assert np.array_equal(counts[1:], np.bincount(marks(1, 2, 3, 4).ravel())[1:])
        found = prepare(
            [read_source(tmp_path / "store")], Contract(model_contracts(), None), with_labels=True
        )
        known = {scan.name: scan.known for scan in found.scans}
        assert len(known["CHAOS-liver/CT-1"]) == 1

    def test_nnunet_with_its_test_scans(self, tmp_path) -> None:
        root = nnunet(tmp_path / "Dataset001", VERSION_2)
        folds = [{"train": ["liver_001"], "val": ["liver_002"]}]
        (root / "splits_final.json").write_text(json.dumps(folds))
        scans = {scan.name: scan for scan in collect(root).scans}
        assert len(scans) == 9
        assert scans["liver_002_0001"].part == "validation"
        assert scans["liver_002_0001"].labels == root / "labelsTr" / "liver_002.nii.gz"
        assert scans["liver_009_0000"].labels is None
        assert collect(root).data_sets["Dataset001"].label_names == {1: "liver", 2: "tumour"}

    def test_a_datalist(self, tmp_path) -> None:
        scans = collect(datalist(tmp_path / "set") / "list.json").scans
        assert [scan.part for scan in scans] == ["train"] * 3 + ["validation"]
        assert all(scan.labels for scan in scans)

    def test_synapse(self, tmp_path) -> None:
        save_scan(tmp_path / "Training/img/img0001.nii.gz", marks(1))
        save(tmp_path / "Training/label/label0001.nii.gz", marks(1))
        (one,) = collect(tmp_path / "Training").scans
        assert one.labels is not None
        assert collect(tmp_path / "Training").data_sets["Training"].label_names == BTCV_NAMES
