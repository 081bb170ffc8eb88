"""The attention kernel that a CUDA device runs, and the memory that kernels allocate inside themselves.

A dispatch mode sees the arguments and results of an operator, but not what the kernel's host code allocates and frees
in between. Those sizes are read from the kernels' source, for the few kernels of a training step where they are large.
The operators' private names (`aten._…`) are PyTorch's only names for them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F


def attention_kernel(
    capability: tuple[int, int],
    dtype: torch.dtype,
    head_dim: int,
    *,
    masked: bool,
    grouped: bool,
    dropout: float = 0.0,
    trains: bool = True,
) -> str:
    """The kernel that PyTorch 2.13 chooses on CUDA (`priority_order` in sdp_utils.cpp): "cudnn" (first on sm_90, sm_100
    and sm_103; its dropout is a multiple of 1/16), "flash" (no mask; not for the backward of some widths), "efficient"
    (no grouped queries) or "math", which holds the whole score matrix. `grouped`: fewer key heads than query heads
    reach the kernel."""
    half = dtype in (torch.float16, torch.bfloat16)
    in_sixteenths = (16 * dropout).is_integer()
    if capability in ((9, 0), (10, 0), (10, 3)) and half and head_dim % 8 == 0 and head_dim <= 128 and in_sixteenths:
        return "cudnn"
    small_memory = capability in ((8, 6), (8, 9)) or capability[0] == 12  # shared memory of a multiprocessor
    without_backward = small_memory and trains and (192 < head_dim <= 224 or (head_dim > 224 and dropout > 0))
    if half and not masked and capability >= (8, 0) and head_dim <= 256 and not without_backward:
        return "flash"
    if not grouped and (dtype != torch.bfloat16 or capability >= (8, 0)):
        return "efficient"
    return "math"


@contextmanager
def cuda_attention(capability: tuple[int, int], forced: str | None, seen: set[str]) -> Iterator[None]:
    """Replace `scaled_dot_product_attention` by the operator that a CUDA device runs; `seen` collects the names."""
    original = F.scaled_dot_product_attention

    def attention(query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False):
        device = query.device.type
        if torch.is_autocast_enabled(device):
            low = torch.get_autocast_dtype(device)
            query, key, value = (tensor.to(low) for tensor in (query, key, value))
        grouped = enable_gqa and key.size(-3) != query.size(-3)
        kernel = forced or attention_kernel(
            capability,
            query.dtype,
            query.size(-1),
            masked=attn_mask is not None,
            grouped=grouped,
            dropout=dropout_p,
            trains=any(tensor.requires_grad for tensor in (query, key, value)),
        )
        if kernel == "flash" and attn_mask is not None:
            attn_mask, is_causal = None, True  # FlashAttention skips padding by lengths instead of a mask
        seen.add(kernel)
        with torch.autocast(device, enabled=False):
            return _KERNELS[kernel](query, key, value, attn_mask, dropout_p, is_causal, scale)

    F.scaled_dot_product_attention = attention
    try:
        yield
    finally:
        F.scaled_dot_product_attention = original


def _flash(query, key, value, mask, dropout, causal, scale):
    width = query.size(-1)
    padding = -width % 8
    if padding:
        query, key, value = (F.pad(tensor, (0, padding)) for tensor in (query, key, value))
    op = torch.ops.aten._scaled_dot_product_flash_attention
    output = op(query, key, value, dropout, causal, False, scale=scale)[0]
    return output[..., :width] if padding else output


def _efficient(query, key, value, mask, dropout, causal, scale):
    key, value = _for_each_head(query, key, value)
    trains = any(tensor.requires_grad for tensor in (query, key, value))
    op = torch.ops.aten._scaled_dot_product_efficient_attention
    return op(query, key, value, _bias(query, key, mask), trains, dropout, causal, scale=scale)[0]


def _cudnn(query, key, value, mask, dropout, causal, scale):
    trains = any(tensor.requires_grad for tensor in (query, key, value))
    op = torch.ops.aten._scaled_dot_product_cudnn_attention
    return op(query, key, value, _bias(query, key, mask), trains, dropout, causal, False, scale=scale)[0]


def _math(query, key, value, mask, dropout, causal, scale):
    key, value = _for_each_head(query, key, value)
    op = torch.ops.aten._scaled_dot_product_attention_math
    return op(query, key, value, mask, dropout, causal, scale=scale)[0]


def _for_each_head(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys and values repeated for every query head, for kernels without grouped queries."""
    groups = query.size(-3) // key.size(-3)
    return (key, value) if groups == 1 else (key.repeat_interleave(groups, -3), value.repeat_interleave(groups, -3))


def _bias(query: torch.Tensor, key: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor | None:
    """The mask as an additive one, padded to a multiple of eight columns and expanded over the heads."""
    if mask is None:
        return None
    if mask.dtype == torch.bool:
        zero = torch.zeros((), dtype=query.dtype, device=query.device)
        mask = torch.where(mask, zero, torch.full((), float("-inf"), dtype=query.dtype, device=query.device))
    columns = mask.size(-1)
    if columns % 8:
        mask = F.pad(mask, (0, -columns % 8))[..., :columns]
    return mask.expand(query.size(0), query.size(1), query.size(2), key.size(2))


_KERNELS = {"flash": _flash, "efficient": _efficient, "cudnn": _cudnn, "math": _math}


def inner_bytes(func: Any, args: tuple, kwargs: dict) -> list[int]:
    """Bytes of each tensor that the CUDA kernel of this operator allocates inside itself."""
    counted = _INNER.get(func)
    return counted(args, kwargs) if counted else []


def _softmax_backward(args: tuple, kwargs: dict) -> list[int]:
    """`Tensor tmp = grad * output` in SoftMax.cu."""
    return [args[1].nbytes]


_FUSED_4BIT_ROWS = 4  # `_GEMM_4BIT_CUSTOM_FLOOR_M` of bitsandbytes 0.50


def _gemm_4bit(args: tuple, kwargs: dict) -> list[int]:
    """The weight, dequantised for the product, and the scales, which double quantisation holds in 8 bits. A kernel
    without them multiplies up to four rows, as in a generation; up to 1,536 rows, bitsandbytes chooses by the card's
    number of multiprocessors, and the larger figure is taken."""
    if args[0].numel() // args[0].shape[-1] <= _FUSED_4BIT_ROWS:
        return []
    rows, columns = args[2]
    scales = kwargs.get("absmax_8bit")
    nested = [4 * scales.numel()] * 2 if scales is not None else []
    return [rows * columns * args[0].element_size(), *nested]


def _flash_backward(args: tuple, kwargs: dict) -> list[int]:
    """dq in fp32, padded; the row sums; for grouped queries, dk and dv of every query head (`mha_bwd`)."""
    query, key = args[1], args[2]
    batch, heads, length, width = query.shape
    rows, step = -(-length // 128) * 128, 32 if width <= 128 else 64
    padded = -(-width // step) * step
    grouped = 2 if key.shape[1] != heads else 0
    expanded = batch * key.shape[2] * heads * width * query.element_size()
    return [batch * rows * heads * padded * 4, batch * heads * rows * 4, *([expanded] * grouped)]


def _efficient_backward(args: tuple, kwargs: dict) -> list[int]:
    """delta, the row sums of grad · output."""
    batch, heads, length, _ = args[1].shape
    return [batch * heads * (-(-length // 32) * 32) * 4]


_INNER: dict[Any, Callable[[tuple, dict], list[int]]] = {
    torch.ops.aten._softmax_backward_data.default: _softmax_backward,
    torch.ops.aten._scaled_dot_product_flash_attention_backward.default: _flash_backward,
    # cuDNN's is not published; it is assumed to be like flash.
    torch.ops.aten._scaled_dot_product_cudnn_attention_backward.default: _flash_backward,
    torch.ops.aten._scaled_dot_product_efficient_attention_backward.default: _efficient_backward,
}


def _int8_quantize(args: tuple, kwargs: dict) -> list[int]:
    """In addition to its results, where there is a threshold: the absolute values in fp16, and the mask of the values
    above it (backends/cuda/ops.py)."""
    rows, columns = args[0].numel() // args[0].shape[-1], args[0].shape[-1]
    return [rows * columns * (2 + 1 + 1) + 4 * rows] if args[1:] and args[1] else []


def _int8_product(args: tuple, kwargs: dict) -> list[int]:
    """The sums in int32, their copy in fp16, and the result where it has another type."""
    quantized, weight = (args[1], args[2]) if len(args) > 4 else (args[0], args[1])
    dtype = args[0].dtype if len(args) > 4 else kwargs.get("dtype", torch.float16)
    result = 0 if dtype == torch.float16 else dtype.itemsize
    return [quantized.numel() // quantized.shape[-1] * weight.shape[0] * (4 + 2 + result)]


def _grouped_product(a, b, offs=None, bias=None, out_dtype=None):
    """The product of a mixture's experts: groups of rows, each times a matrix. In its gradients the groups are along
    another dimension."""
    if a.dim() == b.dim():
        size = (offs.size(0) if a.dim() == 2 else a.size(0), a.size(-2), b.size(-1))
    else:
        size = (a.size(-2), b.size(-1))
    return a.new_empty(size, dtype=out_dtype or a.dtype)


@cache  # a registration lasts as long as its library object
def register_grouped_product() -> torch.library.Library:
    """Register the shape of the grouped product: PyTorch's own fake kernel takes bf16 only, its real ones also fp32 and
    fp16."""
    library = torch.library.Library("aten", "IMPL")
    library.impl("_grouped_mm", _grouped_product, "Meta", allow_override=True)
    return library


def register_bitsandbytes() -> None:
    """Register bitsandbytes' operators, which are assumed to find no outliers: values decide which columns of an input
    are outliers. In language models some thousandths are (Dettmers et al. 2022, section 3.1)."""
    import bitsandbytes  # noqa: F401  defines the operators

    ops = torch.ops.bitsandbytes
    _INNER[ops.gemm_4bit.default] = _gemm_4bit
    _INNER[ops.int8_vectorwise_quant.default] = _int8_quantize
    _INNER[ops.int8_mixed_scaled_mm.default] = _INNER[ops.int8_scaled_mm.default] = _int8_product
    torch.library.register_fake("bitsandbytes::int8_vectorwise_quant", _quantized_without_outliers, allow_override=True)
    torch.library.register_fake("bitsandbytes::int8_mixed_scaled_mm", _product_without_outliers, allow_override=True)


def _quantized_without_outliers(a: torch.Tensor, threshold: float = 0.0) -> tuple[torch.Tensor, ...]:
    quantized = torch.empty_like(a, dtype=torch.int8)
    scales = a.new_empty(a.numel() // a.shape[-1], dtype=torch.float32)
    return quantized, scales, a.new_empty(0, dtype=torch.int64) if threshold else None


def _product_without_outliers(a, quantized, weight, row_scales, column_scales, outliers=None, bias=None):
    return a.new_empty(*quantized.shape[:-1], weight.shape[0]), a.new_empty(0)
