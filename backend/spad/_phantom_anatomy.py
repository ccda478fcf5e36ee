"""The body that phantoms scan: its organs, one after the other, nearer ones over farther ones."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from spad._phantom_canvas import (
    ORGAN_IDS,
    Anatomy,
    Canvas,
    Patient,
    Point,
    Region,
    oval,
    smooth_max,
    smooth_min,
)


def _spine(w: np.ndarray) -> np.ndarray:
    """Give v of the middle of the vertebral bodies at a height."""
    return np.asarray(np.interp(w, [-160, -60, 0, 60, 150, 220], [30, 33, 39, 46, 59, 66]))


def _front(w: float, gap: float) -> float:
    """Give v of what lies before the spine at a height, with a gap in mm."""
    return float(_spine(np.asarray(w))) - 17 - gap


def draw(canvas: Canvas, anatomy: Anatomy, modality: str, rng: np.random.Generator) -> None:
    """Paint a patient.

    Args:
        canvas: filled in place.
        anatomy: who.
        modality: "CT" or "MR".
        rng: of the tissues' intensities.
    """
    patient = Patient(canvas, anatomy, modality, rng)
    if modality == "CT":
        canvas.image[:] = -1000
    steps: tuple[Callable[[Patient], None], ...] = (
        *(_draw_wall, _draw_chest, _draw_heart, _draw_colon, _draw_small_bowel, _draw_liver),
        *(_draw_spleen, _draw_stomach, _draw_back, _draw_kidneys, _draw_vessels, _draw_pancreas),
        *(_draw_adrenals, _draw_gallbladder),
    )
    for number, step in enumerate(steps):
        # each step draws its own numbers, so that what lies outside a grid changes nothing in it
        patient.rng = np.random.default_rng([anatomy.seed, number])
        step(patient)


def _draw_wall(p: Patient) -> None:
    """Paint skin, fat, muscle, ribs and the fat inside, and the table under a CT."""
    whole, t = p.canvas.whole(), p.tissue
    u, v, w = whole.u, whole.v, whole.w
    if p.modality == "CT":
        table = np.abs(v - (138 + p.fat) - (u / 34) ** 2 * -1) - 3
        whole.paint(np.maximum(table, np.abs(u) - 190), t["table"])
    p.canvas.outside = p.skin > 1
    whole.paint(p.skin, t["skin"])
    whole.paint(p.skin + 2, t["fat"])
    whole.paint(p.wall, t["muscle"])
    whole.paint(p.cavity, t["fat"])
    # ribs rise to the back; from one to the next it is 27 mm
    rib = (w - np.float32(0.45) * v + np.float32(p.shift(5))) / 27
    along = np.abs(rib - np.rint(rib)) * 27 - np.float32(5)
    shell = np.abs((p.wall + p.cavity) / 2) - np.float32(3.2)
    arch = np.maximum(np.maximum(along, shell), -(w - np.float32(0.45) * v + 14))
    arch = np.maximum(arch, 22 - np.abs(u))
    cartilage = v < -62
    whole.paint(arch, np.where(cartilage, t["cartilage"], t["cortical"]).astype(np.float32))


def _draw_chest(p: Patient) -> None:
    """Paint lungs, diaphragm, heart and the fat between the lungs."""
    whole, t = p.canvas.whole(), p.tissue
    u, v = whole.u, whole.v
    above = np.maximum(p.cavity, -p.dome)
    whole.paint(above, t["muscle"])
    lung = np.maximum(p.cavity + 1, 3 - p.dome)
    whole.paint(lung, t["lung"])
    for _ in range(26):
        side = -1 if p.rng.random() < 0.5 else 1
        root = np.array([side * 30, 5, 165])
        tip = root + p.rng.normal(0, 1, 3) * (10, 40, 25) + (side * 65, 10, -25)
        found = p.tube(
            [tuple(root), tuple((root + tip) / 2 + p.rng.normal(0, 8, 3)), tuple(tip)],
            [3.2, 2.2, 0.8],
            steps=2,
        )
        if found:
            region, distance = found
            region.paint(np.maximum(distance, lung[region.box]), t["lung_vessel"])
    middle = oval(u - 6, v + 22, 36, 78)
    whole.paint(np.maximum(above, middle), t["fat"])


def _draw_heart(p: Patient) -> None:
    """Paint the heart on the diaphragm."""
    t = p.tissue
    region = p.canvas.around(np.array([-60, -110, 80]), np.array([110, 40, 250]))
    if not region:
        return
    heart = region.ellipsoid(p.place((26, -46, 146), 5), (62, 44, 46), (0, 25, 20))
    heart = smooth_max(heart, 4 - p.dome[region.box], 6)
    heart = np.maximum(heart, p.cavity[region.box] + 4)
    region.paint(heart - 3, t["fat"])
    region.paint(heart, t["heart"] * 0.9)
    chamber = region.ellipsoid((40, -50, 150), (30, 24, 28), (0, 25, 20))
    region.paint(chamber, t["heart"] * 1.1)
    atrium = region.ellipsoid((-14, -38, 152), (20, 22, 26))
    region.paint(atrium, t["heart"] * 1.05)


def _draw_back(p: Patient) -> None:
    """Paint the muscles beside the spine and the spine."""
    t = p.tissue
    whole = p.canvas.around(np.array([-85, -5, -900]), np.array([85, 140, 900]))
    if whole is None:
        return
    u, w = whole.u, whole.w
    v = whole.v - _spine(w).astype(np.float32)
    keep = p.wall[whole.box] + 2
    for side in (-1, 1):
        psoas = np.maximum(
            oval(u - side * (27 + (20 - w) * np.float32(0.12)), v + 2, 11, 15)
            - np.clip((10 - w) * np.float32(0.07), -9, 6),
            w - 45,
        )
        whole.paint(psoas, t["muscle"])
        quadratus = np.maximum(oval(u - side * 58, v - 17, 19, 9), w - 20)
        whole.paint(np.maximum(quadratus, keep), t["muscle"])
        crus = oval(u - side * 13, v + 20 + np.clip((w - 60) * np.float32(-0.05), -4, 4), 9, 8)
        whole.paint(np.maximum(np.maximum(crus, w - 105), -w - 10), t["muscle"])
        erector = smooth_max(oval(u - side * 32, v - 42, 29, 24), keep, 4)
        whole.paint(erector - 3, t["fat"])
        whole.paint(erector, t["muscle"])
    phase = (w + np.float32(p.shift(8))) / 34
    beat = np.abs(phase - np.rint(phase)) * 34
    body = oval(u, v, 22.5, 17) + np.clip(2.5 - (17 - beat) * np.float32(0.5), 0, 2.5)
    whole.paint(body - np.float32(1.5), t["disc"])
    bone = np.maximum(body, beat - np.float32(13))
    whole.paint(bone, t["cortical"])
    whole.paint(bone + 2, t["cancellous"])
    arch = oval(u, v - 26, 17, 13)
    whole.paint(np.maximum(arch, beat - 15), t["cortical"] * 0.7)
    process = np.maximum(np.maximum(np.abs(u) - 3.5, np.abs(v - 46) - 16), beat - 9)
    whole.paint(process, t["cortical"] * 0.7)
    wings = np.maximum(
        np.maximum(np.abs(u) - 40, np.abs(v - 20 - np.abs(u) * 0.15) - 3.5), beat - 5
    )
    whole.paint(wings, t["cortical"] * 0.7)
    whole.paint(oval(u, v - 25, 10, 8), t["cord"])


def _draw_liver(p: Patient) -> None:
    """Paint the liver: what lies under the right dome, above and before its neighbours."""
    region = p.canvas.around(np.array([-150, -115, -75]), np.array([85, 90, 135]))
    if not region:
        return
    u, v, w = region.u, region.v, region.w
    drop, reach = p.shift(16), p.shift(14)
    knots = [-150, -120, -90, -55, -15, 25, 60, 90]
    lower = np.interp(u - reach / 3, knots, [-46, -36, -10, 16, 34, 58, 84, 120])
    lower += np.interp(u, [-150, -40, 60], [drop, 0.3 * drop, 0]) + 0.16 * v
    back = np.interp(
        u, [-150, -70, -50, -30, -12, 10, 40, 80], [100, 82, 58, 14, -6, -20, -34, -50]
    )
    distance = smooth_max(
        ((lower - w) * 0.8).astype(np.float32), ((v - back) * 0.72).astype(np.float32), 22
    )
    distance = smooth_max(distance, u - np.float32(58 + reach), 14)
    distance = p.within(region, distance, 0.5)
    region.paint(distance, p.tissue["liver"], ORGAN_IDS["liver"])
    _draw_liver_vessels(p, region, distance)


def _draw_liver_vessels(p: Patient, liver: Region, distance: np.ndarray) -> None:
    """Paint hepatic veins and portal branches; they belong to the liver's label."""
    starts: list[tuple[Point, list[Point]]] = [
        ((-20, -18, 100), [(-75, -5, 85), (-60, -55, 82), (5, -50, 88), (-95, 30, 70)]),
        ((-42, -24, 62), [(-95, -20, 50), (-85, 20, 55), (-80, -60, 40), (5, -62, 75)]),
    ]
    for root, tips in starts:
        for tip in tips:
            end = p.place(tip, 8)
            bend = p.place(tuple((np.add(root, end) / 2).tolist()), 6)
            found = p.tube([root, bend, end], [6.0, 4.6, 2.0], steps=2)
            if found:
                region, tube = found
                shape = np.maximum(tube, _crop(liver, distance, region) + 4)
                region.paint(shape, p.tissue["liver_vessel"], ORGAN_IDS["liver"])


def _crop(outer: Region, distance: np.ndarray, inner: Region) -> np.ndarray:
    """Give an outer region's distance on an inner region; far outside where it does not reach."""
    full = np.full(inner.u.shape, np.float32(99))
    take, put = [], []
    for a, b, n in zip(outer.box, inner.box, inner.u.shape, strict=True):
        low, high = max(a.start, b.start), min(a.start + 10**6, b.start + n)
        take.append(slice(low - a.start, high - a.start))
        put.append(slice(low - b.start, high - b.start))
    part = distance[tuple(take)]
    full[tuple(slice(s.start, s.start + n) for s, n in zip(put, part.shape, strict=True))] = part
    return full


def _draw_spleen(p: Patient) -> None:
    """Paint the spleen: a crescent under the left dome."""
    k = p.size(0.09)
    centre = p.place((96, 38, 64), 4)
    region = p.canvas.around(np.array([40, -50, -10]), np.array([150, 95, 140]))
    if not region:
        return
    outer = region.ellipsoid(centre, (44 * k, 54 * k, 56 * k), (12, 0, 0))
    inner = region.ellipsoid((42, 0, centre[2] - 6), (44, 50, 68))
    distance = p.within(region, smooth_max(outer, -inner, 6))
    region.paint(distance - 2.5, p.tissue["fat"])
    region.paint(distance, p.tissue["spleen"], ORGAN_IDS["spleen"])


def _draw_stomach(p: Patient) -> None:
    """Paint the stomach: wall, fluid and, in front, gas."""
    k = float(np.clip(p.rng.normal(1, 0.14), 0.7, 1.25))
    bend = p.shift(8)
    points: list[Point] = [
        *((68, 12, 90), (70, -10, 80), (66, -46, 58), (50, -68, 30 + bend / 2)),
        *((18, -72, 14 + bend), (-12, -60, 18 + bend), (-32, -46, 24)),
    ]
    radii = [30 * k, 35 * k, 32 * k, 27 * k, 21 * k, 16 * k, 10 * k]
    found = p.tube(points, radii, spread=2)
    if not found:
        return
    region, distance = found
    distance = p.within(region, distance)
    region.paint(distance - 2.5, p.tissue["fat"])
    region.paint(distance, p.tissue["stomach"], ORGAN_IDS["stomach"])
    level = -72 + p.shift(10)
    fill = ("contrast", "meal", "fluid")[int(p.rng.choice(3, p=[0.35, 0.4, 0.25]))]
    content = np.where(region.v < level, p.tissue["gas"], p.tissue[fill]).astype(np.float32)
    region.paint(distance + 4.5, content, ORGAN_IDS["stomach"])


def _draw_kidneys(p: Patient) -> None:
    """Paint both kidneys."""
    for side in (-1, 1):
        _draw_kidney(p, side)


def _draw_kidney(p: Patient, side: int) -> None:
    """Paint a kidney: cortex, medulla, and the sinus that opens to the middle and the front."""
    name = "left_kidney" if side > 0 else "right_kidney"
    centre = p.place((70, 32, 5) if side > 0 else (-64, 33, -6), 5)
    k = p.size(0.05)
    turn = (-10.0, side * 13.0, side * 28.0)
    region = p.canvas.around(np.subtract(centre, 70), np.add(centre, 70))
    if not region:
        return
    body = region.ellipsoid(centre, (24 * k, 28 * k, 54 * k), turn)
    body = smooth_max(body, p.wall[region.box] + 18, 6)
    region.paint(body - 5, p.tissue["fat"])
    region.paint(body, p.tissue["cortex"], ORGAN_IDS[name])
    region.paint(body + 7, p.tissue["medulla"], ORGAN_IDS[name])
    hilum = (centre[0] - side * 15, centre[1] - 8, centre[2])
    region.paint(region.ellipsoid(hilum, (13, 7, 17), turn), p.tissue["sinus"])


def _draw_vessels(p: Patient) -> None:
    """Paint aorta, inferior vena cava, portal and splenic veins, and what branches off."""
    sway, k = p.shift(2.5), p.size(0.09)
    heights = [185, 150, 110, 60, 10, -40, -74]
    across = [22, 20, 14, 9 + sway, 9 + sway, 7 + sway, 5]
    aorta: list[Point] = [(u, _front(w, 12), w) for u, w in zip(across, heights, strict=True)]
    cava: list[Point] = [
        *((-18, -24, 128), (-20, -16, 104), (-21, -3, 75), (-21, _front(30, 15), 30)),
        *((-19, _front(-30, 12), -30), (-17, _front(-76, 10), -76)),
    ]
    for side in (-1, 1):
        hilum: Point = (side * 48 + 4, 24, 2 + 4 * side)
        p.paint_tube([(-18 if side < 0 else 0, 0, 8), hilum], [4.5, 4.0], "cava")
        p.paint_tube(
            [(8, _front(5, 12), 5), (hilum[0], hilum[1] + 4, hilum[2])], [2.6, 2.4], "aorta"
        )
        p.paint_tube(
            [(6, _front(-70, 12), -70), (side * 26 + 4, 10, -120), (side * 50, 5, -170)],
            [7, 6, 6],
            "aorta",
        )
        p.paint_tube(
            [(-15, _front(-72, 9), -72), (side * 30 - 4, 18, -120), (side * 52, 12, -170)],
            [8, 7, 7],
            "cava",
        )
    p.paint_tube(
        [(8, _front(32, 12), 32), (5, -22, 26), (4, -30, -10), (0, -38, -60)],
        [4, 3.6, 3.2, 2.5],
        "aorta",
    )
    p.paint_tube([(8, _front(45, 12), 45), (8, -14, 46), (-18, -26, 52)], [3.8, 3.4, 2.5], "aorta")
    p.paint_tube(
        cava,
        [11 * k, 12 * k, 12 * k, 11.5 * k, 10.5 * k, 10 * k],
        "cava",
        "inferior_vena_cava",
        spread=1,
    )
    p.paint_tube(
        aorta,
        [12 * k, 12 * k, 11.5 * k, 10.5 * k, 9.5 * k, 9 * k, 8 * k],
        "aorta",
        "aorta",
        spread=0.8,
    )
    _draw_esophagus(p)


def _draw_esophagus(p: Patient) -> None:
    """Paint the esophagus down to the stomach, with or without air in it."""
    gullet: list[Point] = [
        (5, _front(185, 14), 185),
        (5, _front(150, 22), 150),
        (9, 4, 118),
        (16, -4, 104),
        (34, -8, 94),
        (50, -8, 88),
    ]
    p.paint_tube(gullet, [8, 8, 8, 8, 9, 9], "esophagus", "esophagus", spread=1.2)
    if p.rng.random() < 0.5:
        p.paint_tube(gullet[:3], [2.0, 2.0, 1.6], "gas", "esophagus")


def _draw_pancreas(p: Patient) -> None:
    """Paint duodenum and pancreas, and the splenic and portal veins behind it."""
    duodenum: list[Point] = [
        (-32, -46, 24),
        (-50, -34, 18),
        (-52, -14, -2),
        (-38, -8, -24),
        (-6, -8, -28),
        (24, -14, -16),
        (36, -30, -4),
    ]
    p.paint_tube(duodenum, [11, 12, 12, 12, 10, 10, 11], "bowel", spread=2)
    p.paint_tube(duodenum, [6, 7, 7, 7, 5, 5, 6], "fluid", spread=2)
    lift = p.shift(5)
    gland: list[Point] = [
        (-30, -20, -8),
        (-26, -24, 10),
        (-14, -32, 24),
        (8, -38, 34 + lift),
        (34, -30, 42 + lift),
        (60, -8, 50 + lift),
        (80, 14, 54 + lift),
    ]
    k = p.size(0.08)
    found = p.tube(gland, [r * k for r in (9, 15, 12.5, 9.5, 10.5, 10.5, 8)], spread=2, steps=3)
    a, b, c = p.rng.uniform(0, 6.28, 3)
    if found:
        region, distance = found
        lobes = np.sin(region.u / 3 + a) * np.sin(region.v / 3 + b) * np.sin(region.w / 3.5 + c)
        distance = p.within(region, distance + np.float32(1.6) * lobes)
        region.paint(distance - 2, p.tissue["fat"])
        region.paint(distance, p.tissue["pancreas"], ORGAN_IDS["pancreas"])
    vein: list[Point] = [
        (88, 26, 62),
        (70, 8, 55 + lift),
        (40, -14, 44 + lift),
        (12, -23, 38 + lift),
        (-4, -20, 36),
        (-22, -20, 52),
        (-40, -24, 62),
    ]
    p.paint_tube([(-4, -22, 34), (-3, -26, 5), (0, -34, -40)], [6, 5.5, 4], "portal")
    p.paint_tube(
        vein, [4.4, 5.0, 5.4, 6.2, 8.5, 8, 7.5], "portal", "portal_and_splenic_veins", spread=1
    )


def _draw_adrenals(p: Patient) -> None:
    """Paint both adrenal glands."""
    for side in (-1, 1):
        _draw_adrenal(p, side)


def _draw_adrenal(p: Patient, side: int) -> None:
    """Paint an adrenal gland: two thin limbs that meet in front."""
    name = "left_adrenal_gland" if side > 0 else "right_adrenal_gland"
    apex = p.place((33, 6, 46) if side > 0 else (-27, 14, 54), 2)
    region = p.canvas.around(np.subtract(apex, 30), np.add(apex, 30))
    if not region:
        return
    distance = np.full(region.u.shape, np.float32(99))
    for angle, length in ((-24.0, 14.0), (20.0, 13.0)):
        lean = np.radians(angle + side * 8)
        middle = (apex[0] - np.sin(lean) * 9, apex[1] + np.cos(lean) * 9, apex[2] - 2)
        limb = region.ellipsoid(middle, (2.9, length, 16), (-14, 0, float(np.degrees(lean))))
        distance = smooth_min(distance, limb, 2)
    region.paint(distance - 3.5, p.tissue["fat"])
    region.paint(distance, p.tissue["adrenal"], ORGAN_IDS[name])


def _draw_gallbladder(p: Patient) -> None:
    """Paint the gallbladder under the right lobe."""
    k = float(np.clip(p.rng.normal(1, 0.16), 0.65, 1.4))
    found = p.tube([(-54, -38, 27), (-62, -52, 10), (-70, -66, -10)], [6 * k, 11 * k, 13 * k], 3)
    if found:
        region, distance = found
        distance = p.within(region, distance)
        region.paint(distance - 1.5, p.tissue["muscle"])
        region.paint(distance, p.tissue["bile"], ORGAN_IDS["gallbladder"])


def _draw_colon(p: Patient) -> None:
    """Paint the colon around the bowel: stool below, gas in front."""
    for points, width in (
        ([(-98, 8, -170), (-104, 8, -110), (-106, -4, -60), (-98, -42, -34)], 22),
        ([(-98, -42, -34), (-55, -80, -28), (0, -86, -36), (50, -82, -12), (96, -40, 34)], 18),
        ([(96, -40, 34), (112, 6, 10), (112, 26, -40), (102, 18, -110), (92, 8, -170)], 15),
    ):
        found = p.tube([p.place(q, 4) for q in points], [width] * len(points), steps=3)
        phase, turns = p.rng.uniform(0, 6.28, 3), p.rng.uniform(0, 6.28, 5)
        waves = p.rng.normal(0, 0.22, (5, 3)).astype(np.float32)
        if not found:
            continue
        region, distance = found
        haustra = sum(
            np.sin(place / np.float32(7) + a)
            for place, a in zip((region.u, region.v, region.w), phase, strict=True)
        )
        distance = p.within(region, distance + np.float32(1.2) * np.asarray(haustra))
        region.paint(distance, p.tissue["bowel"])
        crumbs = np.zeros_like(distance)
        for (a, b, c), turn in zip(waves, turns, strict=True):
            crumbs += np.sin(a * region.u + b * region.v + c * region.w + np.float32(turn))
        gas = (distance < -4) & (crumbs + (-30 - region.v) / 20 > 2.2)
        content = np.where(gas, p.tissue["gas"], p.tissue["stool"]).astype(np.float32)
        region.paint(distance + 3, content)


def _draw_small_bowel(p: Patient) -> None:
    """Paint loops of small bowel below stomach and liver."""
    fills = ["fluid", "contrast", "bowel"]
    habit = p.rng.choice(3, p=[0.3, 0.35, 0.35])
    for _ in range(60):
        start = p.rng.uniform((-88, -90, -150), (92, 0, -8))
        if p.rng.random() < 0.25:
            start = p.rng.uniform((30, -80, -20), (100, 0, 35))
        steps = p.rng.normal(0, 1, (3, 3)) * (20, 11, 13)
        points = [tuple(start), *(tuple(start + s) for s in np.cumsum(steps, axis=0))]
        radius, wall = p.rng.uniform(9, 15), p.rng.uniform(2.5, 5)
        fill = fills[habit] if p.rng.random() < 0.7 else fills[int(p.rng.integers(3))]
        found = p.tube(points, [radius] * 4, steps=3)
        if not found:
            continue
        region, distance = found
        distance = p.within(region, distance, 5)
        region.paint(distance - 1.2, p.tissue["fat"])
        region.paint(distance, p.tissue["bowel"])
        region.paint(distance + wall, p.tissue[fill])
