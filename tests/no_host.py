"""What a CUDA graph cannot hold, seen on the CPU."""

from torch.utils._python_dispatch import TorchDispatchMode

FROM_THE_HOST = ("lift_fresh", "_local_scalar_dense", "item", "nonzero", "is_nonzero", "equal", "_to_copy")


class NoHost(TorchDispatchMode):
    """Refuses what a CUDA graph cannot hold: values read on the host, tensors made of Python numbers, other devices."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.name().removeprefix("aten::").split(".")[0]
        self.calls += 1
        copies = name == "_to_copy" and (kwargs or {}).get("device") is None  # of another type only
        assert name not in FROM_THE_HOST or copies, function.name()
        return function(*args, **(kwargs or {}))
