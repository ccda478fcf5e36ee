"""What a session of clicks tells whoever shows or keeps it."""

from __future__ import annotations

from qtpy.QtCore import QObject, Signal


class ClickSignals(QObject):
    """The signals of a session; its parts emit them too."""

    changed = Signal()
    """Objects, prompts, voxels, the active object or what is under way has changed."""
    logged = Signal()
    """The log has another step, or an object another name."""
    said = Signal(str)
    refused = Signal(str)
    previewed = Signal(object)
    """A first answer: (label, part); None once it is replaced."""
    answered = Signal(float, float)
    """A click was answered: seconds in all, and in the worker."""
    looked_ahead = Signal(str)
    """What looking ahead does; "" once it has ended."""
    doubted = Signal(object)
    """Doubtful voxels of the array, the worst first."""
    failed = Signal(str, object)
    """A job failed: why, and what tries again."""
