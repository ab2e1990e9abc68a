"""Who looks on while an operator runs, and should see PyTorch's operator in its place."""

import torch
from torch.autograd import forward_ad

try:  # PyTorch has no public names for these three
    from torch._C import _are_functorch_transforms_active
    from torch.utils._python_dispatch import _get_current_dispatch_mode
except ImportError:
    OBSERVERS_ARE_KNOWN = False
else:
    OBSERVERS_ARE_KNOWN = hasattr(forward_ad, "_current_level")


def is_recorded() -> bool:
    """Whether `torch.export`, `torch.compile` or `torch.jit.trace` writes down what is computed."""
    return torch.jit.is_tracing() or torch.compiler.is_compiling()


def is_observed() -> bool:
    """Whether someone looks on who should see PyTorch's convolution; a PyTorch that cannot tell
    gets its own, which is right in any case."""
    return (
        torch.is_autocast_enabled("cpu")
        or not OBSERVERS_ARE_KNOWN
        or forward_ad._current_level >= 0
        or _are_functorch_transforms_active()
        or _get_current_dispatch_mode() is not None
    )
