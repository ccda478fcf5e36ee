"""The codes of a scan: the token under the cursor, one code and where it occurs, all of them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QFontDatabase, QImage, QPixmap
from qtpy.QtWidgets import QHBoxLayout, QLabel, QPushButton, QSpinBox, QWidget

from napari_spad.tokens import Token, TokenMap, ranges
from napari_spad.widgets.decode import unit_words
from napari_spad.widgets.forms import column, row, text
from napari_spad.widgets.organs import number
from napari_spad.widgets.plots import Mosaic, UsagePlot

_TOP = 5
_TILE_PIXELS = 84
_IDLE = "Move the mouse over a slice; click a voxel to see its code."
_SHOWN_DEAD = 160


class TokenReadout(QWidget):
    """The token under the mouse: place, size, entropy, and its likeliest codes; it never jumps."""

    def __init__(self) -> None:
        super().__init__()
        font = QFontDatabase.systemFont(QFontDatabase.SystemFont.FixedFont)
        self.place = QLabel(_IDLE)
        self.entropy = QLabel(" ")
        self.codes = [QLabel(" ") for _ in range(_TOP)]
        layout = column(self, bare=True)
        layout.setSpacing(1)
        self.place.setWordWrap(True)
        for label in (self.place, self.entropy, *self.codes):
            label.setTextFormat(Qt.TextFormat.PlainText)
            label.setMinimumWidth(1)
            layout.addWidget(label)
        for label in self.codes:
            label.setFont(font)

    def show_token(self, token: Token | None, size: str, codes: int) -> None:
        """Say what a token is; None says that there is none.

        Args:
            token: the token.
            size: its physical size, in words.
            codes: how many codes there are.
        """
        self.place.setText(_IDLE if token is None else place_words(token, size))
        self.entropy.setText(" " if token is None else entropy_words(token.entropy, codes))
        for rank, label in enumerate(self.codes):
            known = token is not None and rank < len(token.codes)
            label.setText(share_words(token, rank) if token is not None and known else " ")


class CodeView(QWidget):
    """One code: what it alone decodes to, and how much it is used; buttons to the next one."""

    picked = Signal(int)

    def __init__(self) -> None:
        super().__init__()
        self.tile = QLabel()
        self.tile.setFixedSize(_TILE_PIXELS, _TILE_PIXELS)
        self.tile.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.tile.setToolTip("What this code alone decodes to (the middle slice of one token)")
        self.words = text("No code is chosen.")
        self.number = QSpinBox()
        self.number.setToolTip("The number of the code")
        self.before = QPushButton("◀")
        self.after = QPushButton("▶")
        self.before.setToolTip("The next more used code")
        self.after.setToolTip("The next less used code")
        for button in (self.before, self.after):
            button.setFixedWidth(34)
        self._ranking = np.zeros(0, int)
        self.number.valueChanged.connect(self.picked)
        self.before.clicked.connect(lambda: self._step(-1))
        self.after.clicked.connect(lambda: self._step(1))
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.tile, 0, Qt.AlignmentFlag.AlignTop)
        side = QWidget()
        lines = column(side, bare=True)
        choose = row(QLabel("Code"), self.number, self.before, self.after)
        choose.addStretch(1)
        lines.addLayout(choose)
        lines.addWidget(self.words)
        lines.addStretch(1)
        layout.addWidget(side, 1)

    def offer(self, ranking: np.ndarray) -> None:
        """Let codes be chosen.

        Args:
            ranking: the codes, the most used first.
        """
        self._ranking = ranking
        self.number.blockSignals(True)
        self.number.setRange(0, len(ranking) - 1)
        self.number.blockSignals(False)
        self.words.setText("No code is chosen: click a voxel, a picture or a bar.")
        self.tile.clear()

    def show_code(self, code: int, words: str, tile: np.ndarray | None) -> None:
        """Show a code.

        Args:
            code: its number.
            words: about its use.
            tile: (height, width[, 3]) in [0, 1], if it is known by now.
        """
        self.number.blockSignals(True)
        self.number.setValue(code)
        self.number.blockSignals(False)
        self.words.setText(words)
        if tile is None:
            self.tile.setText("...")
        else:
            self.tile.setPixmap(pixmap(tile, _TILE_PIXELS))

    def _step(self, by: int) -> None:
        at = int(np.flatnonzero(self._ranking == self.number.value())[0]) + by
        if 0 <= at < len(self._ranking):
            self.picked.emit(int(self._ranking[at]))


class Codebook(QWidget):
    """All codes of a scan: mosaic, use, dead ones; `picked` tells which one a person chooses."""

    picked = Signal(int)

    def __init__(self) -> None:
        super().__init__()
        self.readout = TokenReadout()
        self.code = CodeView()
        self.mosaic = Mosaic()
        self.usage = UsagePlot()
        self.dead = text("Dead codes are listed here.", faint=True)
        self.tokens: TokenMap | None = None
        self.chosen: int | None = None
        self._tiles: np.ndarray | None = None
        layout = column(self, bare=True)
        for widget in (self.readout, self.code, self.mosaic):
            layout.addWidget(widget)
        for source in (self.code, self.mosaic, self.usage):
            source.picked.connect(self.picked)

    def show_tokens(self, tokens: TokenMap) -> None:
        """Show the codes of a scan; no code is chosen."""
        self.tokens, self.chosen, self._tiles = tokens, None, None
        self.usage.show_usage(tokens.usage)
        self.code.offer(tokens.ranking)
        self.mosaic.clear()
        dead = tokens.dead
        self.dead.setText(dead_words(dead, len(tokens.usage)))
        self.dead.setToolTip(ranges(dead.tolist()))

    def show_pictures(self, tiles: np.ndarray) -> None:
        """Show what each code alone decodes to.

        Args:
            tiles: (codes, depth, height, width[, 3]) in [0, 1]; the middle slice is shown.
        """
        if self.tokens is None:
            return
        self._tiles = tiles[:, tiles.shape[1] // 2]
        self.mosaic.show_codes(self._tiles, self.tokens.ranking)
        if self.chosen is not None:
            self.choose(self.chosen)

    def choose(self, code: int) -> None:
        """Show one code and mark it in the plots."""
        if self.tokens is None:
            return
        self.chosen = code
        tile = None if self._tiles is None else self._tiles[code]
        words = code_words(self.tokens, code)
        if tile is not None:
            words += f" {alone_words(tile, self.tokens.answer.report)}"
        self.code.show_code(code, words, tile)
        self.mosaic.mark(code)
        self.usage.mark(code)


def place_words(token: Token, size: str) -> str:
    """Write a token's place and physical size."""
    z, y, x = token.index
    return f"Token ({z}, {y}, {x}), {size}"


def size_words(codes: Any, scan: Any) -> str:
    """Write the physical size of a token: in mm along S-I, A-P and R-L; of a photo in its pixels.

    Args:
        codes: a layer on the token grid.
        scan: that of the scan.
    """
    if scan.rgb:
        sides = np.asarray(codes.scale[-2:]) / np.asarray(scan.scale[-2:])
        return " × ".join(f"{side:.0f}" for side in sides) + " pixels"
    return " × ".join(f"{mm:.1f}" for mm in codes.scale[-3:]) + " mm"


def entropy_words(entropy: float, codes: int) -> str:
    """Write an entropy beside the most that it can be, and how many even codes it equals."""
    even = math.exp(entropy)
    return f"Entropy {entropy:.2f} of {math.log(codes):.2f} nats: as {even:.3g} even codes"


def share_words(token: Token, rank: int) -> str:
    """Write one of a token's codes and its probability, with a bar."""
    p = token.probabilities[rank]
    return f"{token.codes[rank]:>5}  {100 * p:6.2f} % {'█' * round(12 * p)}"


def code_words(tokens: TokenMap, code: int) -> str:
    """Say how much a code is used."""
    rank, count = int(tokens.ranks[code]) + 1, int(tokens.counts[code])
    most = float(tokens.probabilities[..., code].max())
    share = 100 * float(tokens.usage[code])
    how = (
        f"likeliest in {count} of {tokens.codes.size} tokens" if count else "dead: never likeliest"
    )
    return (
        f"Rank {rank} of {len(tokens.usage)}: {share:.2g} % of all tokens; {how}; "
        f"at most {100 * most:.2g} % of a token."
    )


def alone_words(tile: np.ndarray, report: dict[str, Any]) -> str:
    """Say which values a code alone decodes to.

    Args:
        tile: in [0, 1].
        report: of the tokenization, whose `limits` became 0 and 1.
    """
    low, high = report["limits"]
    mean, spread = low + (high - low) * float(tile.mean()), (high - low) * float(tile.std())
    unit = unit_words(report["l1_unit"])
    return f"Alone it decodes to {number(mean, 0)} ± {number(spread, 0)}{unit}."


def dead_words(dead: np.ndarray, codes: int) -> str:
    """List the codes that are the likeliest of no token."""
    if not len(dead):
        return f"No dead codes: each of the {codes} is the likeliest of some token."
    listed = ranges(dead.tolist())
    if len(listed) > _SHOWN_DEAD:
        listed = listed[:_SHOWN_DEAD].rsplit(",", 1)[0] + ", ... (all on hovering)"
    return f"{len(dead)} of {codes} codes are dead (never a token's likeliest): {listed}"


def pixmap(tile: np.ndarray, side: int) -> QPixmap:
    """Make a picture of a tile, its pixels as squares.

    Args:
        tile: (height, width[, 3]) in [0, 1].
        side: pixels of its longer side.
    """
    bytes_ = np.ascontiguousarray(np.rint(np.clip(tile, 0, 1) * 255).astype(np.uint8))
    kind: Any = QImage.Format.Format_RGB888 if tile.ndim == 3 else QImage.Format.Format_Grayscale8
    image = QImage(bytes_.tobytes(), tile.shape[1], tile.shape[0], bytes_.strides[0], kind)
    return QPixmap.fromImage(image).scaled(side, side, Qt.AspectRatioMode.KeepAspectRatio)
