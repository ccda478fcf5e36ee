"""A session on the labels of a layer, which looks at no more voxels than it must."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from spad.prompts.part import Part, Slices, part_of
from spad.prompts.session import Session


class HeldSession(Session):
    """A session that knows in which box each label lies, so that nothing looks at all voxels."""

    def find_boxes(self) -> None:
        """Look at all voxels."""
        self._counts: dict[int, int] = {}
        found = ndimage.find_objects(self.labels)
        self._boxes: dict[int, Slices] = {
            label: (box[0], box[1], box[2]) for label, box in enumerate(found, 1) if box is not None
        }

    def labels_there(self) -> list[int]:
        """Give the labels that may have voxels."""
        return sorted(self._boxes)

    def box(self, label: int) -> Slices | None:
        """Give a box outside of which a label has no voxel; None if it has none at all."""
        return self._boxes.get(label)

    def count(self, label: int) -> int:
        """Count a label's voxels."""
        if label not in self._counts:
            box = self.box(label)
            found = 0 if box is None else np.count_nonzero(self.labels[box] == label)
            self._counts[label] = int(found)
        return self._counts[label]

    def forget_counts(self, labels: Sequence[int]) -> None:
        """Count these labels anew when they are asked for."""
        for label in labels:
            self._counts.pop(label, None)

    def grow_boxes(self, start: Sequence[int], mask: np.ndarray, values: np.ndarray) -> None:
        """Take note of labels that were written."""
        written = np.where(mask, values, 0)
        for label in np.unique(values[mask]).tolist():
            if not label:
                continue
            part = part_of(written, label)
            assert part is not None
            old = self._boxes.get(label)
            made = []
            for axis, one in enumerate(part.region):
                low, high = one.start + int(start[axis]), one.stop + int(start[axis])
                if old is not None:
                    low, high = min(low, old[axis].start), max(high, old[axis].stop)
                made.append(slice(low, high))
            self._boxes[label] = (made[0], made[1], made[2])

    def part(self, name: str) -> Part | None:
        label = self._object(name).label
        box = self.box(label)
        return None if box is None else part_of(self.labels, label, box)
