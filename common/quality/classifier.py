"""The Fashion-MNIST classifier whose features the distances use, and what it sees in images."""

import copy
import functools
import hashlib
import io
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from common.data import load_fashion_mnist, to_unit_range
from common.quality.features import Features
from common.run.cli import BadInput
from common.run.device import float32_products, place

WEIGHTS = Path(__file__).resolve().parent / "fashion_classifier.pt"
SHA256 = "c2433138be5218da983ca657bdbf7497ba137157037e4f86ac80548d38ea5c51"


class FashionClassifier(nn.Module):
    """A small convolutional classifier; the mean of its last 7 x 7 map, [B, 128], are the features."""

    def __init__(self) -> None:
        super().__init__()

        def block(inputs: int, outputs: int) -> list[nn.Module]:
            return [nn.Conv2d(inputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]

        self.layers = nn.Sequential(
            *block(1, 32),
            nn.MaxPool2d(2),  # [B, 32, 14, 14]
            *block(32, 64),
            nn.MaxPool2d(2),  # [B, 64, 7, 7]
            *block(64, 128),
            *block(128, 128),  # [B, 128, 7, 7]
        )
        self.linear = nn.Linear(128, 10)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """x [B, 1, 28, 28] in [0, 1] -> [B, 128]."""
        return self.layers(x).mean((2, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x [B, 1, 28, 28] in [0, 1] -> logits [B, 10]."""
        return self.linear(self.features(x))


@dataclass(frozen=True)
class Embedding(Features):
    """What the classifier sees in N images: features float64 [N, 128], class probabilities float64 [N, 10]."""

    probabilities: torch.Tensor

    @functools.cached_property
    def class_shares(self) -> torch.Tensor:
        """The shares of the predicted classes, float64 [10]."""
        return torch.bincount(self.probabilities.argmax(1), minlength=10).double() / len(self.probabilities)


@functools.cache
def load_classifier(path: Path = WEIGHTS) -> FashionClassifier:
    """The committed classifier, in evaluation mode.

    Raises:
        BadInput: its file is missing or altered.
    """
    try:
        content = path.read_bytes()
    except OSError as fault:
        raise BadInput(f"{path}: {fault.strerror or fault}; restore it with git checkout") from None
    if hashlib.sha256(content).hexdigest() != SHA256:
        raise BadInput(f"{path}: altered (its SHA-256 sum is not {SHA256[:12]}...); restore it with git checkout")
    classifier = FashionClassifier()
    classifier.load_state_dict(torch.load(io.BytesIO(content), weights_only=True))
    classifier.eval().requires_grad_(False)
    for i in (0, 4, 8, 11):  # a convolution and its batch norm are one convolution in evaluation
        convolution, norm = classifier.layers[i], classifier.layers[i + 1]
        assert isinstance(convolution, nn.Conv2d)
        assert isinstance(norm, nn.BatchNorm2d)
        classifier.layers[i] = fuse_conv_bn_eval(convolution, norm)
        classifier.layers[i + 1] = nn.Identity()
        classifier.layers[i + 2] = nn.ReLU(inplace=True)
    place(classifier, torch.device("cpu"))
    return classifier


@functools.cache
def _classifier_on(device: str) -> FashionClassifier:
    return copy.deepcopy(load_classifier()).to(device)


@torch.no_grad()
def embed(images: torch.Tensor, device: torch.device | str = "cpu") -> Embedding:
    """Features and class probabilities of uint8 images [N, 1, 28, 28], computed and kept on a device; MPS has no
    float64, so the processor takes its place."""
    place = "cpu" if torch.device(device).type == "mps" else str(device)
    classifier, chunk_size = _classifier_on(place), 125 if place == "cpu" else 5000
    with float32_products():
        features = torch.cat(
            [classifier.features(to_unit_range(chunk.to(place))) for chunk in images.split(chunk_size)]
        )
    return Embedding(features.double(), classifier.linear(features).softmax(1).double())


@functools.cache
def reference(split: str, device: str = "cpu") -> Embedding:
    """The embedding of a split of the data set."""
    return embed(load_fashion_mnist(split).images, device)
