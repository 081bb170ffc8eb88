"""The model of a run as fake tensors: with the right shapes, types and device, but without data."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from sweep.core.errors import UserError
from sweep.memory.simulation.allocation_log import NO_LAYER, EventLog
from sweep.memory.simulation.layer_extrapolation import TRACED, Irregular
from sweep.meters.live_memory import quantization_state, weights_of
from sweep.models.compatibility import kernels, model_class
from sweep.runtime import precision

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

    from sweep.config.schema import RunConfig

# Attributes that bitsandbytes' layers read from their weights, of 4 bits and of 8.
_PACKED = ("quant_state", "compress_statistics", "quant_type", "bnb_quantized", "blocksize", "quant_storage", "module",
           "CB", "SCB", "has_fp16_weights", "row_scales")  # fmt: skip


def shallow(architecture: PretrainedConfig) -> PretrainedConfig:
    """The same architecture with `TRACED` layers.

    Raises:
        Irregular: where it has no more layers than that, or a setting that differs between layers.
    """
    layers = getattr(architecture, "num_hidden_layers", None)
    single = not getattr(architecture, "is_encoder_decoder", False)
    if layers is None or layers <= TRACED or not single or architecture.get_text_config() is not architecture:
        raise Irregular("there are no layers to leave out")
    less = copy.deepcopy(architecture)
    for name, value in vars(architecture).items():
        if isinstance(value, list | tuple) and len(value) == layers:
            if any(item != value[0] for item in value):
                raise Irregular(f"{name} differs between layers")
            setattr(less, name, value[:TRACED])
    less.num_hidden_layers = TRACED
    return less


def build(config: RunConfig, architecture: PretrainedConfig, compute: str, log: EventLog) -> nn.Module:
    """The run's model on `meta`, loaded and wrapped as in `sweep.training_run`. `log` gets the weights in the order of
    loading: one by one, each 4-bit weight after its full-precision source."""
    with torch.device("meta"):
        base = _base(config, architecture)
        _leave_no_other_device(base)
        quantization = config.variant.quantization(precision.dtype_of(compute), config.task.task_type)
        packed = _quantize(base, quantization) if quantization is not None else {}
        base.config.use_cache = False
        _load(base, packed, log)
        with log:
            model = config.variant.wrap(base, config.task.task_type, config.train.activation_checkpointing)
            precision.cast_weights(model, compute, config.train.trained_weights)
    _log_purposes(model, log)
    return model


def _log_purposes(model: nn.Module, log: EventLog) -> None:
    """Give each tensor of the finished model its purpose and its layer in the log."""
    for name, parameter in model.named_parameters():
        state = list(state_tensors(parameter))
        log.belongs(parameter, "quantized_weights" if state else weights_of(parameter), layer_number(name))
        for tensor in state:
            log.belongs(tensor, "quantization_state", layer_number(name))
    for name, buffer in model.named_buffers():
        log.belongs(buffer, "buffers_and_batch", layer_number(name))
    log.order_loading()


def _base(config: RunConfig, architecture: PretrainedConfig) -> PreTrainedModel:
    dtype = config.base.dtype
    held = precision.dtype_of(dtype) if dtype != "auto" else architecture.dtype or torch.float32
    # FlashAttention needs its package and a GPU. Its memory is that of PyTorch's flash kernel: `patches` puts it in.
    attention = "sdpa" if config.model.attention == "flash_attention_2" else config.model.attention
    auto_class = config.task.auto_class()
    known = model_class(auto_class, architecture)
    if attention != config.model.attention and known is not None and "sdpa" not in kernels(known):
        raise UserError(
            f"{known.__name__} has FlashAttention but no sdpa kernel, which the prediction needs in its place"
        )
    trusted = config.model.trust_remote_code
    return auto_class.from_config(architecture, dtype=held, attn_implementation=attention, trust_remote_code=trusted)


def _leave_no_other_device(model: nn.Module) -> None:
    """Move to meta the tensors that some models create on a fixed device. Tied tensors stay tied."""
    made: dict[int, torch.Tensor] = {}
    for module in model.modules():
        for name, old in own_tensors(module):
            if not old.is_meta:
                new = old.to("meta")
                new = nn.Parameter(new, old.requires_grad) if isinstance(old, nn.Parameter) else new
                setattr(module, name, made.setdefault(id(old), new))


def own_tensors(module: nn.Module) -> list[tuple[str, torch.Tensor]]:
    """The parameters and buffers of the module without its children; tied ones under each of their names."""
    own = {"recurse": False, "remove_duplicate": False}
    return [*module.named_parameters(**own), *module.named_buffers(**own)]


def _quantize(model: PreTrainedModel, quantization: Any) -> dict[nn.Parameter, int]:
    """Replace the linear layers that bitsandbytes replaces. Returns the new weights, each with the bytes that loading
    needs for its source.

    `Params4bit` and `Int8Params` cannot hold a fake tensor; an ordinary parameter with the same attributes can.
    """
    from bitsandbytes.nn import Linear4bit, Linear8bitLt
    from transformers.quantizers import AutoHfQuantizer

    quantizer = AutoHfQuantizer.from_config(quantization)
    quantizer.preprocess_model(model, device_map=None)
    quantizer.postprocess_model(model)
    model.hf_quantizer = quantizer
    sources: dict[nn.Parameter, int] = {}
    for module in model.modules():
        if not isinstance(module, Linear4bit | Linear8bitLt):
            continue
        shape, held_bytes = (module.out_features, module.in_features), module.weight.dtype.itemsize
        if isinstance(module, Linear4bit):
            packed = torch.empty(((shape[0] * shape[1] + 1) // 2, 1), dtype=torch.uint8)
            weight = nn.Parameter(packed, requires_grad=False)
            weight.quant_state = module.quant_state = _quant_state(shape, model.dtype, quantization)
            weight.compress_statistics = quantization.bnb_4bit_use_double_quant
            weight.quant_type = quantization.bnb_4bit_quant_type
            weight.bnb_quantized, weight.blocksize, weight.quant_storage = True, 64, torch.uint8
        else:  # as after the layer's first forward: a byte for each element, and an fp32 scale for each row
            weight = nn.Parameter(torch.empty(shape, dtype=torch.int8), requires_grad=False)
            weight.CB = weight.SCB = None  # the layer's state holds both then
            weight.has_fp16_weights = False
            weight.row_scales = torch.empty(shape[0])
            held_bytes += 2  # a copy in fp16
        module.weight = weight
        sources[weight] = shape[0] * shape[1] * held_bytes
    return sources


def _quant_state(shape: tuple[int, int], held: torch.dtype, quantization: Any) -> Any:
    """One scale per 64 weights. Double quantisation holds the scales in 8 bits, with one fp32 scale per 256 of them and
    an offset (Dettmers et al. 2023, section 3). Each weight has code books of its own."""
    from bitsandbytes.functional import QuantState

    blocks = -(-shape[0] * shape[1] // 64)
    kind = quantization.bnb_4bit_quant_type
    common = {"shape": torch.Size(shape), "dtype": held, "blocksize": 64, "code": torch.empty(16), "quant_type": kind}
    if not quantization.bnb_4bit_use_double_quant:
        return QuantState(absmax=torch.empty(blocks), **common)
    second = QuantState(
        absmax=torch.empty(-(-blocks // 256)), code=torch.empty(256), blocksize=256, dtype=torch.float32
    )
    return QuantState(absmax=torch.empty(blocks, dtype=torch.uint8), offset=torch.empty(()), state2=second, **common)


def state_tensors(parameter: torch.Tensor) -> Iterator[torch.Tensor]:
    """The tensors of the quantisation state of a weight of 4 bits or of 8."""
    if hasattr(parameter, "row_scales"):
        yield parameter.row_scales
    yield from quantization_state(parameter)


def _load(model: nn.Module, sources: dict[nn.Parameter, int], log: EventLog) -> None:
    """Log the weights as they arrive. On a GPU, transformers allocates the size of the model first, and frees it
    (`caching_allocator_warmup`): the weights then share one segment of the allocator."""
    sizes = Counter[int]()
    for name, parameter in model.named_parameters():
        sizes[layer_number(name)] += parameter.nbytes
    log.reserve(sum(sizes.values()), per_layer_bytes=sizes[1])
    for name, parameter in model.named_parameters():
        layer = layer_number(name)
        if parameter not in sources:
            log.add(parameter, "frozen_weights", layer)
            continue
        held = torch.empty(sources[parameter], dtype=torch.uint8, device="meta")
        log.add(held, "temporaries", layer)
        log.add(parameter, "quantized_weights", layer)
        for tensor in state_tensors(parameter):
            log.add(tensor, "quantization_state", layer)
        del held
    for name, buffer in model.named_buffers():
        log.add(buffer, "buffers_and_batch", layer_number(name))


def layer_number(name: str) -> int:
    """The layer of a tensor by its name: the first whole number in it, in every model that keeps layers in a list."""
    return next((int(part) for part in name.split(".") if part.isdigit()), NO_LAYER)


def materialize(model: nn.Module, device: str, log: EventLog) -> None:
    """Replace the model's meta tensors by fake tensors on `device`. Tied tensors stay tied. Needs an active fake
    mode."""
    made: dict[int, torch.Tensor] = {}
    kept: list[torch.Tensor] = []  # keeps each tensor alive, so that its id stays its own

    def move(tensor: torch.Tensor) -> torch.Tensor:
        if id(tensor) not in made:
            kept.append(tensor)
            fake = torch.empty_strided(tensor.size(), tensor.stride(), dtype=tensor.dtype, device=device)
            made[id(tensor)] = fake
            log.move(tensor, fake)
        return made[id(tensor)]

    parameters: dict[int, nn.Parameter] = {}
    for module in model.modules():
        for name, old in own_tensors(module):
            if not isinstance(old, nn.Parameter):
                setattr(module, name, move(old))
                continue
            if id(old) not in parameters:
                new = nn.Parameter(move(old), requires_grad=old.requires_grad)
                for key in _PACKED:
                    if hasattr(old, key):
                        setattr(new, key, getattr(old, key))
                if hasattr(new, "row_scales"):
                    new.row_scales = move(new.row_scales)
                state = getattr(new, "quant_state", None)
                while state is not None:
                    for key, value in vars(state).items():
                        if isinstance(value, torch.Tensor):
                            setattr(state, key, move(value))
                    state = getattr(state, "state2", None)
                parameters[id(old)] = new
                kept.append(old)
            setattr(module, name, parameters[id(old)])
            if hasattr(parameters[id(old)], "row_scales"):
                module.state.CB, module.state.SCB = module.weight.data, module.weight.row_scales
