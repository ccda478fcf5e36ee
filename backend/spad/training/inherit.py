"""Fine-tuning goes on with the network and the working grid of the model that it starts from."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from spad.checkpoints import zoo
from spad.checkpoints.card import Card
from spad.data.options import DataOptions
from spad.errors import SpadError
from spad.training.recipe import Recipe

_OF_THE_RUN = ("classes", "in_channels")
"""What the scans and labels of a run say of its network."""


def inherited(recipe: Recipe) -> Recipe | None:
    """Take network, working grid, crop and range of CT from the segmenter that a run starts from.

    A network of other widths would take few of its weights, and on another grid organs would have
    sizes that these never saw.

    Returns:
        The recipe with these, or None if it starts from no segmenter.

    Raises:
        SpadError: there is no such model.
    """
    if recipe.init is None or recipe.task != "segmentation":
        return None
    entry = zoo.find(recipe.init)
    if entry.kind != "segmenter":
        return None
    network = {k: v for k, v in entry.card.architecture.items() if k not in _OF_THE_RUN}
    channels = {k: v for k, v in recipe.model.items() if k in _OF_THE_RUN}
    return dataclasses.replace(
        recipe, model=network | channels, data=_contract(recipe.data, entry.card)
    )


def lasting(recipe: Recipe) -> Card | None:
    """Give the card of the model whose labels and modalities a run's model keeps, if it does.

    Raises:
        SpadError: there is no such model.
    """
    if not recipe.same_labels or recipe.init is None:
        return None
    return zoo.find(recipe.init).card


def modality_labels(kept: Card, own: Mapping[str, Sequence[int]]) -> dict[str, list[int]]:
    """Join the labels that count for a modality in a model that is kept, and in a run's scans."""
    return {
        modality: sorted({*ids, *own.get(modality, ())})
        for modality, ids in kept.modality_labels.items()
    }


def with_heritage(card: Card, init: str | None) -> Card:
    """Let a card tell what comes from the model that the run began with.

    Its terms hold for what is made of it, and organs of which it drops small pieces lose them in
    what goes on from it too. A model that is gone when a run is resumed leaves its name.
    """
    if init is None:
        return card
    terms = f"{card.licence} Made from {init}, whose terms hold too"
    try:
        source = zoo.find(init).card
    except SpadError:
        return dataclasses.replace(card, licence=f"{terms}.")
    shares = {source.labels[number]: share for number, share in source.least_piece.items()}
    return dataclasses.replace(
        card,
        licence=f"{terms}: {source.licence}" if source.licence else f"{terms}.",
        least_piece={n: shares[name] for n, name in card.labels.items() if name in shares},
    )


def _contract(data: DataOptions, card: Card) -> DataOptions:
    grid = card.working_spacing or {}
    ct = card.intensity.get("CT")
    stated = ct is not None and ct.kind == "window"
    return dataclasses.replace(
        data,
        in_plane_mm=grid.get("in_plane"),
        isotropic=bool(grid.get("isotropic")),
        stated_da=grid.get("da"),
        window=list(card.window or data.window),
        ct_range=[float(ct.low), float(ct.high)] if ct is not None and stated else data.ct_range,
    )
