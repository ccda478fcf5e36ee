"""A patient on a grid: shapes by signed distances in mm, tissues, the walls of the body.

Places are given as (u, v, w): mm to the left, to the back and to the head of a point in the
middle of the body at the height of the kidneys. Sizes and positions follow the mean of portal
venous CT of adults.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Point = tuple[float, float, float]

ORGANS = (
    *("spleen", "right_kidney", "left_kidney", "gallbladder", "esophagus", "liver", "stomach"),
    *("aorta", "inferior_vena_cava", "portal_and_splenic_veins", "pancreas"),
    *("right_adrenal_gland", "left_adrenal_gland"),
)
ORGAN_IDS = {name: index + 1 for index, name in enumerate(ORGANS)}

# tissue: mean and spread between patients, in HU and in units of a T2-weighted SPIR scan
_TISSUES: dict[str, tuple[float, float, float, float]] = {
    "fat": (-103, 5, 75, 20),
    "skin": (10, 10, 130, 30),
    "muscle": (62, 6, 125, 20),
    "cancellous": (185, 40, 190, 40),
    "cortical": (480, 80, 60, 15),
    "disc": (85, 10, 290, 80),
    "cord": (25, 5, 1050, 150),
    "cartilage": (110, 20, 160, 30),
    "lung": (-850, 25, 24, 8),
    "lung_vessel": (20, 40, 90, 30),
    "heart": (135, 20, 210, 50),
    "liver": (96, 14, 360, 45),
    "liver_vessel": (132, 16, 560, 80),
    "spleen": (108, 12, 730, 90),
    "cortex": (142, 20, 700, 80),
    "medulla": (116, 18, 800, 90),
    "sinus": (-45, 25, 240, 90),
    "bile": (12, 6, 1150, 120),
    "esophagus": (48, 10, 230, 60),
    "aorta": (138, 20, 130, 40),
    "cava": (116, 20, 230, 90),
    "portal": (136, 16, 430, 110),
    "pancreas": (90, 13, 430, 50),
    "adrenal": (68, 12, 280, 40),
    "stomach": (72, 10, 390, 60),
    "bowel": (66, 12, 410, 70),
    "gas": (-850, 30, 12, 5),
    "fluid": (16, 10, 950, 180),
    "contrast": (240, 50, 800, 150),
    "stool": (35, 30, 300, 80),
    "meal": (42, 16, 620, 200),
    "table": (-60, 20, 0, 0),
}


class Canvas:
    """A grid on which shapes are painted, later ones over earlier ones.

    Attributes:
        places: u, v and w of each voxel, mm of the reference body, float32.
        edge: mm over which a voxel averages across a surface.
        image: intensities, float32.
        labels: organ ids, uint8.
        outside: voxels outside the body.
    """

    def __init__(self, places: list[np.ndarray], edge: float) -> None:
        self.places = places
        self.edge = edge
        self.image = np.zeros(places[0].shape, np.float32)
        self.labels = np.zeros(places[0].shape, np.uint8)
        self.outside = np.ones(places[0].shape, bool)

    def box(self, low: np.ndarray, high: np.ndarray) -> tuple[slice, ...] | None:
        """Find the part of the grid that can hold places between two corners, if any."""
        inside = np.ones((1, 1, 1), bool)
        for axis in range(3):
            # a quarter of the voxels tells well enough: places change slowly
            place = self.places[axis][::2, ::4, ::4]
            inside = inside & (place > low[axis]) & (place < high[axis])
        slices = []
        for axis, step in enumerate((2, 4, 4)):
            hit = np.flatnonzero(inside.any(axis=tuple(a for a in range(3) if a != axis)))
            if not hit.size:
                return None
            slices.append(slice(max(0, (hit[0] - 1) * step), (hit[-1] + 1) * step + 1))
        return tuple(slices)

    def around(self, low: np.ndarray, high: np.ndarray) -> Region | None:
        """Give the region between two corners, with a margin."""
        margin = 8 + 2 * self.edge
        box = self.box(np.asarray(low) - margin, np.asarray(high) + margin)
        return None if box is None else Region(self, box)

    def whole(self) -> Region:
        """Give the whole grid as a region."""
        return Region(self, tuple(slice(None) for _ in range(3)))


class Region:
    """A block of a canvas: its places, and painting into it."""

    def __init__(self, canvas: Canvas, box: tuple[slice, ...]) -> None:
        self.canvas, self.box = canvas, box
        self.u, self.v, self.w = (place[box] for place in canvas.places)

    def paint(self, distance: np.ndarray, value: float | np.ndarray, organ: int = 0) -> None:
        """Paint where a signed distance (mm) is negative, with a soft edge one voxel wide.

        Args:
            distance: of the region's voxels to the surface, negative inside.
            value: intensity, one or per voxel.
            organ: the label that the voxels inside get; 0 takes theirs away.
        """
        cover = np.float32(0.5) - distance / np.float32(self.canvas.edge)
        np.clip(cover, 0, 1, out=cover)
        image = self.canvas.image[self.box]
        image += cover * (value - image)
        self.canvas.labels[self.box][distance < 0] = organ

    def ellipsoid(self, centre: Point, radii: Point, turn: Point = (0.0, 0.0, 0.0)) -> np.ndarray:
        """Give the distance to an ellipsoid; `turn` in degrees about u, v and w."""
        matrix = (rotation(turn) / np.asarray(radii)[:, None]).astype(np.float32)
        du, dv, dw = self.u - centre[0], self.v - centre[1], self.w - centre[2]
        first = np.zeros_like(du)
        second = np.zeros_like(du)
        for row, radius in zip(matrix, radii, strict=True):
            part = row[0] * du + row[1] * dv + row[2] * dw
            part *= part
            first += part
            second += part / np.float32(radius**2)
        np.sqrt(first, out=first)
        np.sqrt(second, out=second)
        return first * (first - 1) / np.maximum(second, np.float32(1e-6))

    def tube(self, points: np.ndarray, radii: np.ndarray) -> np.ndarray:
        """Give the distance to a tube along points (n, 3) with a radius at each."""
        best = np.full(self.u.shape, np.float32(1e3))
        for a, b, ra, rb in zip(points[:-1], points[1:], radii[:-1], radii[1:], strict=True):
            step = b - a
            length = float(step @ step)
            du, dv, dw = self.u - a[0], self.v - a[1], self.w - a[2]
            along = (step[0] * du + step[1] * dv + step[2] * dw) / np.float32(length)
            np.clip(along, 0, 1, out=along)
            du -= along * step[0]
            dv -= along * step[1]
            dw -= along * step[2]
            distance = np.sqrt(du * du + dv * dv + dw * dw)
            distance -= ra + along * (rb - ra)
            np.minimum(best, distance, out=best)
        return best


def rotation(turn: Point) -> np.ndarray:
    """Give the matrix that turns by degrees about u, then v, then w."""
    a, b, c = np.radians(turn)
    about_u = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_v = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    about_w = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return (about_w @ about_v @ about_u).T


def smooth_max(a: np.ndarray, b: np.ndarray, width: float) -> np.ndarray:
    """Give the larger of two distances, rounded where they meet (intersection of shapes)."""
    blend = np.maximum(np.float32(width) - np.abs(a - b), 0)
    return np.maximum(a, b) + blend * blend / np.float32(4 * width)


def smooth_min(a: np.ndarray, b: np.ndarray, width: float) -> np.ndarray:
    """Give the smaller of two distances, rounded where they meet (union of shapes)."""
    return -smooth_max(-a, -b, width)


@dataclass(frozen=True)
class Anatomy:
    """What differs between patients.

    Attributes:
        scale: size of the body along u, v and w against the reference.
        centre: RAS+ mm of the middle of the scan.
        fat: thickness in mm of the fat under the skin, at the side.
        seed: of all further differences.
    """

    scale: tuple[float, float, float]
    centre: np.ndarray
    fat: float
    seed: int

    @classmethod
    def random(cls, rng: np.random.Generator) -> Anatomy:
        """Draw a patient."""
        size = rng.normal(1, 0.05)
        u, v, w = np.clip(size * rng.normal(1, (0.04, 0.05, 0.03)), 0.85, 1.18)
        centre = np.array([rng.normal(0, 5), rng.normal(0, 5), 28 * w + rng.normal(0, 7)])
        fat = float(np.clip(rng.gamma(2.2, 5.0) + 4, 5, 38))
        return cls((float(u), float(v), float(w)), centre, fat, int(rng.integers(1 << 31)))


class Patient:
    """A patient on the canvas: tissues, the walls of the body, and random differences."""

    def __init__(self, canvas: Canvas, anatomy: Anatomy, modality: str, rng: np.random.Generator):
        self.canvas, self.modality, self.fat = canvas, modality, anatomy.fat
        self.rng = np.random.default_rng(anatomy.seed)
        first = 0 if modality == "CT" else 2
        self.tissue = {
            name: float(np.clip(rng.normal(row[first], row[first + 1]), row[first] * 0.5, None))
            if row[first] > 0
            else float(rng.normal(row[first], row[first + 1]))
            for name, row in _TISSUES.items()
        }
        u, v, w = canvas.places
        swell = 1 - np.float32(0.05) * ((w - 40) / np.float32(110)) ** 2
        swell = np.maximum(swell, np.float32(0.75))
        self.wall = oval(u / swell, (v + 3) / swell, 147, 107)
        self.cavity = oval(u / swell, (v + 13) / swell, 137, 91)
        thick = anatomy.fat * (1 + np.float32(0.35) * v / np.hypot(u, v + 1e-3))
        self.skin = self.wall - thick
        self.dome = self._diaphragm(u, v, w)

    def _diaphragm(self, u: np.ndarray, v: np.ndarray, w: np.ndarray) -> np.ndarray:
        """Give the distance to the diaphragm, negative below it."""
        rise = self.shift(7)
        right = 124 + rise - 54 * ((u + 66) / 80) ** 2 - 44 * ((v + 18) / 80) ** 2
        left = 108 + rise - 52 * ((u - 74) / 72) ** 2 - 42 * ((v + 5) / 80) ** 2
        middle = 104 + rise - 55 * ((u - 2) / 70) ** 2 - 60 * ((v + 42) / 70) ** 2
        height = -smooth_min(smooth_min(-right, -left, 14), -middle, 14)
        return ((w - height) * np.float32(0.8)).astype(np.float32)

    def shift(self, spread: float) -> float:
        """Draw a displacement in mm, at most two spreads."""
        return float(np.clip(self.rng.normal(0, spread), -2 * spread, 2 * spread))

    def size(self, spread: float) -> float:
        """Draw a factor around 1, at most two spreads off."""
        return 1 + self.shift(spread)

    def place(self, point: Point, spread: float) -> Point:
        """Displace a point."""
        u, v, w = (p + self.shift(spread) for p in point)
        return u, v, w

    def within(self, region: Region, distance: np.ndarray, margin: float = 1.0) -> np.ndarray:
        """Keep a shape inside the abdominal cavity and below the diaphragm."""
        inside = np.maximum(self.cavity[region.box], self.dome[region.box]) + np.float32(margin)
        return smooth_max(distance, inside, 5)

    def tube(
        self, points: list[Point], radii: list[float], spread: float = 0.0, steps: int = 4
    ) -> tuple[Region, np.ndarray] | None:
        """Give the region of a curved tube through points and the distance to it."""
        knots = np.array([self.place(p, spread) for p in points], float)
        fine = np.linspace(0, len(knots) - 1, (len(knots) - 1) * steps + 1)
        curve, width = _curve(knots, fine), np.interp(fine, range(len(radii)), radii)
        region = self.canvas.around(curve.min(0) - width.max(), curve.max(0) + width.max())
        return None if region is None else (region, region.tube(curve, width))

    def paint_tube(
        self,
        points: list[Point],
        radii: list[float],
        tissue: str,
        organ: str | None = None,
        spread: float = 0.0,
        steps: int = 4,
    ) -> None:
        """Paint a curved tube of one tissue."""
        found = self.tube(points, radii, spread, steps)
        if found:
            found[0].paint(found[1], self.tissue[tissue], ORGAN_IDS[organ] if organ else 0)


def oval(u: np.ndarray, v: np.ndarray, a: float, b: float) -> np.ndarray:
    """Give the radial distance to an oval that is squarer than an ellipse."""
    x, y = np.abs(u / np.float32(a)), np.abs(v / np.float32(b))
    reach = (x * x * np.sqrt(x) + y * y * np.sqrt(y)) ** np.float32(0.4)
    return np.asarray(np.hypot(u, v) * (1 - 1 / np.maximum(reach, np.float32(1e-3))), np.float32)


def _curve(knots: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Interpolate smoothly through knots (Catmull-Rom)."""
    padded = np.concatenate([2 * knots[:1] - knots[1:2], knots, 2 * knots[-1:] - knots[-2:-1]])
    n = np.minimum(at.astype(int), len(knots) - 2)
    t = (at - n)[:, None]
    p0, p1, p2, p3 = (padded[n + k] for k in range(4))
    return np.asarray(
        0.5
        * (
            2 * p1
            + (p2 - p0) * t
            + (2 * p0 - 5 * p1 + 4 * p2 - p3) * t**2
            + (3 * p1 - p0 - 3 * p2 + p3) * t**3
        )
    )
