"""What a volume keeps of its DICOM series: enough to refer to each of its slices."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydicom.dataset import Dataset


@dataclass(frozen=True)
class Slice:
    """One image plane of a volume.

    Attributes:
        file: index into `DicomSource.files`.
        frame: number of the frame in a multi-frame file, from 1; None in a single-frame file.
        sop_class_uid: of its file.
        sop_instance_uid: of its file.
        position: ImagePositionPatient, the centre of its first pixel in LPS mm, or None.
        orientation: ImageOrientationPatient, row then column direction, or None.
    """

    file: int
    frame: int | None
    sop_class_uid: str
    sop_instance_uid: str
    position: tuple[float, float, float] | None
    orientation: tuple[float, ...] | None


@dataclass(frozen=True, eq=False)
class DicomSource:
    """The series that a volume was read from, its slices in the order of the file axis k.

    Attributes:
        files: each file once, in the order in which its first slice comes.
        headers: for each file its header without pixels (`dicom.headers.KEYWORDS`: patient,
            study, series, frame of reference, geometry, pixel description, functional groups).
        slices: one tuple per time (one for 3D), each with one `Slice` per index k.
        study_uid: StudyInstanceUID; "" where the file has none (anonymised).
        series_uid: SeriesInstanceUID, or "".
        frame_of_reference_uid: FrameOfReferenceUID, or "".
        modality: Modality, or None.
    """

    files: tuple[Path, ...]
    headers: tuple[Dataset, ...]
    slices: tuple[tuple[Slice, ...], ...]
    study_uid: str
    series_uid: str
    frame_of_reference_uid: str
    modality: str | None

    @property
    def header(self) -> Dataset:
        """Header of the first file."""
        return self.headers[0]

    @property
    def is_multiframe(self) -> bool:
        """Whether slices are frames of larger files."""
        return self.slices[0][0].frame is not None

    def datasets(self) -> list[Dataset]:
        """Give a copy of each file's header with its UIDs filled in, as highdicom wants them.

        SOPClassUID and SOPInstanceUID come from the file's meta elements where an anonymiser has
        emptied them in the data set.
        """
        import copy

        result = []
        uids = {s.file: (s.sop_class_uid, s.sop_instance_uid) for t in self.slices for s in t}
        for index, header in enumerate(self.headers):
            dataset = copy.deepcopy(header)
            dataset.SOPClassUID, dataset.SOPInstanceUID = uids[index]
            result.append(dataset)
        return result
