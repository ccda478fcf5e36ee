"""Prior-distribution regularisation of soft tokens: all codes used equally, every token decided.

Source: PUMIT, arXiv 2312.07630, equations 2 to 4.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.distributed
import torch.nn.functional as F


@dataclass(frozen=True)
class PriorTerms:
    """What the regulariser sees, in nats; the first two carry gradients.

    Attributes:
        divergence: KL(mean distribution || uniform), 0 when all codes are used equally.
        entropy: mean entropy of a token's distribution, 0 when every token is one code.
        usage_entropy: entropy of the mean distribution, at most ln K.
        position_information: mean over positions of H(mean over images) - mean H: what the codes at
            a position tell about the image. Near 0 while `usage_entropy` is high, tokens only
            encode where they are.
    """

    divergence: torch.Tensor
    entropy: torch.Tensor
    usage_entropy: torch.Tensor
    position_information: torch.Tensor


def prior_terms(logits: torch.Tensor) -> PriorTerms:
    """Compute the regulariser's terms over all positions, images and processes.

    The mean distribution is that of all processes; its gradient flows through the local part.
    Everything is computed from log-probabilities, so a code whose probability underflows gives no
    NaN.

    Args:
        logits: (B, ..., K) of any floating type; the axes between are positions.
    """
    log_p = F.log_softmax(logits.float(), dim=-1).flatten(1, -2)
    p = log_p.exp()
    images, positions, codes = p.shape
    entropies = -(p * log_p).sum(-1)
    log_mean = torch.logsumexp(log_p, dim=(0, 1)) - math.log(images * positions)
    log_all = _mean_over_processes(log_mean.detach())
    local = log_mean.exp()
    usage = local + (log_all.exp() - local).detach()
    negative_entropy = (usage * log_all).sum()
    with torch.no_grad():
        log_at_position = torch.logsumexp(log_p, dim=0) - math.log(images)
        log_at_position = _mean_over_processes(log_at_position)
        at_position = -(log_at_position.exp() * log_at_position).sum(-1)
        information = (at_position - entropies.mean(0)).mean()
    return PriorTerms(
        divergence=negative_entropy + math.log(codes),
        entropy=entropies.mean(),
        usage_entropy=-negative_entropy.detach(),
        position_information=information,
    )


def prior_regulariser(
    terms: PriorTerms, *, divergence_weight: float, entropy_weight: float, warm_up: float = 1.0
) -> torch.Tensor:
    """Weigh the terms: `warm_up * (divergence_weight * KL(mean || U) + entropy_weight * mean H)`.

    Args:
        terms: what `prior_terms` gave.
        divergence_weight: lambda 1 of the paper.
        entropy_weight: lambda 2; the paper's -lambda2 * mean KL(p || U) is this up to a constant.
        warm_up: 0 to 1; rises after the tokenizer has learnt to reconstruct.
    """
    return warm_up * (divergence_weight * terms.divergence + entropy_weight * terms.entropy)


def _mean_over_processes(log_mean: torch.Tensor) -> torch.Tensor:
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return log_mean
    gathered = [torch.empty_like(log_mean) for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather(gathered, log_mean)
    return torch.logsumexp(torch.stack(gathered), dim=0) - math.log(len(gathered))
