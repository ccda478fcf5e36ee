"""The adversarial terms: hinge losses, the gate that opens them, and VQGAN's adaptive weight.

Source: PUMIT, arXiv 2312.07630, equation 5 and its threshold; Esser et al. 2021 (adaptive weight).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from spad.losses.processes import over_processes

MOMENTUM = 0.9
START = 0.1
LARGEST = 1e4


def critic_loss(real: torch.Tensor, rebuilt: torch.Tensor) -> torch.Tensor:
    """Hinge loss of a discriminator from its scores of scans and of their reconstructions."""
    return 0.5 * (F.relu(1 - real.float()).mean() + F.relu(1 + rebuilt.float()).mean())


def generator_loss(rebuilt: torch.Tensor) -> torch.Tensor:
    """Minus the mean score of reconstructions."""
    return -rebuilt.float().mean()


class Gate:
    """Lets the adversarial term in only while the discriminator tells the two apart well.

    Open while both the last loss of the discriminator and its moving mean are at most `threshold`.

    Args:
        threshold: the authors' is 0.025; infinity leaves it open.
    """

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold
        self.mean = START
        self.last = START

    @property
    def is_open(self) -> bool:
        """Whether the term counts."""
        return max(self.mean, self.last) <= self.threshold

    def see(self, loss: torch.Tensor) -> None:
        """Take in the discriminator's loss of a step, its mean over all processes."""
        total = torch.stack([loss.detach().float(), torch.ones_like(loss, dtype=torch.float32)])
        value, count = over_processes(total).tolist()
        self.last = value / count
        self.mean = MOMENTUM * self.mean + (1 - MOMENTUM) * self.last


def adaptive_weight(
    rest: torch.Tensor, adversarial: torch.Tensor, last: torch.Tensor
) -> torch.Tensor:
    """Give VQGAN's factor: by how much the other terms pull harder at the decoder's last weight.

    Args:
        rest: the loss without the adversarial term; its graph is kept.
        adversarial: the adversarial term; its graph is kept.
        last: the decoder's last weight.

    Returns:
        A scalar without gradient, 0 to 10 000.
    """
    grads = [
        torch.autograd.grad(term, last, retain_graph=True)[0].float().norm()
        for term in (rest, adversarial)
    ]
    return (grads[0] / (grads[1] + 1e-6)).clamp(0, LARGEST).detach()
