"""A fake device without hardware, on which a CPU build of PyTorch takes the code paths of a GPU.

Fake tensors on `cuda` abort a CPU build as soon as autograd is involved. A "PrivateUse1" backend does not, and the code
above the kernels (dropout masks, foreach optimizers, autocast) treats it like CUDA. It must be registered before the
process's first backward. PyTorch has no public names for this: `backend_registration._…`, `torch._C.DispatchKeySet` and
the guard are used here only; a prediction for CUDA fails at once where one of them changes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
from torch.utils import backend_registration

DEVICE = "fakecuda"
_libraries: list[torch.library.Library] = []  # a registration lasts as long as its library object

# CUDA's autocast policy (autocast_mode.h): operators in the low precision, in fp32, and those that return fp32.
_LOW = ["linear", "matmul", "mm", "bmm", "addmm", "addbmm", "baddbmm", "mv", "scaled_dot_product_attention", "conv1d",
        "conv2d"]  # fmt: skip
_FP32 = ["layer_norm", "group_norm", "pow.Tensor_Scalar", "pow.Tensor_Tensor", "rsqrt", "exp", "log", "softplus",
         "cross_entropy_loss", "nll_loss", "nll_loss_nd", "mse_loss", "binary_cross_entropy_with_logits",
         "cosine_similarity", "cdist", "norm.Scalar", "reciprocal", "cumsum", "logsumexp"]  # fmt: skip
_FP32_RESULT = ["softmax.int", "log_softmax.int", "sum", "sum.dim_IntList", "cumprod"]


class _Backend(backend_registration._DummyBackendModule):
    """The functions that PyTorch requires of `torch.<device>`, as far as its own stand-in lacks them."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.float16, torch.bfloat16, torch.float32]

    def get_rng_state(self, device: Any = None) -> torch.Tensor:
        return torch.zeros(16, dtype=torch.uint8)

    def set_rng_state(self, state: torch.Tensor, device: Any = None) -> None: ...


@cache
def register() -> str:
    """Register the device for the rest of the process, and return its name."""
    backend_registration._setup_privateuseone_for_python_backend(DEVICE, backend_module=_Backend())
    library = torch.library.Library("aten", "IMPL")
    _libraries.append(library)
    # These have a CUDA kernel and a decomposition. On a device without the kernel, autograd takes the decomposition,
    # which holds two more tensors. They are never executed on real data.
    for name in ("silu_backward", "mish_backward"):
        library.impl(name, lambda grad, x: torch.empty_like(x), "PrivateUse1")
    _register_autocast(library)
    return DEVICE


def _register_autocast(library: torch.library.Library) -> None:
    others = torch.library.Library("_", "IMPL")
    others.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")
    _libraries.append(others)
    casts: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
    excluded = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastPrivateUse1)

    def cast(value: Any, dtype: torch.dtype) -> Any:
        if not isinstance(value, torch.Tensor) or value.device.type != DEVICE or not value.is_floating_point():
            return value
        if value.dtype in (dtype, torch.float64):
            return value
        if value.is_leaf and value.requires_grad and dtype != torch.float32 and value.dtype == torch.float32:
            # A weight is cast once per forward, as `cached_cast` does.
            if id(value) not in casts:
                casts[id(value)] = (value.to(dtype), value)
            return casts[id(value)][0]
        return value.to(dtype)

    def kernel(op: Any, to: Callable[[tuple, dict], tuple[tuple, dict]], *args: Any, **kwargs: Any) -> Any:
        with torch._C._ExcludeDispatchKeyGuard(excluded):
            args, kwargs = to(args, kwargs)
            return op(*args, **kwargs)

    def all_to(dtype: Callable[[], torch.dtype]) -> Callable[[tuple, dict], tuple[tuple, dict]]:
        return lambda args, kwargs: (
            tuple(cast(value, dtype()) for value in args),
            {name: cast(value, dtype()) for name, value in kwargs.items()},
        )

    def result_in_fp32(args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        half = isinstance(args[0], torch.Tensor) and args[0].dtype in (torch.float16, torch.bfloat16)
        if half and kwargs.get("dtype") is None and not any(isinstance(value, torch.dtype) for value in args):
            kwargs = {**kwargs, "dtype": torch.float32}
        return args, kwargs

    low = all_to(lambda: torch.get_autocast_dtype(DEVICE))
    for names, to in ((_LOW, low), (_FP32, all_to(lambda: torch.float32)), (_FP32_RESULT, result_in_fp32)):
        for name in names:
            base, _, overload = name.partition(".")
            op = getattr(getattr(torch.ops.aten, base), overload or "default")
            library.impl(name, partial(kernel, op, to), "AutocastPrivateUse1")

    original = torch.clear_autocast_cache

    def clear() -> None:
        original()
        casts.clear()

    torch.clear_autocast_cache = clear  # autocast calls it at the end of its outermost context
