"""Scans and labels in plain folders, paired by their names; the Synapse BTCV download is one."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

from spad.data.cases import Case, Folder
from spad.data.pairs import in_patients, is_labels_name, pair_key, without_roles
from spad.data.sidecars import label_names_of
from spad.errors import SpadError
from spad.volumes.files import stem_of, suffix_of

SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".seg.nrrd", ".seg.nhdr", ".mha", ".mhd")
BTCV_NAMES = dict(
    enumerate(
        (
            *("spleen", "right_kidney", "left_kidney", "gallbladder", "esophagus", "liver"),
            *("stomach", "aorta", "inferior_vena_cava", "portal_and_splenic_veins", "pancreas"),
            *("right_adrenal_gland", "left_adrenal_gland"),
        ),
        1,
    )
)
"""Of "Beyond the Cranial Vault" (MICCAI 2015), https://www.synapse.org/Synapse:syn3193805."""

_BTCV = re.compile(
    r"(.*/)?(label/label\d{4}|averaged-training-labels/\w+_avg(_seg)?)\.nii(\.gz)?", re.IGNORECASE
)


def find(path: Path) -> Folder | None:
    """Pair the scans and labels of a folder and, where it has none itself, of those below it.

    Scan and labels are `img<ID>` and `label<ID>`, `<case>` and `<case>_seg` (`_labels`, `_mask`),
    or lie in `images` and `labels` under one name. None where there is no scan.

    Raises:
        SpadError: `labels.json` is wrong, or two labels files belong to one scan.
    """
    files = sorted(p for p in path.iterdir() if _is_scan(p))
    if any(_is_image(p, path) for p in files):
        known = [p for p in files if p.name.startswith(("img", "label"))]
        if any(_is_image(p, path) for p in known):
            files = known
    else:
        files = [p for p in sorted(path.rglob("*")) if _is_scan(p)]
    images = [p for p in files if _is_image(p, path)]
    if not images:
        return None
    labels = _labels([p for p in files if not _is_image(p, path)], path)
    keys = [_key(image, path) for image in images]
    twice = {key for key, count in Counter(keys).items() if count > 1}
    names, patients = _names(images, path), _patients(images, path)
    cases = tuple(
        Case(
            f"{path.name}/{name}",
            (image,),
            None if key in twice else labels.get(key),
            validation=False,
            patient=f"{path.name}/{patient}" if patient else "",
        )
        for name, image, key, patient in zip(names, images, keys, patients, strict=True)
    )
    drawn = [case.labels.relative_to(path) for case in cases if case.labels]
    return Folder(path, cases, label_names_of(path) or names_by_layout(drawn))


def names_by_layout(labels: Sequence[Path]) -> dict[int, str]:
    """Give the organs of BTCV if all labels of a data set lie and are named as in its download.

    Args:
        labels: their paths below the data set.
    """
    known = bool(labels) and all(_BTCV.fullmatch(path.as_posix()) for path in labels)
    return BTCV_NAMES if known else {}


def _is_scan(path: Path) -> bool:
    return suffix_of(path) in SUFFIXES and not path.name.startswith(".")


def _is_image(path: Path, folder: Path) -> bool:
    """Tell a scan from labels, which a `label<ID>` is whatever the ID."""
    return not (is_labels_name(path.relative_to(folder)) or path.name.startswith("label"))


def _key(path: Path, folder: Path) -> tuple[str, ...]:
    parts = path.relative_to(folder).parts
    name = re.sub(r"^(img|label)(?!s[^a-z])(?=[^\W_])", "", parts[-1])
    return pair_key((*parts[:-1], name))


def _labels(files: Sequence[Path], folder: Path) -> dict[tuple[str, ...], Path]:
    found: dict[tuple[str, ...], list[Path]] = defaultdict(list)
    for path in files:
        found[_key(path, folder)].append(path)
    for paths in found.values():
        if len(paths) > 1:
            said = " and ".join(p.relative_to(folder).as_posix() for p in paths[:2])
            raise SpadError(
                f"{folder} holds {said}, which are labels of one scan by their names; expected one "
                "labels file for each scan; move the others elsewhere."
            )
    return {key: paths[0] for key, paths in found.items()}


def _patients(images: Sequence[Path], folder: Path) -> list[str]:
    """Tell whose scans are, where each lies in a folder of its patient; "" else."""
    parts = [without_roles(image.relative_to(folder).parts) for image in images]
    deep = all(len(one) > 1 for one in parts) and in_patients(parts)
    return [one[0] if deep else "" for one in parts]


def _names(images: Sequence[Path], folder: Path) -> list[str]:
    """Name scans by their paths, if that is enough without folders that say what lies in them."""
    full = [p.relative_to(folder).with_name(stem_of(p)).as_posix() for p in images]
    short = ["/".join(without_roles(tuple(name.split("/")))) for name in full]
    short = [re.sub(r"(^|/)img(?=[^/]*$)", r"\1", name) for name in short]
    return short if len(set(short)) == len(short) else full
