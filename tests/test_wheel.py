"""What is built from the repository works far away from it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

import spad
from spad.phantoms import Phantom

ROOT = Path(__file__).parents[1]
MODELS = ("organs-tiny", "tokenizer-tiny", "mim-tiny")
MAX_WEIGHTS = 30e6


def build(folder: Path, target: str, out: Path) -> Path:
    """Build one wheel or sdist of a source tree with the backend that is installed here."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(out)]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    (built,) = out.iterdir()
    return built


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(ROOT, "wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder that holds nothing but the unpacked wheel."""
    folder = tmp_path_factory.mktemp("installed")
    zipfile.ZipFile(wheel).extractall(folder)
    return folder


def run(installed: Path, cwd: Path, *arguments: str) -> str:
    """Run Python with the unpacked wheel before all else, and give what it printed."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(installed),
        "SPAD_HOME": str(cwd / "home"),
    }
    command = [sys.executable, *arguments]
    done = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def names(wheel: Path) -> set[str]:
    return set(zipfile.ZipFile(wheel).namelist())


def test_the_wheel_holds_both_packages_and_nothing_else(wheel: Path):
    assert {name.partition("/")[0] for name in names(wheel)} == {
        "napari_spad",
        "spad",
        "napari_spad-0.1.0.dist-info",
    }


def test_the_wheel_holds_every_file_of_the_packages(wheel: Path):
    for base, package in ((ROOT, "napari_spad"), (ROOT / "backend", "spad")):
        files = {
            path.relative_to(base).as_posix()
            for path in (base / package).rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        }
        assert files <= names(wheel)
    assert "napari_spad/napari.yaml" in names(wheel)
    for recipe in ("tokenizer", "mim", "segmentation"):
        assert f"spad/training/recipes/{recipe}.yaml" in names(wheel)


def test_weights_stay_small(wheel: Path):
    weights = [
        info for info in zipfile.ZipFile(wheel).infolist() if info.filename.endswith(".safetensors")
    ]
    assert {Path(info.filename).stem for info in weights} >= set(MODELS)
    assert sum(info.file_size for info in weights) <= MAX_WEIGHTS


def test_the_sdist_builds_the_same_wheel(wheel: Path, tmp_path: Path):
    sdist = build(ROOT, "sdist", tmp_path / "sdist")
    shutil.unpack_archive(sdist, tmp_path)
    rebuilt = build(tmp_path / sdist.name.removesuffix(".tar.gz"), "wheel", tmp_path / "rebuilt")
    assert names(rebuilt) == names(wheel)


def test_imports_from_the_wheel(installed: Path, tmp_path: Path):
    code = "import napari_spad, spad; print(spad.__file__); print(napari_spad.__file__)"
    for file in run(installed, tmp_path, "-c", code).splitlines():
        assert Path(file).is_relative_to(installed)


def test_the_manifest_is_found_and_all_it_names_exists(installed: Path, tmp_path: Path):
    code = """
from npe2 import PluginManifest
manifest = PluginManifest.from_distribution("napari-spad")
manifest.validate_imports()
print(manifest.package_metadata.version)
for kind in ("readers", "writers", "sample_data", "widgets"):
    print(kind, len(getattr(manifest.contributions, kind) or []))
"""
    version, *counts = run(installed, tmp_path, "-W", "ignore", "-c", code).splitlines()
    assert version == "0.1.0"
    assert [line.split()[0] for line in counts if int(line.split()[1])] == [
        "readers",
        "writers",
        "sample_data",
        "widgets",
    ]


def test_models_are_listed(installed: Path, tmp_path: Path):
    listed = run(installed, tmp_path, "-m", "spad", "models", "list")
    for name in MODELS:
        assert name in listed


def test_a_scan_is_segmented_from_the_wheel(installed: Path, tmp_path: Path, ct_phantom: Phantom):
    spad.write(ct_phantom.image, tmp_path / "scan.nii.gz")
    run(installed, tmp_path, "-m", "spad", "segment", "scan.nii.gz", "--out", "organs.nii.gz")
    scan, organs = spad.read(tmp_path / "scan.nii.gz"), spad.read(tmp_path / "organs.nii.gz")
    assert organs.label_names is not None
    assert "liver" in organs.label_names.values()
    assert organs.array.shape == scan.array.shape
    np.testing.assert_array_equal(organs.affine, scan.affine)
    assert np.any(organs.array)
