"""Dice and cross entropy for scans in which only some of the organs were labelled.

Source: PUMIT, arXiv 2312.07630, section "segmentation" (Dice + cross entropy, background included,
deep supervision); an organ that a scan's annotators did not label counts as background there
(marginal loss, arXiv 2007.03868).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from spad.losses.processes import over_processes

ABSENT = -1e4
"""Logit of a class that cannot be: its probability is exactly 0 in float32."""


def merge_unlabelled(logits: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """Add the probability of unlabelled classes to the background.

    Args:
        logits: (B, K, D, H, W).
        known: (B, K) booleans, True for the background and the classes that were labelled in that
            scan.

    Returns:
        Logits of equal shape; an unlabelled class has probability 0.
    """
    to_background = ~known
    to_background[:, 0] = True
    shape = (*known.shape, 1, 1, 1)
    background = logits.masked_fill(~to_background.view(shape), ABSENT).logsumexp(1, keepdim=True)
    rest = logits.masked_fill(~known.view(shape), ABSENT)[:, 1:]
    return torch.cat([background, rest], dim=1)


def dice_cross_entropy(
    logits: torch.Tensor,
    labels: torch.Tensor,
    known: torch.Tensor,
    *,
    complete: bool = False,
    balance: float = 0.0,
) -> torch.Tensor:
    """Mean soft Dice loss over the known classes of all processes' samples, plus cross entropy.

    Args:
        logits: (B, K, D, H, W).
        labels: (B, D, H, W) integers below K.
        known: (B, K) booleans.
        complete: whether all of them are true, which saves asking the device.
        balance: voxels of a class of n voxels count n ** -balance times in the cross entropy. With
            0, the authors', organs of few voxels are learnt very late.
    """
    merged = logits.float() if complete else merge_unlabelled(logits.float(), known)
    log_p = F.log_softmax(merged, dim=1)
    p = log_p.exp().flatten(2)
    flat = labels.flatten(1)
    overlap = torch.zeros_like(p[..., 0]).scatter_add_(1, flat, p.gather(1, flat[:, None])[:, 0])
    present = torch.zeros_like(overlap).scatter_add_(1, flat, torch.ones_like(flat, dtype=p.dtype))
    smooth = 1.0
    voxels = present.sum(0)
    sums = [overlap.sum(0), p.sum((0, 2)) + voxels, known.sum(0).to(p), voxels]
    both, either, annotated, count = over_processes(torch.stack(sums))
    count = count.detach()
    weight = count.clamp(min=1) ** -balance
    weighted = F.nll_loss(log_p, labels, weight, reduction="sum")
    cross_entropy = over_processes(weighted) / (weight * count).sum()
    dice = (2 * both + smooth) / (either + smooth)
    counts = (annotated > 0).to(dice)
    return 1 - (dice * counts).sum() / counts.sum() + cross_entropy


def deep_supervision_loss(
    heads: Sequence[torch.Tensor],
    labels: torch.Tensor,
    known: torch.Tensor,
    *,
    complete: bool = False,
    balance: float = 0.0,
) -> torch.Tensor:
    """Weigh the heads 8 : 4 : 2 : 1, each on the labels at its cells' centres.

    The authors bring coarser logits to the labels' grid instead, which costs several times as much.

    Args:
        heads: logits, the finest first.
        labels: (B, D, H, W).
        known: (B, K) booleans.
        complete: whether all of them are true.
        balance: see `dice_cross_entropy`.
    """
    weights = [2.0**-i for i in range(len(heads))]
    terms = [
        weight
        * dice_cross_entropy(
            *(head, _at_centres(labels, head.shape[-3:]), known),
            complete=complete,
            balance=balance,
        )
        for weight, head in zip(weights, heads, strict=True)
    ]
    return torch.stack(terms).sum() / sum(weights)


def _at_centres(labels: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    if tuple(labels.shape[-3:]) == tuple(size):
        return labels
    picked = F.interpolate(labels[:, None].float(), size=tuple(size), mode="nearest-exact")
    return picked[:, 0].long()
