"""File > Open and File > Save: nothing is lost, nothing is flipped, errors are sentences."""

from __future__ import annotations

import json

import nibabel
import npe2
import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Labels, Layer
from napari.utils.notifications import notification_manager

from napari_spad.reader import get_reader, read_layer
from napari_spad.writer import write_image, write_labels
from spad.errors import SpadError

AFFINES = {
    "LAS": np.array([[-2.0, 0, 0, 90], [0, 2, 0, -80], [0, 0, 5, -30], [0, 0, 0, 1]]),
    "LPS": np.array([[-2.0, 0, 0, 90], [0, -2, 0, 80], [0, 0, 5, -30], [0, 0, 0, 1]]),
    "PSR": np.array([[0, 0, 3.0, -20], [-1, 0, 0, 50], [0, 1, 0, -60], [0, 0, 0, 1]]),
    "SRA": np.array([[0, 1.5, 0, -20], [0, 0, 1.5, -60], [4, 0, 0, 7], [0, 0, 0, 1]]),
}


@pytest.fixture(scope="module", autouse=True)
def plugin():
    """Let napari find the plugin, as its start does."""
    npe2.PluginManager.instance().discover()


def scan_file(path, affine, dtype=">i2", codes=(1, 2), series=False):
    shape = (10, 12, 6, 2) if series else (10, 12, 6)
    data = np.random.default_rng(0).integers(-1000, 1000, shape).astype(dtype)
    image = nibabel.Nifti1Image(data, affine)
    image.set_qform(affine, codes[0])
    image.set_sform(affine, codes[1])
    image.header.set_xyzt_units("mm", "sec")
    nibabel.save(image, path)
    return path


def header_facts(path):
    image = nibabel.load(path)
    header = image.header
    return (
        image.shape[:3],
        np.round(image.affine, 5).tolist(),
        int(header["qform_code"]),
        int(header["sform_code"]),
        header.get_xyzt_units()[0],
    )


def write_through_napari(viewer, layer, path):
    viewer.layers.selection = {layer}
    return viewer.layers.save(str(path), selected=True, plugin="napari-spad")


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".img"])
@pytest.mark.parametrize("name", AFFINES)
def test_new_labels_get_the_geometry_of_their_scan(tmp_path, name, suffix):
    source = scan_file(tmp_path / f"scan{suffix}", AFFINES[name])
    viewer = ViewerModel()
    viewer.open(source, plugin="napari-spad")
    viewer._new_labels()
    labels = viewer.layers[-1]
    spot = (1, 2, 3)
    labels.data[spot] = 4
    value = viewer.layers[0].data[spot]
    out = tmp_path / f"out{suffix}"
    assert write_through_napari(viewer, labels, out) == [str(out)]
    assert header_facts(out) == header_facts(source)
    written = np.asarray(nibabel.load(out).dataobj)
    assert written.sum() == 4
    assert nibabel.load(source).get_fdata()[written == 4].tolist() == [value]


def test_labels_of_a_series_lie_on_each_time(tmp_path):
    source = scan_file(tmp_path / "scan.nii", AFFINES["LAS"], series=True)
    viewer = ViewerModel()
    viewer.open(source, plugin="napari-spad")
    viewer._new_labels()
    viewer.layers[-1].data[1, 0, 0, 0] = 1
    write_through_napari(viewer, viewer.layers[-1], tmp_path / "out.nii")
    written = nibabel.load(tmp_path / "out.nii")
    assert written.shape == nibabel.load(source).shape
    assert np.argwhere(np.asarray(written.dataobj))[0].tolist()[-1] == 1


def test_oblique_labels_overlay_in_an_independent_reader(tmp_path, mr_phantom):
    import SimpleITK

    from spad.volumes.files import write

    source = tmp_path / "mr.nii.gz"
    write(mr_phantom.image, source)
    viewer = ViewerModel()
    viewer.open(source, plugin="napari-spad")
    viewer._new_labels()
    viewer.layers[-1].data[:] = viewer.layers[0].data > 200
    write_through_napari(viewer, viewer.layers[-1], tmp_path / "out.nii.gz")
    one = SimpleITK.ReadImage(str(source))
    other = SimpleITK.ReadImage(str(tmp_path / "out.nii.gz"))
    assert np.allclose(one.GetDirection(), other.GetDirection(), atol=1e-5)
    assert np.allclose(one.GetOrigin(), other.GetOrigin(), atol=1e-4)
    pixels = SimpleITK.GetArrayFromImage(one) > 200
    assert np.array_equal(pixels, SimpleITK.GetArrayFromImage(other) > 0)


def test_names_go_beside_the_labels(tmp_path, ct_phantom):
    from napari_spad.layers import to_layer
    from spad.volumes.files import read

    layer = Layer.create(*to_layer(ct_phantom.labels, "organs", role="labels"))
    data, attributes, _ = layer.as_layer_data_tuple()
    write_labels(str(tmp_path / "organs.nii.gz"), data, attributes)
    names = json.loads((tmp_path / "organs.labels.json").read_text())
    assert names["6"] == "liver"
    assert read(tmp_path / "organs.nii.gz").label_names == ct_phantom.labels.label_names


def test_an_opened_scan_is_written_as_stored(tmp_path):
    source = tmp_path / "scan.nii"
    data = np.arange(720, dtype=np.uint8).reshape(10, 12, 6)
    image = nibabel.Nifti1Image(data, AFFINES["PSR"])
    image.header.set_slope_inter(1.5686274, -125)
    nibabel.save(image, source)
    layer = Layer.create(*read_layer(source))
    written, attributes, _ = layer.as_layer_data_tuple()
    write_image(str(tmp_path / "copy.nii"), written, attributes)
    copy = nibabel.load(tmp_path / "copy.nii")
    assert np.array_equal(copy.get_fdata(), nibabel.load(source).get_fdata())
    assert copy.get_data_dtype() == np.uint8


def test_a_stranger_is_not_written(tmp_path):
    stranger = Labels(np.zeros((3, 4, 5), int), scale=(7, 8, 9), name="stranger")
    data, attributes, _ = stranger.as_layer_data_tuple()
    with pytest.raises(SpadError, match="stranger"):
        write_labels(str(tmp_path / "out.nii"), data, attributes)
    assert list(tmp_path.iterdir()) == []


NAMES = [
    *("a.nii", "a.NII.GZ", "a.hdr", "a.img", "b.c.nii.gz", "a.hdr.gz", "a.nrrd", "a.seg.nrrd"),
    *("a.nhdr", "a.mha", "A.MHD", "a.dcm", "1.2.840.113.DCM", "a.dicom", "a.ima", "DICOMDIR"),
]
FOREIGN = [
    *("a.png", "a.jpg", "a.tif", "a.ome.tiff", "a.npy", "a.npz", "a.zarr", "a.stl", "a.json"),
    *("a.nii.txt", "a.gz", "notes", "dicomdir.txt", "IM0001"),
]


@pytest.mark.parametrize("path", [*NAMES, ["a.nii", "b.nii.gz"]])
def test_reader_offers_itself_by_name(path):
    assert callable(get_reader(path))


@pytest.mark.parametrize("path", [*FOREIGN, "MAKEFILE", [], ["a.nii", "a.tif"], 7, None])
def test_reader_keeps_out_of_other_files(path):
    assert get_reader(path) is None


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("folder", ["", "some.dir/", "UPPER/"])
def test_manifest_claims_what_the_reader_reads(name, folder):
    manager = npe2.PluginManager.instance()
    found = {one.plugin_name for one in manager.iter_compatible_readers([folder + name])}
    assert "napari-spad" in found


@pytest.mark.parametrize("name", FOREIGN)
def test_manifest_leaves_pictures_and_arrays_to_napari(name):
    manager = npe2.PluginManager.instance()
    found = {one.plugin_name for one in manager.iter_compatible_readers([name])}
    assert "napari-spad" not in found


def test_manifest_leaves_folders_to_napari(tmp_path):
    manager = npe2.PluginManager.instance()
    found = {one.plugin_name for one in manager.iter_compatible_readers([str(tmp_path)])}
    assert "napari-spad" not in found


def test_napari_asks_no_more_once_a_person_says_so(tmp_path, reader_preferences):
    from napari.plugins.utils import get_preferred_reader

    from napari_spad.preference import open_without_asking

    reader_preferences.extension2reader = {"*.mha": "some-plugin", "*.gz": "napari"}
    path = scan_file(tmp_path / "scan.nii.gz", AFFINES["LPS"])
    viewer = ViewerModel()
    with pytest.raises(RuntimeError, match="Multiple plugins"):
        viewer._open_or_raise_error([str(tmp_path / "scan.nii")])
    open_without_asking()
    assert get_preferred_reader(path) == "napari-spad"
    assert get_preferred_reader(tmp_path / "A.DCM") == "napari-spad"
    assert get_preferred_reader(tmp_path / "a.mha") == "some-plugin"
    assert get_preferred_reader(tmp_path / "a.png") is None
    assert viewer.open(path, plugin=None)[0].metadata["napari_spad"]["role"] == "scan"
    open_without_asking()
    assert list(reader_preferences.extension2reader)[-1] == "*.gz"


@pytest.fixture
def reader_preferences():
    from napari.settings import get_settings

    settings = get_settings().plugins
    before = dict(settings.extension2reader)
    yield settings
    settings.extension2reader = before


def test_a_broken_file_is_a_notification_and_no_layer(tmp_path):
    path = tmp_path / "broken.nii.gz"
    path.write_bytes(b"\x1f\x8b not gzip at all")
    before = len(notification_manager.records)
    assert get_reader(str(path))(str(path)) == [(None,)]
    said = notification_manager.records[before:]
    assert [str(one.severity) for one in said] == ["error"]
    assert "broken.nii.gz" in said[0].message


def test_a_good_file_opens_beside_a_broken_one(tmp_path):
    good = scan_file(tmp_path / "good.nii", AFFINES["LPS"])
    bad = tmp_path / "bad.nii"
    bad.write_bytes(b"nothing")
    opened = get_reader([str(bad), str(good)])([str(bad), str(good)])
    assert [meta["name"] for _, meta, _ in opened] == ["good"]


def test_manifest_is_valid_and_complete():
    manager = npe2.PluginManager.instance()
    manager.discover(include_npe1=False)
    manifest = manager.get_manifest("napari-spad")
    manifest.validate_imports()
    found = manifest.contributions
    assert {widget.display_name for widget in found.widgets} >= {
        "Scan",
        "Segment",
        "Tokenizer",
        "Masking",
        "Train",
    }
    assert {sample.key for sample in found.sample_data} == {
        "ct_phantom",
        "mr_phantom",
        "nibabel_example",
    }
    menus = {menu: {item.command for item in items} for menu, items in found.menus.items()}
    assert "napari-spad.segment" in menus["napari/layers/segment"]


@pytest.mark.parametrize("key", ["ct_phantom", "mr_phantom", "nibabel_example"])
def test_samples_open(key):
    viewer = ViewerModel()
    viewer.open_sample("napari-spad", key)
    assert viewer.layers[0].data.ndim == (4 if key == "nibabel_example" else 3)
    assert viewer.layers[0].data.max() > viewer.layers[0].data.min()
    if key != "nibabel_example":
        truth = viewer.layers[1]
        assert isinstance(truth, Labels)
        assert not truth.visible
        assert truth.data.shape == viewer.layers[0].data.shape


def series_files(folder, count=5, description="Abdomen 5.0 B30f", skip=()):
    """Write a CT series whose file names say nothing of its order."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    folder.mkdir(exist_ok=True)
    uids, files = [generate_uid() for _ in range(3)], []
    for k in range(count):
        one = Dataset()
        one.file_meta = FileMetaDataset()
        one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        one.SOPClassUID = one.file_meta.MediaStorageSOPClassUID = CTImageStorage
        one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        one.StudyInstanceUID, one.SeriesInstanceUID, one.FrameOfReferenceUID = uids
        one.PatientName, one.PatientID, one.PatientBirthDate, one.PatientSex = "A^B", "1", "", ""
        one.StudyDate, one.StudyTime, one.StudyID, one.AccessionNumber = "", "", "", ""
        one.ReferringPhysicianName, one.PositionReferenceIndicator = "", ""
        one.Modality, one.SeriesDescription, one.SeriesNumber = "CT", description, 3
        one.ImageType, one.InstanceNumber = ["ORIGINAL", "PRIMARY", "AXIAL"], k + 1
        one.ImagePositionPatient, one.ImageOrientationPatient = [0, 0, 3.0 * k], [1, 0, 0, 0, 1, 0]
        one.PixelSpacing, one.SliceThickness = [0.5, 0.5], 3
        one.Rows, one.Columns = 6, 8
        one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
        one.BitsAllocated, one.BitsStored, one.HighBit, one.PixelRepresentation = 16, 16, 15, 1
        one.RescaleSlope, one.RescaleIntercept = 1, -1024
        one.WindowCenter, one.WindowWidth = 50, 400
        one.PixelData = np.full((6, 8), 1000 + k, np.int16).tobytes()
        path = folder / f"{(k * 7919 + 5) % 9973:04d}.dcm"
        if k not in skip:
            one.save_as(path, enforce_file_format=True)
            files.append(path)
    return files


def test_one_file_opens_its_series_under_its_name(tmp_path):
    files = series_files(tmp_path / "ct")
    viewer = ViewerModel()
    viewer.open(files[2], plugin="napari-spad")
    layer = viewer.layers[0]
    assert layer.name == "Abdomen 5.0 B30f"
    assert layer.data.shape == (5, 6, 8)
    assert np.asarray(layer.data)[:, 0, 0].tolist() == [-20, -21, -22, -23, -24]
    assert tuple(layer.contrast_limits) == (-150, 250)
    assert np.allclose(layer.scale, (3, 0.5, 0.5))


def test_many_dropped_files_of_a_series_are_one_layer(tmp_path):
    files = series_files(tmp_path / "ct") + series_files(tmp_path / "other", 3, "Lung")
    viewer = ViewerModel()
    viewer.open(files, plugin="napari-spad")
    assert [layer.name for layer in viewer.layers] == ["Abdomen 5.0 B30f", "Lung"]
    viewer.open(files, plugin="napari-spad", stack=True)
    assert len(viewer.layers) == 4
    # the same file again is another wish, not the same drop
    viewer.open(files[0], plugin="napari-spad")
    viewer.open(files[0], plugin="napari-spad")
    assert len(viewer.layers) == 6


def test_many_dropped_files_of_a_bad_series_are_one_sentence(tmp_path):
    files = series_files(tmp_path / "ct", 9, skip=(4, 6))
    before = len(notification_manager.records)
    viewer = ViewerModel()
    viewer.open(files, plugin="napari-spad")
    assert len(viewer.layers) == 0
    said = [one for one in notification_manager.records[before:] if str(one.severity) == "error"]
    assert len(said) == 1


def test_a_name_without_suffix_gets_the_one_of_the_filter(tmp_path, ct_phantom):
    from napari_spad import writer
    from napari_spad.layers import to_layer

    layer = Layer.create(*to_layer(ct_phantom.labels, "organs 5.0 B30f", role="labels"))
    data, attributes, _ = layer.as_layer_data_tuple()
    for write, suffix in (
        (writer.write_labels, ".nii.gz"),
        (writer.write_labels_nrrd, ".seg.nrrd"),
        (writer.write_labels_mha, ".mha"),
    ):
        path = tmp_path / "organs 5.0 B30f"
        assert write(str(path), data, attributes) == [f"{path}{suffix}"]
        assert (tmp_path / f"organs 5.0 B30f{suffix}").is_file()
        with pytest.raises(SpadError, match="there already"):
            write(str(path), data, attributes)
        named = str(tmp_path / f"again{suffix}")
        assert write(named, data, attributes) == write(named, data, attributes) == [named]
    writer.write_labels_stl(str(tmp_path / "surfaces"), data, attributes)
    assert len(list(tmp_path.glob("surfaces_*.stl"))) == len(ct_phantom.labels.label_names)
    with pytest.raises(SpadError, match="no writer knows"):
        writer.write_labels(str(tmp_path / "organs.tif"), data, attributes)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".hdr", ".nrrd", ".nhdr", ".mha", ".mhd"])
@pytest.mark.parametrize("name", AFFINES)
def test_every_format_by_the_menu(tmp_path, name, suffix):
    source = scan_file(tmp_path / "scan.nii", AFFINES[name])
    viewer = ViewerModel()
    viewer.open(source, plugin="napari-spad")
    viewer._new_labels()
    scan, labels = viewer.layers
    labels.data[1, 2, 3] = 4
    for layer, stem in ((scan, "copy"), (labels, "spots_labels")):
        out = tmp_path / f"{stem}{suffix}"
        viewer.layers.selection = {layer}
        assert viewer.layers.save(str(out), selected=True) == [str(out)]
        again = Layer.create(*read_layer(out))
        assert isinstance(again, Labels) == (layer is labels)
        assert np.array_equal(again.data, layer.data)
        assert np.allclose(again.scale, layer.scale)
        assert np.allclose(again.translate, layer.translate, atol=1e-4)


def test_names_and_colours_travel(tmp_path, ct_phantom):
    from napari_spad.layers import label_names, to_layer, volume_of

    layer = Layer.create(*to_layer(ct_phantom.labels, "organs", role="labels"))
    colormap = layer.colormap
    table = dict(colormap.color_dict) | {6: np.array([0.2, 0.4, 0.6, 1.0])}
    layer.colormap = type(colormap)(color_dict=table)
    assert volume_of(layer).label_colors[6] == pytest.approx((0.2, 0.4, 0.6, 1))
    data, attributes, _ = layer.as_layer_data_tuple()
    write_labels(str(tmp_path / "organs.seg.nrrd"), data, attributes)
    again = Layer.create(*read_layer(tmp_path / "organs.seg.nrrd"))
    assert label_names({"features": again.features}) == ct_phantom.labels.label_names
    assert again.get_color(6)[:3] == pytest.approx((0.2, 0.4, 0.6), abs=0.01)
    assert again.get_color(1)[:3] == pytest.approx(layer.get_color(1)[:3], abs=0.01)


def dialog_filters(*layers):
    from napari.plugins import _npe2

    text, writers = _npe2.file_extensions_string_for_layers(list(layers))
    return text.split(";;"), writers


def test_save_dialog_lists_our_formats(ct_phantom):
    from napari_spad.layers import to_layer

    image = Layer.create(*to_layer(ct_phantom.image, "ct"))
    labels = Layer.create(*to_layer(ct_phantom.labels, "organs", role="labels"))
    ours = [one for one in dialog_filters(image)[0] if one.startswith("SPAD")]
    assert ours[:3] == [
        "SPAD NIfTI image (*.nii.gz *.nii *.hdr *.img)",
        "SPAD NRRD image (*.nrrd *.nhdr)",
        "SPAD MetaImage (*.mha *.mhd)",
    ]
    ours = [one for one in dialog_filters(labels)[0] if one.startswith("SPAD")]
    assert ours[:5] == [
        "SPAD NIfTI labels (*.nii.gz *.nii *.hdr *.img)",
        "SPAD NRRD segmentation (*.seg.nrrd *.nrrd *.nhdr)",
        "SPAD MetaImage labels (*.mha *.mhd)",
        "SPAD DICOM segmentation (*.dcm)",
        "SPAD STL surfaces (*.stl)",
    ]
    folders = [one for one in dialog_filters(image, labels)[0] if "older" in one]
    assert folders == ["SPAD Folder of NIfTI files (*.*)", "napari builtins Save to Folder (*.*)"]


def test_no_other_writer_claims_our_suffixes():
    claims: dict[str, set[str]] = {}
    for manifest in npe2.PluginManager.instance().iter_manifests():
        for one in manifest.contributions.writers or []:
            for kind in one.layer_types:
                for end in one.filename_extensions:
                    claims.setdefault(f"{kind} {end}", set()).add(manifest.name)
    assert claims["labels .seg.nrrd"] == {"napari-spad"}
    assert all(len(who) == 1 for who in claims.values() if "napari-spad" in who)


def test_a_folder_holds_all_layers_or_none(tmp_path):
    source = scan_file(tmp_path / "scan.nii", AFFINES["PSR"])
    viewer = ViewerModel()
    viewer.open(source, plugin="napari-spad")
    viewer._new_labels()
    viewer.layers[-1].name = "a/b"
    stranger = viewer.add_image(np.zeros((3, 4, 5)), name="stranger")
    with pytest.raises(SpadError, match="stranger"):
        viewer.layers.save(str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()
    viewer.layers.remove(stranger)
    written = viewer.layers.save(str(tmp_path / "out"))
    found = sorted(one.name for one in (tmp_path / "out").iterdir())
    assert found == ["a_b.labels.json", "a_b.nii.gz", "scan.nii.gz"]
    assert sorted(written) == [str(tmp_path / "out" / name) for name in found[1:]]
    with pytest.raises(SpadError, match="there already"):
        viewer.layers.save(str(tmp_path / "out"))
    (tmp_path / "taken").write_text("")
    with pytest.raises(SpadError, match="taken"):
        viewer.layers.save(str(tmp_path / "taken"))


def test_layers_of_one_name_do_not_overwrite_each_other(tmp_path, ct_phantom):
    from napari_spad.layers import to_layer
    from napari_spad.writer import write_folder

    tuples = [
        Layer.create(*to_layer(ct_phantom.labels, "organs", role="labels")).as_layer_data_tuple()
        for _ in range(2)
    ]
    written = write_folder(str(tmp_path / "out"), tuples)
    assert [path.rpartition("/")[2] for path in written] == ["organs.nii.gz", "organs 2.nii.gz"]


def test_strangers_are_left_to_napari_s_own_folder(tmp_path):
    viewer = ViewerModel()
    viewer.add_image(np.zeros((30, 40), np.uint8), name="one")
    viewer.add_labels(np.zeros((30, 40), np.uint8), name="two")
    viewer.layers.save(str(tmp_path / "out"))
    assert sorted(one.suffix for one in (tmp_path / "out").iterdir()) == [".tif", ".tif"]


def test_dicom_seg_by_the_menu(tmp_path):
    files = series_files(tmp_path / "ct")
    viewer = ViewerModel()
    viewer.open(files[0], plugin="napari-spad")
    viewer._new_labels()
    labels = viewer.layers[-1]
    labels.data[1:3, 2:4, 3:5] = 2
    viewer.layers.selection = {labels}
    out = tmp_path / "organs.dcm"
    assert viewer.layers.save(str(out), selected=True) == [str(out)]
    again = Layer.create(*read_layer(out))
    assert isinstance(again, Labels)
    assert np.array_equal(again.data > 0, labels.data > 0)
    assert np.allclose(again.translate, labels.translate)
