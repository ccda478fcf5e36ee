"""Alarms: what tells early that a tokenizer will come to nothing.

Source: PUMIT, arXiv 2312.07630, section "prior distribution regularisation", and runs of our own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

FEWEST_USED = 0.05
LEAST_USAGE_ENTROPY = 0.5
MOST_UNDECIDED = 0.999
LEAST_ABOUT_IMAGE = 0.05
DECIDED = 0.5
"""Nats by which tokens are more decided than their mean before it is asked what they tell."""


def collapse(figures: Mapping[str, float], codes: int, tokens: int) -> str | None:
    """Say what is wrong with the codes, in one sentence, or None.

    Args:
        figures: `codes_used` (likeliest code of some token), `usage_entropy` (H of the mean
            distribution), `mean_entropy` (mean H of a token) and `position_information` (mean over
            positions of H(mean over images) - mean H), in nats; the last may be missing.
        codes: size K of the codebook.
        tokens: how many tokens were looked at.
    """
    most = math.log(codes)
    used, usage = figures["codes_used"], figures["usage_entropy"]
    entropy, information = figures["mean_entropy"], figures.get("position_information")
    if usage < LEAST_USAGE_ENTROPY * most:
        return (
            f"The tokenizer uses few codes: the entropy of their mean use is {usage:.2f} nats; "
            f"expected more than {LEAST_USAGE_ENTROPY * most:.2f} of {most:.2f}; raise "
            "--loss.divergence or lower --loss.entropy."
        )
    if entropy > MOST_UNDECIDED * most:
        return (
            f"The tokens tell nothing: their mean entropy is {entropy:.3f} nats of at most "
            f"{most:.3f}; expected tokens that differ; let it learn longer before the regulariser "
            "(--loss.prior_start) or lower --loss.divergence."
        )
    told = usage - entropy
    if information is not None and told > DECIDED and information < LEAST_ABOUT_IMAGE * told:
        return (
            f"The tokens only tell where they are: of {told:.2f} nats they carry "
            f"{information:.3f} about the image; expected at least {LEAST_ABOUT_IMAGE:.0%}; let it "
            "learn longer before the regulariser (--loss.prior_start)."
        )
    if used < FEWEST_USED * min(codes, tokens):
        return (
            f"Only {used:.0f} of {codes} codes are the likeliest of any of {tokens} tokens; "
            f"expected at least {FEWEST_USED * min(codes, tokens):.0f}; raise --loss.divergence or "
            "lower --loss.entropy."
        )
    return None
