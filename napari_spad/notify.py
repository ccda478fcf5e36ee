"""One sentence to the person in front of the screen."""

from __future__ import annotations

import logging
from collections.abc import Callable

_log = logging.getLogger(__name__)


def error(sentence: str) -> None:
    """Show an error as a napari notification."""
    from napari.utils.notifications import Notification, NotificationSeverity, notification_manager

    _log.info("shown: %s", sentence)
    notification_manager.dispatch(Notification(sentence, NotificationSeverity.ERROR))


def offer(sentence: str, words: str, call: Callable[[], None]) -> None:
    """Show an error with a button that does something about it.

    Args:
        sentence: what happened.
        words: what the button says.
        call: what it does.
    """
    from napari.utils.notifications import Notification, NotificationSeverity, notification_manager

    actions = ((words, lambda _: call()),)
    notification_manager.dispatch(Notification(sentence, NotificationSeverity.ERROR, actions))


def info(sentence: str) -> None:
    """Show good news as a napari notification."""
    from napari.utils.notifications import show_info

    show_info(sentence)
