"""Sample quality: distances between images in the features of a Fashion-MNIST classifier, or of a network of ImageNet.

The classifier is ours (`python yardstick.py` trains it); its weights are committed and checksummed, so that numbers are
comparable between machines. The Fréchet distance on its features is not FID, whose features are Inception's; only the
formula is the same. The statistics are computed here and tested against torch-fidelity's.

Sources: Fréchet distance Heusel et al. 2017 (arXiv 1706.08500); KID Binkowski et al. 2018 (arXiv 1801.01401); precision
and recall Kynkäänniemi et al. 2019 (arXiv 1904.06991); density and coverage Naeem et al. 2020 (arXiv 2002.09797).
"""

import functools
import pickle
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import torch
from torch.utils.data import Subset

from common.data import load_fashion_mnist, torchvision_datasets
from common.quality import classifier, imagenet
from common.quality.features import NEIGHBOUR, Features, kernel_sum
from common.run.cli import BadInput, require
from common.run.device import float32_products

Extractor = Literal["classifier", "imagenet"]
N_SAMPLES, SEEDS = 10_000, 3
FEWEST = 10  # images that can be scored at all


def check_sample_size(n: int) -> None:
    """Raise `BadInput` unless `--quality-samples` is 0 or a number of images that can be scored."""
    wanted = f"0, or a whole number from {FEWEST} to 60000"
    require(n == 0 or FEWEST <= n <= 60_000, "--quality-samples", n, wanted)


def frechet_distance(a: torch.Tensor, b: torch.Tensor) -> float:
    """|m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)) of the features' means and covariances; [N, d] and [M, d]."""
    c_a, c_b = (x.double().T.cov().cpu() for x in (a, b))
    values, vectors = torch.linalg.eigh(c_a)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T  # C_a^(1/2)
    # C_a C_b has the eigenvalues of the symmetric C_a^(1/2) C_b C_a^(1/2).
    trace = torch.linalg.eigvalsh(root @ c_b @ root).clamp(min=0).sqrt().sum()
    means = (a.double().mean(0) - b.double().mean(0)).square().sum().cpu()
    return float(means + c_a.trace() + c_b.trace() - 2 * trace)


def kernel_distance(samples: Features, real: Features) -> float:
    """KID: squared maximum mean discrepancy with the kernel (x.y / d + 1)^3, unbiased, over all pairs.

    arXiv 1801.01401, equation 4, without subsets, so that the value depends on the images alone.
    """
    between = kernel_sum(samples.features, real.features)
    return samples.mean_kernel + real.mean_kernel - 2 * between / (len(samples.features) * len(real.features))


def neighbourhoods(samples: Features, real: Features) -> dict[str, float]:
    """What balls around images hold, whose radius is the distance to the third nearest neighbour of the same kind.

    Returns:
        precision: fraction of samples in the ball of a real image; recall: of real images in the ball of a sample;
        density: mean number of real images' balls that a sample lies in, divided by 3, about 1 for real images;
        coverage: fraction of real images with a sample in their ball, about 7/8 for real images. The same numbers as
        those of torch-fidelity and prdc (tested).
    """
    distances = torch.cdist(samples.features.float(), real.features.float())  # [N, M]
    within = distances <= real.reach
    return {
        "precision": float(within.any(1).float().mean()),
        "recall": float((samples.reach >= distances.T).any(1).float().mean()),
        "density": float(within.sum(1).float().mean()) / NEIGHBOUR,
        "coverage": float(within.any(0).float().mean()),
    }


def class_divergence(shares: torch.Tensor) -> float:
    """KL(shares of classes [10] || uniform) [nats]: 0 for equal shares, log 10 for one class."""
    return float(torch.special.xlogy(shares, 10 * shares).sum())


def score(
    images: torch.Tensor, device: torch.device | str = "cpu", against: str = "test", extractor: Extractor = "classifier"
) -> dict[str, float]:
    """Every metric of uint8 images [N, 1, 28, 28] against the 10,000 images of a split.

    Args:
        device: where features and distances are computed.
        against: "test", or "validation" where a choice follows.
        extractor: whose features.

    Returns:
        frechet, kid: smaller is better; precision, recall, density, coverage: larger is; of the classifier also
        class_divergence [nats]; confidence: mean of its largest probability; class_0 to class_9: fractions of the
        predicted classes.
    """
    space = classifier if extractor == "classifier" else imagenet
    found, real = space.embed(images, device), space.reference(against, str(device))
    with float32_products():
        metrics = {
            "frechet": frechet_distance(found.features, real.features),
            "kid": kernel_distance(found, real),
            **neighbourhoods(found, real),
        }
    if isinstance(found, classifier.Embedding):
        metrics["class_divergence"] = class_divergence(found.class_shares)
        metrics["confidence"] = float(found.probabilities.amax(1).mean())
        metrics |= {f"class_{label}": float(share) for label, share in enumerate(found.class_shares)}
    return metrics


def score_inception(images: torch.Tensor) -> dict[str, float]:
    """The standard FID and KID of uint8 images [N, 1, 28, 28] against the test images, on Inception's features.

    KID is a mean over 100 random subsets of 1000 here, the library's setting.

    Raises:
        BadInput: the weights, which torch-fidelity fetches over the network, cannot be had.
    """
    fidelity = _torch_fidelity()
    pictures = [x.expand(-1, 3, -1, -1) for x in (images, load_fashion_mnist("test").images)]
    inputs = {f"input{i}": Subset[Any](x, range(len(x))) for i, x in enumerate(pictures, 1)}  # type: ignore[arg-type]
    settings = {"fid": True, "kid": True, "kid_subset_size": min(1000, len(images)), "cuda": torch.cuda.is_available()}
    try:
        found = fidelity.calculate_metrics(**inputs, **settings, cache=False, save_cpu_ram=True, verbose=False)
    except OSError as fault:
        reason = " ".join(str(fault).split())
        raise BadInput(
            f"--extractor inception: its weights are not fetched ({reason}); connect to the network"
        ) from None
    except (RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as fault:
        where = Path(torch.hub.get_dir()) / "checkpoints"
        raise BadInput(
            f"--extractor inception: its weights in {where} are damaged ({type(fault).__name__}); delete them, and "
            "they are fetched again"
        ) from None
    return {"fid": found[fidelity.KEY_METRIC_FID], "kid": found[fidelity.KEY_METRIC_KID_MEAN]}


def with_spread(rows: list[dict[str, float]]) -> dict[str, float]:
    """The mean of each metric over several sets of images, and its standard deviation (n - 1) as `<name>_std`.

    The shares of the classes have their mean only; for one set the deviations are NaN.
    """
    table = pd.DataFrame(rows)
    shares = [f"class_{label}" for label in range(10)]
    return {**table.mean().to_dict(), **table.drop(columns=shares, errors="ignore").std().add_suffix("_std").to_dict()}


@functools.cache
def _torch_fidelity():
    """torch-fidelity, imported after torchvision has been made importable."""
    torchvision_datasets()
    import torch_fidelity
    import torch_fidelity.metric_fid
    import torch_fidelity.metric_kid

    return torch_fidelity
