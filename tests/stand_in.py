"""The CPU in the place of an accelerator."""

import torch
from torch.overrides import TorchFunctionMode


class NoFloat64OnDevice(TorchFunctionMode):
    """The CPU as an accelerator without float64 (MPS).

    Only what came through `.cpu()`, or was computed from that, or was read from a file, may be float64 or NumPy's.
    """

    loading = False

    def __enter__(self):
        self.load = torch.load

        def load(*args, **kwargs):
            self.loading = True
            try:
                return self.load(*args, **kwargs)
            finally:
                self.loading = False

        torch.load = load
        return super().__enter__()

    def __exit__(self, *fault):
        torch.load = self.load
        return super().__exit__(*fault)

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if self.loading:
            return function(*args, **kwargs)
        tensors = [x for a in args for x in (a if isinstance(a, list | tuple) else [a]) if isinstance(x, torch.Tensor)]
        told = [getattr(t, "on_host", False) for t in tensors]
        on_host = any(told) or all(t.dtype == torch.float64 for t in tensors)
        assert function is not torch.Tensor.numpy or on_host
        result = function(*args, **kwargs)
        if function is torch.Tensor.cpu:
            result = result.clone()
        elif isinstance(result, torch.Tensor) and result.dtype == torch.float64:
            moved = any(isinstance(a, torch.device) for a in (*args, kwargs.get("device")))
            assert on_host, function
            assert not moved, function
        if function is torch.Tensor.cpu or any(told):
            for part in result if isinstance(result, list | tuple) else [result]:
                if isinstance(part, torch.Tensor):
                    part.on_host = True
        return result
