"""Scan to soft tokens and back, window by window: no model sees a large scan all at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from spad.data.frames import coarser_affine
from spad.data.model_input import UnitVolume
from spad.device import inference
from spad.errors import SpadError
from spad.inference.models import parameters_device
from spad.inference.stages import share
from spad.inference.windows import Windows
from spad.models.tokenizer import Tokenizer
from spad.models.vit import MaskedImageModel, SpatialViT
from spad.progress import Progress
from spad.volumes.anisotropy import FLAT

TOKENIZER_WINDOW = (8, 16, 16)
TOKENIZER_OVERLAP = (2, 4, 4)
MASKING_WINDOW = (4, 8, 8)
MASKING_OVERLAP = (2, 4, 4)
"""In tokens, as (depth, height, width). A masked-image model knows places in windows no larger than
those it was trained on: in larger ones the shipped one does worse than the mean distribution."""
STRETCH = 1.25
"""A window of the tokenizer may be longer by this, where one then does for two."""
FLAT_STRETCH = 3
"""How much wider its windows are on 2D images, which have no depth to fill them."""
SMALLEST = 1e-12
"""Probabilities below this count as this where a logarithm is taken."""


@dataclass(frozen=True, eq=False)
class TokenGrid:
    """The tokens of a scan.

    Attributes:
        shape: tokens along depth, height and width.
        factors: voxels in a token along the same axes.
        size: voxels of the scan's working grid; the last tokens may reach beyond it.
        da: degree of anisotropy.
        affine: (4, 4), index of a token to RAS+ mm of its centre.
    """

    shape: tuple[int, int, int]
    factors: tuple[int, int, int]
    size: tuple[int, int, int]
    da: int
    affine: np.ndarray

    def windows(self, window: Sequence[int], overlap: Sequence[int], cut: int = 1) -> Windows:
        """Lay windows of tokens, `cut` times smaller; slices of 2D images never share one."""
        window = [max(1, n // cut) for n in window]
        overlap = [n // cut for n in overlap]
        if self.da == FLAT:
            window, overlap = [1, *window[1:]], [0, *overlap[1:]]
        return Windows(self.shape, window, overlap)

    def voxels(self, cells: Sequence[slice]) -> tuple[slice, slice, slice]:
        """The voxels of a box of tokens (cut off at the scan's far end)."""
        z, y, x = (
            slice(c.start * f, min(c.stop * f, n))
            for c, f, n in zip(cells, self.factors, self.size, strict=True)
        )
        return z, y, x


@dataclass(frozen=True, eq=False)
class Tokens:
    """Soft tokens of a scan.

    Attributes:
        probabilities: (z, y, x, K) float32.
        position_information: mean over a window's positions of H(mean over windows) - mean H, in
            nats; None where there is only one window.
    """

    probabilities: np.ndarray
    position_information: float | None


def token_grid(unit: UnitVolume, factors: Sequence[int]) -> TokenGrid:
    """Lay the grid of tokens over a scan; it starts at the scan's outer edge."""
    z, y, x = (-(-n // f) for n, f in zip(unit.frame.size, factors, strict=True))
    fz, fy, fx = (int(f) for f in factors)
    return TokenGrid(
        shape=(z, y, x),
        factors=(fz, fy, fx),
        size=unit.frame.size,
        da=unit.da,
        affine=coarser_affine(unit.affine, factors),
    )


def encode(
    model: Tokenizer, unit: UnitVolume, grid: TokenGrid, progress: Progress, cut: int = 1
) -> Tokens:
    """Tokenize a scan.

    Each token is taken from the window in which it lies most central.

    Args:
        model: the tokenizer, on its device.
        unit: the scan in [0, 1].
        grid: of `token_grid`.
        progress: told at each window.
        cut: by how much windows are smaller than usual.
    """
    windows = _tokenizer_windows(grid, cut)
    probabilities = np.empty((*grid.shape, model.codes), np.float32)
    mean: np.ndarray | None = None
    entropies = 0.0
    for number, window in enumerate(windows):
        part = share(progress, number / len(windows), (number + 1) / len(windows))
        part(0, "Encoding")
        x = _tensor(model, unit, grid.voxels(window.cells))
        with inference(x.device, exact=True), stoppable(model, part, "Encoding"):
            found = model.probabilities(x, grid.da)[0].float().cpu().numpy()
        probabilities[window.owned] = found[window.owned_inside]
        mean = found.astype(np.float64) if mean is None else mean + found
        entropies += float(entropy(found).mean())
    information = None
    if mean is not None and len(windows) > 1:
        at_position = float(entropy(mean / len(windows)).mean())
        information = at_position - entropies / len(windows)
    return Tokens(probabilities, information)


def decode(
    model: Tokenizer,
    probabilities: np.ndarray,
    unit: UnitVolume,
    grid: TokenGrid,
    progress: Progress,
    cut: int = 1,
    *,
    exact: bool = True,
) -> np.ndarray:
    """Reconstruct a scan from its soft tokens.

    Args:
        model: the tokenizer, on its device.
        probabilities: (z, y, x, K).
        unit: the scan in [0, 1], for its contract and its colours.
        grid: of `token_grid`, or of a slab of it.
        progress: told at each window.
        cut: by how much windows are smaller than usual.
        exact: whether to stay in float32; else the quicker bfloat16 where the device computes it.

    Returns:
        (D, H, W), or (C, D, H, W) of a scan in colours, float32 in [0, 1]; the windows are blended,
        so they leave no seams.
    """
    windows = _tokenizer_windows(grid, cut)
    blend = windows.weights(grid.size, grid.factors, gaussian=False)
    image = np.zeros((*unit.array.shape[:-3], *grid.size), np.float32)
    device = parameters_device(model)
    for number, window in enumerate(windows):
        part = share(progress, number / len(windows), (number + 1) / len(windows))
        part(0, "Decoding")
        voxels = blend.voxels(window)
        size = [s.stop - s.start for s in voxels]
        p = torch.from_numpy(np.ascontiguousarray(probabilities[window.cells]))[None].to(device)
        with inference(device, exact=exact), stoppable(model, part, "Decoding"):
            decoded = model.decode(p, grid.da, size)[0].float()
            decoded = decoded if image.ndim == 4 else decoded.mean(0)
            values = decoded.cpu().numpy()
        image[(..., *voxels)] += unit.contract.from_model(values) * blend.of(window)
    return np.clip(image, 0, 1, out=image)


def slab_of(grid: TokenGrid, axis: int, voxel: int, margin: int) -> tuple[TokenGrid, slice, int]:
    """Give the part of a grid that decodes one slice.

    Args:
        grid: the whole grid.
        axis: through which the slices lie: 0 depth, 1 height, 2 width.
        voxel: the slice.
        margin: tokens on either side that the decoder sees with it.

    Returns:
        The slab's grid, its tokens along the axis, and the slice's number in the slab.
    """
    factor, token = grid.factors[axis], voxel // grid.factors[axis]
    start, stop = max(0, token - margin), min(grid.shape[axis], token + margin + 1)
    shape, size = np.array(grid.shape), np.array(grid.size)
    shape[axis] = stop - start
    size[axis] = min(stop * factor, grid.size[axis]) - start * factor
    z, y, x = shape.tolist()
    part = replace(grid, shape=(z, y, x), size=tuple(size.tolist()))
    return part, slice(start, stop), voxel - start * factor


def sharpened(probabilities: np.ndarray, temperature: float, top_k: int | None) -> np.ndarray:
    """Make soft tokens harder or softer.

    Args:
        probabilities: (..., K).
        temperature: t > 0; probabilities become proportional to p^(1/t).
        top_k: how many codes each token keeps, the likeliest; None for all.

    Returns:
        (..., K) float32, each token's summing to one; the array itself where nothing changes.

    Raises:
        SpadError: the temperature is not positive, or no code is kept.
    """
    if not temperature > 0 or (top_k is not None and top_k < 1):
        raise SpadError(
            f"The temperature is {temperature} and {top_k} codes are to be kept; give a "
            "temperature above 0 and at least one code."
        )
    codes = probabilities.shape[-1]
    if temperature == 1 and (top_k is None or top_k >= codes):
        return probabilities
    p = torch.from_numpy(np.ascontiguousarray(probabilities)).float()
    if top_k is not None and top_k < codes:
        kept, where = p.topk(top_k, dim=-1)
        p = torch.zeros_like(p).scatter_(-1, where, kept)
    # relative to the likeliest code, so that no power underflows where it matters
    p = (p / p.amax(-1, keepdim=True)).pow_(1 / temperature)
    return np.asarray((p / p.sum(-1, keepdim=True)).numpy())


@contextmanager
def stoppable(model: nn.Module, progress: Progress, text: str) -> Iterator[None]:
    """Let a job be cancelled between the layers of a model, not only between its windows."""
    layers = [module for module in model.modules() if not list(module.children())]
    done = 0

    def hear(*_: object) -> None:
        nonlocal done
        progress(min(done / len(layers), 1.0), text)
        done += 1

    handles = [layer.register_forward_pre_hook(hear) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def predict(
    model: MaskedImageModel,
    unit: UnitVolume,
    grid: TokenGrid,
    masked: np.ndarray,
    progress: Progress,
    cut: int = 1,
) -> np.ndarray:
    """Let a masked-image model predict the hidden tokens.

    Args:
        model: on its device.
        unit: the scan in [0, 1].
        grid: of `token_grid`.
        masked: (z, y, x) booleans, True where hidden.
        progress: told at each window.
        cut: by how much windows are smaller than usual.

    Returns:
        (N, K) float32 probabilities of the hidden tokens, in C order.
    """
    windows = grid.windows(MASKING_WINDOW, MASKING_OVERLAP, cut)
    numbers = np.full(grid.shape, -1)
    numbers[masked] = np.arange(np.count_nonzero(masked))
    predicted: np.ndarray | None = None
    for number, window in enumerate(windows):
        progress(number / len(windows), "Filling in")
        wanted = masked[window.owned]
        if not wanted.any():
            continue
        x = _tensor(model.vit, unit, grid.voxels(window.cells))
        hidden = np.ascontiguousarray(masked[window.cells])
        with inference(x.device, exact=True):
            logits = model(x, grid.da, torch.from_numpy(hidden.reshape(1, -1)).to(x.device))
            found = torch.softmax(logits[0].float(), dim=-1).cpu().numpy()
        found = found.reshape(*hidden.shape, -1)[window.owned_inside]
        if predicted is None:
            predicted = np.empty((np.count_nonzero(masked), found.shape[-1]), np.float32)
        predicted[numbers[window.owned][wanted]] = found[wanted]
    assert predicted is not None
    return predicted


def entropy(probabilities: np.ndarray) -> np.ndarray:
    """Entropy over the last axis in nats; codes without probability add nothing."""
    p = np.asarray(probabilities)
    return np.asarray(-(p * np.log(np.maximum(p, SMALLEST))).sum(-1))


def cross_entropy(wanted: np.ndarray, predicted: np.ndarray) -> float:
    """Mean over tokens of -sum wanted * log predicted, in nats.

    Args:
        wanted: (N, K) probabilities.
        predicted: (N, K) or (K,) probabilities; those below 1e-12 count as 1e-12.
    """
    log = np.log(np.maximum(predicted, SMALLEST))
    return float(-(wanted * log).sum(-1, dtype=np.float64).mean())


def _tokenizer_windows(grid: TokenGrid, cut: int) -> Windows:
    """Lay the tokenizer's windows; 17 tokens are one window of 17, not two of 16."""
    wider = FLAT_STRETCH if grid.da == FLAT else 1
    sides = [
        n if cut == 1 and n <= STRETCH * wider * side else wider * side
        for n, side in zip(grid.shape, TOKENIZER_WINDOW, strict=True)
    ]
    return grid.windows(sides, TOKENIZER_OVERLAP, cut)


def _tensor(
    model: Tokenizer | SpatialViT, unit: UnitVolume, voxels: tuple[slice, slice, slice]
) -> torch.Tensor:
    """A window as the model takes it: (1, C, D, H, W), a gray scan in every channel."""
    window = unit.contract.to_model(unit.array[(..., *voxels)])
    x = torch.from_numpy(window).to(parameters_device(model))
    return x.expand(1, model.in_channels, *x.shape[-3:])
