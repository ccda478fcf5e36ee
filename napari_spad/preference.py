"""Which reader napari takes: its own also claims medical suffixes, so it asks at each file."""

from __future__ import annotations

from napari_spad import notify
from napari_spad.reader import SUFFIXES

_PLUGIN = "napari-spad"


def open_without_asking() -> None:
    """Tell napari (Preferences > Plugins) to open medical scans with this plugin from now on.

    napari's own reader claims NIfTI, NRRD, MetaImage and DICOM too, without their geometry, so
    napari shows a dialog to choose one. A choice of another plugin that a person made for one of
    these suffixes stays.
    """
    from napari.settings import get_settings

    settings = get_settings().plugins
    before = dict(settings.extension2reader)
    wanted = [f"*{form}" for suffix in SUFFIXES for form in (suffix, suffix.upper())]
    others = {name: plugin for name, plugin in before.items() if plugin != _PLUGIN}
    ours = {name: _PLUGIN for name in wanted if name not in others}
    # of equally specific patterns ("*.gz", "*.nii.gz") napari takes the first
    settings.extension2reader = ours | before
    kept = sorted(name for name in wanted if name in others)
    words = f" Left as it was: {', '.join(kept)}." if kept else ""
    notify.info(
        "Medical scans open with SPAD from now on; Preferences > Plugins lists the suffixes and "
        f"takes them back.{words}"
    )
