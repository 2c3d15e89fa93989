"""The stand-in for an accelerator refuses what one does."""

import pytest
import torch
from stand_in import NoFloat64OnDevice


def test_the_stand_in_device_refuses_what_mps_refuses():
    x = torch.ones(2)
    with NoFloat64OnDevice():
        x.cpu().double().numpy()
        for fault in (
            lambda: x.double(),
            lambda: x.numpy(),
            lambda: torch.ones(2, dtype=torch.float64, device=torch.device("cpu")),
            lambda: torch.ones(2, dtype=torch.float64).to(torch.device("cpu")),
        ):
            with pytest.raises(AssertionError):
                fault()
