"""Pictures: pixels, colours, palettes and sizes as independent writers meant them."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
import tifffile
from PIL import Image

from spad.errors import SpadError
from spad.volumes.axes import to_file_order
from spad.volumes.files import read

GREY = (np.arange(20 * 30).reshape(20, 30) % 251).astype(np.uint8)
DEEP = (GREY.astype(np.uint16) * 257 + 3).astype(np.uint16)
COLOUR = np.stack([GREY, GREY[::-1], GREY[:, ::-1]], axis=-1)


def file_array(path: Path, **options: object) -> np.ndarray:
    volume = read(path, **options)
    return np.asarray(to_file_order(volume.array, volume.source))


def rows(path: Path, **options: object) -> np.ndarray:
    """Give what was read with rows first, as picture libraries have it."""
    array = file_array(path, **options)
    return array[:, :, 0].swapaxes(0, 1)


def notes(path: Path) -> str:
    return " ".join(read(path).notes)


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.tiff"])
@pytest.mark.parametrize("pixels", [GREY, DEEP, COLOUR], ids=["grey", "deep", "colour"])
def test_pixels_as_written(tmp_path, name, pixels):
    path = tmp_path / name
    Image.fromarray(pixels).save(path)
    assert np.array_equal(rows(path), pixels)
    volume = read(path)
    assert volume.rgb == (pixels.ndim == 3)
    assert volume.source.axes == ("ijkc" if pixels.ndim == 3 else "ijk")
    assert volume.source.shape[:3] == (30, 20, 1)
    assert volume.source.format == "image"
    assert volume.array.dtype == pixels.dtype


def test_a_pixel_lies_where_itk_has_it(tmp_path):
    """The column runs to the left, the row to posterior: ITK's identity in LPS."""
    path = tmp_path / "a.png"
    Image.fromarray(GREY).save(path)
    volume = read(path, spacing=(0.5, 0.7))
    point = volume.source.affine @ (4, 7, 0, 1)
    assert point.tolist() == pytest.approx([-4 * 0.5, -7 * 0.7, 0, 1])
    image = SimpleITK.ReadImage(str(path))
    assert file_array(path)[4, 7, 0] == image.GetPixel(4, 7) == GREY[7, 4]
    assert volume.orientation == "SLP"


def test_jpeg_is_what_pillow_decodes(tmp_path):
    for pixels in (GREY, COLOUR):
        path = tmp_path / "a.jpg"
        Image.fromarray(pixels).save(path, quality=95)
        assert np.array_equal(rows(path), np.asarray(Image.open(path)))


@pytest.mark.parametrize("orientation", range(2, 9))
def test_turned_pictures_are_upright(tmp_path, orientation):
    from PIL import ImageOps

    path = tmp_path / "a.jpg"
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(GREY).save(path, exif=exif, quality=95, dpi=(254, 127))
    expected = np.asarray(ImageOps.exif_transpose(Image.open(path)))
    assert np.array_equal(rows(path), expected)
    assert "upright" in notes(path)
    steps = (0.2, 0.1, 1) if orientation >= 5 else (0.1, 0.2, 1)
    assert read(path).source.affine.diagonal()[:3] == pytest.approx(np.multiply(steps, (-1, -1, 1)))
    tif = tmp_path / "a.tif"
    tifffile.imwrite(tif, np.asarray(Image.open(path)), extratags=[(274, 3, 1, orientation, True)])
    assert np.array_equal(rows(tif), expected)


def test_sixteen_bit_colours_lose_nothing(tmp_path):
    pixels = np.stack([DEEP, DEEP[::-1], 65535 - DEEP], axis=-1)
    path = tmp_path / "a.png"
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(pixels, isVector=True), str(path))
    assert np.array_equal(rows(path), pixels)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb")
    assert np.array_equal(rows(tmp_path / "a.tif"), pixels)


def test_transparency(tmp_path):
    alpha = (GREY > 100).astype(np.uint8) * 255
    rgba = np.dstack([COLOUR, alpha])
    Image.fromarray(rgba).save(tmp_path / "a.png")
    assert np.array_equal(rows(tmp_path / "a.png"), rgba)
    both = Image.merge("LA", (Image.fromarray(GREY), Image.new("L", (30, 20), 255)))
    both.save(tmp_path / "b.png")
    assert np.array_equal(rows(tmp_path / "b.png"), GREY)
    Image.merge("LA", (Image.fromarray(GREY), Image.fromarray(alpha))).save(tmp_path / "c.png")
    assert rows(tmp_path / "c.png").shape == (20, 30, 4)


def test_one_bit(tmp_path):
    mask = GREY > 100
    Image.fromarray(mask).save(tmp_path / "fax.tif", compression="group4")
    assert np.array_equal(rows(tmp_path / "fax.tif"), mask.astype(np.uint8))
    for name in ("a.png", "a.tif"):
        Image.fromarray(mask).save(tmp_path / name)
        assert np.array_equal(rows(tmp_path / name), mask.astype(np.uint8)), name
    assert read(tmp_path / "a.png").array.dtype == np.uint8


@pytest.mark.parametrize("name", ["scan{}.png", "scan{}.tif"])
def test_a_palette_is_colours_or_label_ids(tmp_path, name):
    ids = (GREY % 3).astype(np.uint8)
    image = Image.new("P", (30, 20))
    image.putpalette([0, 0, 0, 255, 0, 0, 0, 128, 255])
    image.putdata(ids.ravel().tolist())
    picture, labels = tmp_path / name.format(""), tmp_path / name.format("_labels")
    image.save(picture)
    image.save(labels)
    colours = read(picture)
    assert colours.rgb
    assert rows(picture)[0, 1].tolist() == [255, 0, 0]
    found = read(labels)
    assert found.is_labels
    assert np.array_equal(rows(labels), ids)
    assert found.label_colors[1] == pytest.approx((1, 0, 0, 1))
    assert found.label_colors[2] == pytest.approx((0, 128 / 255, 1, 1))
    assert np.array_equal(rows(picture, labels=True), ids)
    assert read(labels, labels=False).rgb


def test_names_of_ids_beside_a_mask(tmp_path):
    Image.fromarray((GREY > 100).astype(np.uint8)).save(tmp_path / "liver.png")
    (tmp_path / "liver.labels.json").write_text('{"1": "liver"}')
    assert read(tmp_path / "liver.png").label_names == {1: "liver"}


@pytest.mark.parametrize(
    ("dpi", "spacing"),
    [(254, 0.1), (508, 0.05), (72, 1), (96, 1), (300, 1), (1, 1)],
)
@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif"])
def test_densities(tmp_path, name, dpi, spacing):
    path = tmp_path / name
    Image.fromarray(GREY).save(path, dpi=(dpi, dpi))
    volume = read(path)
    assert volume.spacing[1] == pytest.approx(spacing, rel=2e-3)
    said = " ".join(volume.notes)
    assert "dpi" in said
    assert ("1 mm is assumed" in said) == (spacing == 1)
    stated = read(path, spacing=(0.3, 0.4))
    assert stated.source.affine.diagonal()[:2] == pytest.approx([-0.3, -0.4])


def test_centimetres_and_two_densities(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, GREY, resolution=(200, 100), resolutionunit="CENTIMETER")
    assert read(path).source.affine.diagonal()[:2] == pytest.approx([-0.05, -0.1])


def test_without_any_size(tmp_path):
    Image.fromarray(GREY).save(tmp_path / "a.png")
    assert "no spacing along i and j; 1 mm is assumed" in notes(tmp_path / "a.png")
    tifffile.imwrite(tmp_path / "a.tif", np.stack([GREY] * 3), photometric="minisblack")
    assert "i and j and k" in notes(tmp_path / "a.tif")


STACK = np.stack([GREY + n for n in range(5)])


def test_pages_are_slices_and_mapped(tmp_path):
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as writer:
        for plane in STACK:
            writer.write(plane, photometric="minisblack", contiguous=False, metadata=None)
    volume = read(path, spacing=(0.5, 0.6, 3))
    assert np.array_equal(to_file_order(volume.array, volume.source), STACK.transpose(2, 1, 0))
    assert volume.spacing == pytest.approx((3, 0.5, 0.6))
    assert "pages are read as slices" in " ".join(volume.notes)
    for big in (False, True):
        for order in "<>":
            tifffile.imwrite(
                path, DEEP[None] + STACK, bigtiff=big, byteorder=order, photometric="minisblack"
            )
            volume = read(path)
            assert np.array_equal(
                to_file_order(volume.array, volume.source), (DEEP[None] + STACK).transpose(2, 1, 0)
            )
            assert volume.array.dtype == np.uint16
            if order == "<":
                assert isinstance(volume.array, np.memmap)
                assert not volume.array.flags.writeable


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_compressed_by_libtiff(tmp_path, compression):
    pages = [Image.fromarray(plane) for plane in STACK]
    path = tmp_path / "a.tif"
    pages[0].save(path, save_all=True, append_images=pages[1:], compression=compression)
    assert np.array_equal(file_array(path), STACK.transpose(2, 1, 0))
    Image.fromarray(DEEP).save(path, compression=compression)
    assert np.array_equal(rows(path), DEEP)


def test_compressed_as_jpeg_inside_tiff(tmp_path):
    path = tmp_path / "a.tif"
    Image.fromarray(COLOUR).save(path, compression="jpeg", quality=95)
    assert np.array_equal(rows(path), np.asarray(Image.open(path)))


def test_imagej(tmp_path):
    data = np.arange(3 * 4 * 2 * 20 * 30, dtype=np.uint16).reshape(3, 4, 2, 20, 30)
    path = tmp_path / "a.tif"
    tifffile.imwrite(
        path,
        data,
        imagej=True,
        resolution=(1 / 0.5, 1 / 0.25),
        metadata={
            "axes": "TZCYX", "spacing": 3.0, "unit": "mm", "finterval": 2.5, "min": 5, "max": 90,
        },
    )  # fmt: skip
    volume = read(path)
    assert volume.source.axes == "ijktc"
    assert np.array_equal(to_file_order(volume.array, volume.source), data.transpose(4, 3, 1, 0, 2))
    assert volume.source.affine.diagonal()[:3] == pytest.approx([-0.5, -0.25, 3])
    assert volume.time_step == (2.5, "s")
    assert volume.window == (5, 90)


@pytest.mark.parametrize(
    ("unit", "factor"), [("um", 1e-3), ("micron", 1e-3), ("cm", 10), ("inch", 25.4)]
)
def test_imagej_units(tmp_path, unit, factor):
    path = tmp_path / "a.tif"
    tifffile.imwrite(
        path, STACK, imagej=True, resolution=(2, 4), metadata={"spacing": 3, "unit": unit}
    )
    assert read(path).spacing == pytest.approx((3 * factor, 0.5 * factor, 0.25 * factor))


def test_imagej_times(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", STACK, imagej=True, metadata={"axes": "TYX"})
    volume = read(tmp_path / "a.tif")
    assert volume.axes == "tzyx"
    assert volume.array.shape == (5, 1, 30, 20)


def test_ome(tmp_path):
    data = np.arange(2 * 4 * 20 * 30, dtype=np.int16).reshape(2, 4, 20, 30)
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(
        path,
        data,
        ome=True,
        metadata={
            "axes": "TZYX",
            "PhysicalSizeX": 500,
            "PhysicalSizeY": 0.7,
            "PhysicalSizeYUnit": "mm",
            "PhysicalSizeZ": 0.3,
            "PhysicalSizeZUnit": "cm",
            "TimeIncrement": 40,
            "TimeIncrementUnit": "ms",
        },
    )
    volume = read(path)
    assert np.array_equal(to_file_order(volume.array, volume.source), data.transpose(3, 2, 1, 0))
    assert volume.source.affine.diagonal()[:3] == pytest.approx([-0.5, -0.7, 3])
    assert volume.time_step == (40, "ms")


def test_rgb_stack_and_separate_planes(tmp_path):
    data = np.stack([COLOUR, COLOUR // 2])
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, data, photometric="rgb")
    assert read(path).rgb
    assert np.array_equal(file_array(path), data.transpose(2, 1, 0, 3))
    tifffile.imwrite(path, data.transpose(0, 3, 1, 2), photometric="rgb", planarconfig="separate")
    assert np.array_equal(file_array(path), data.transpose(2, 1, 0, 3))


def test_counted_from_white(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", GREY, photometric="miniswhite")
    assert np.array_equal(rows(tmp_path / "a.tif"), 255 - GREY)
    assert "from white" in notes(tmp_path / "a.tif")


def test_a_large_stack_is_not_loaded(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.memmap(
        path, shape=(400, 1000, 1000), dtype=np.uint16, photometric="minisblack"
    ).flush()
    volume = read(path, spacing=(1, 1, 2))
    assert isinstance(volume.array, np.memmap)
    assert volume.array.shape == (400, 1000, 1000)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(path: Path, width: int, height: int, data: bytes, bits: int = 8, kind: int = 0) -> Path:
    head = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )
    return path


def saved(path: Path, image: Image.Image) -> Path:
    image.save(path)
    return path


def tiff(path: Path, pixels: np.ndarray, **options: object) -> Path:
    tifffile.imwrite(path, pixels, photometric="minisblack", **options)
    return path


def cut(path: Path, share: float) -> Path:
    raw = path.read_bytes()
    path.write_bytes(raw[: int(len(raw) * share)])
    return path


def claim_in_tiff(path: Path) -> Path:
    tifffile.imwrite(path, GREY, metadata=None)
    raw = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as tif:
        for tag in (256, 257):
            raw[tif.pages[0].tags[tag].valueoffset : tif.pages[0].tags[tag].valueoffset + 2] = (
                b"\xff\xff"
            )
    path.write_bytes(bytes(raw))
    return path


NOISE = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
BAD = {
    "not a picture": ("a.png", lambda p: (p.write_bytes(b"hello, world"), p)[1], "not a PNG"),
    "huge claim": (
        "a.png",
        lambda p: png(p, 30000, 30000, zlib.compress(b"0" * 99)),
        "allows at most",
    ),
    "beyond the limit": ("a.png", lambda p: png(p, 2**30, 2**30, b""), "GiB in memory"),
    "no pixels": ("a.png", lambda p: png(p, 0, 10, b""), "is empty"),
    "cut PNG": ("a.png", lambda p: cut(saved(p, Image.fromarray(NOISE)), 0.5), "allows at most"),
    "cut header": (
        "a.png",
        lambda p: cut(saved(p, Image.fromarray(NOISE)), 0.006),
        "within its header",
    ),
    "cut JPEG": ("a.jpg", lambda p: cut(saved(p, Image.fromarray(NOISE)), 0.7), "as a JPEG"),
    "CMYK": ("a.jpg", lambda p: saved(p, Image.new("CMYK", (9, 9))), "kind CMYK"),
    "CMYK TIFF": ("a.tif", lambda p: saved(p, Image.new("CMYK", (9, 9))), "kind SEPARATED"),
    "cut TIFF": ("a.tif", lambda p: cut(saved(p, Image.fromarray(NOISE)), 0.6), "."),
    "claim in TIFF": ("a.tif", claim_in_tiff, "."),
    "complex": (
        "a.tif",
        lambda p: tiff(p, np.ones((4, 5), np.complex64)),
        "type complex64",
    ),
    "too many axes": (
        "a.tif",
        lambda p: tiff(p, np.ones((2, 3, 4, 5, 6), "f4"), metadata={"axes": "RPTYX"}),
        "axes that no scan has",
    ),
}


@pytest.mark.parametrize(("name", "make", "sentence"), BAD.values(), ids=BAD.keys())
def test_refused_in_one_sentence(tmp_path, name, make, sentence):
    path = make(tmp_path / name)
    with pytest.raises(SpadError, match=sentence) as caught:
        read(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert message.endswith(".")
    assert "\n" not in message
    assert "expected" in message


def test_two_numbers_do_not_do_for_a_stack(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", STACK, photometric="minisblack")
    with pytest.raises(SpadError, match="only two numbers"):
        read(tmp_path / "a.tif", spacing=(1, 1))
