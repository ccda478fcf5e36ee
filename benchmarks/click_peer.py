"""One forward pass of nnInteractive's network (random weights) on this device, as a yardstick.

    python benchmarks/click_peer.py [--device cpu] [--side 192]

Needs `pip install nninteractive` in an environment of its own. Its clicks run at least one such
pass; speed does not depend on the weights. The architecture is the one that its package's plans
for the released model state: a residual encoder U-Net (nnU-Net ResEnc-L) on patches of 192 voxels
with the image, the previous mask and six maps of prompts as channels.
"""

from __future__ import annotations

import argparse
import json
import time

import torch
from dynamic_network_architectures.architectures.unet import ResidualEncoderUNet
from torch import nn


def network() -> nn.Module:
    """Build it as nnU-Net's ResEnc-L plans say for 8 channels and 2 classes."""
    return ResidualEncoderUNet(
        input_channels=8,
        n_stages=6,
        features_per_stage=[32, 64, 128, 256, 320, 320],
        conv_op=nn.Conv3d,
        kernel_sizes=[3] * 6,
        strides=[1, 2, 2, 2, 2, 2],
        n_blocks_per_stage=[1, 3, 4, 6, 6, 6],
        num_classes=2,
        n_conv_per_stage_decoder=[1] * 5,
        conv_bias=True,
        norm_op=nn.InstanceNorm3d,
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--side", type=int, default=192)
    parser.add_argument("--repeats", type=int, default=2)
    options = parser.parse_args()
    torch.manual_seed(0)
    place = torch.device(options.device)
    model = network().eval().to(place)
    image = torch.randn(1, 8, *[options.side] * 3, device=place)
    seconds = []
    for _ in range(options.repeats):
        begun = time.perf_counter()
        with torch.inference_mode(), torch.autocast(place.type, torch.bfloat16):
            model(image)
        if place.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begun)
    parameters = sum(p.numel() for p in model.parameters())
    print(
        json.dumps(
            {
                "device": options.device,
                "threads": torch.get_num_threads(),
                "parameters": parameters,
                "side": options.side,
                "seconds": seconds,
            }
        )
    )


if __name__ == "__main__":
    main()
