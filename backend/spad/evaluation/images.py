"""How alike two images are; the figures live with inference, whose reports quote them too."""

from __future__ import annotations

from spad.inference.figures import l1, psnr, ssim

__all__ = ["l1", "psnr", "ssim"]
