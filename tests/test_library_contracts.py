"""What the code relies on in the installed libraries, for paths that need a GPU: no other test here executes them.

Where behaviour can be observed without a GPU, it is; else the library's source is read. A test that fails after an
upgrade names the part of the code to look at.
"""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
import torch


def source(found: object) -> str:
    """The source in one line, so that line breaks do not matter."""
    return " ".join(inspect.getsource(found).split())


def test_transformers_prefers_a_gpu_of_the_machine_to_the_simulated_device():
    """sweep/memory/simulation/patches.py hides the GPUs while a run is simulated."""
    from transformers import TrainingArguments

    text = source(TrainingArguments._setup_devices.func)
    assert '"cuda:0" if torch.cuda.is_available() else os.environ.get("ACCELERATE_TORCH_DEVICE"' in text
    assert "self._n_gpu = torch.cuda.device_count()" in text


def test_a_changed_cuda_visible_devices_is_read_until_cuda_is_used():
    """sweep/processes sets it in a process that has imported PyTorch."""
    assert "if _initialized: _cached_device_count = r" in source(torch.cuda.device_count)


def test_transformers_hides_an_error_while_it_quantises():
    """sweep/training_run.py therefore asks the allocator's observer whether memory ran out."""
    from types import SimpleNamespace

    from transformers.core_model_loading import SkipParameters, log_conversion_errors

    info = SimpleNamespace(conversion_errors={})
    with pytest.raises(SkipParameters), log_conversion_errors("weight", info, op=[object()]):
        raise torch.OutOfMemoryError("CUDA out of memory")
    assert "CUDA out of memory" in info.conversion_errors["weight"]


def test_out_of_memory_and_errors_of_cuda_are_runtime_errors():
    """sweep/runtime/out_of_memory.py reads the texts of RuntimeErrors."""
    from torch.distributed import DistBackendError

    for kind in (torch.OutOfMemoryError, torch.AcceleratorError, DistBackendError):
        assert issubclass(kind, RuntimeError)


def test_bitsandbytes_prints_an_error_of_cuda_in_a_known_form():
    """sweep/runtime/out_of_memory.py finds it in the log of a process that has exited."""
    import bitsandbytes

    libraries = sorted(Path(bitsandbytes.__file__).parent.glob("libbitsandbytes_cuda*.so"))
    assert libraries
    assert b"Error %s at line %d in file %s\n" in libraries[-1].read_bytes()


def test_bitsandbytes_pages_tensors_of_100_000_elements_and_marks_them():
    """sweep/meters/live_memory.py and sweep/memory/closed_form/static_terms.py count them."""
    import bitsandbytes.functional
    from bitsandbytes.optim.optimizer import Optimizer8bit

    from sweep.memory.closed_form import static_terms

    assert "if not self.is_paged or p.numel() < 1e5:" in source(Optimizer8bit.get_state_buffer)
    assert static_terms._SMALL_PAGED == 1e5
    assert "out.is_paged = True" in source(bitsandbytes.functional.get_paged)
    assert "free" not in source(bitsandbytes.functional.GlobalPageManager)  # the memory stays until the process ends


def test_bitsandbytes_multiplies_few_rows_without_a_dequantised_weight():
    """The file cannot be imported without CUDA's library. sweep/memory/simulation/cuda_kernels.py has the numbers."""
    import bitsandbytes

    from sweep.memory.simulation import cuda_kernels

    text = (Path(bitsandbytes.__file__).parent / "backends" / "cuda" / "ops.py").read_text()
    assert f"_GEMM_4BIT_CUSTOM_FLOOR_M = {cuda_kernels._FUSED_4BIT_ROWS}\n" in text
    assert "_gemm_4bit_custom_max_m = 1536\n" in text


def test_accelerate_trains_fp32_weights_under_fsdp():
    """sweep/training/options.py refuses train.trained_weights=checkpoint there."""
    from accelerate.utils.fsdp_utils import fsdp2_prepare_model

    text = source(fsdp2_prepare_model)
    assert 'if accelerator.mixed_precision != "no" and not model_has_params4bit:' in text
    assert "param.data = param.data.to(torch.float32)" in text


def test_peft_holds_adapters_in_fp32():
    """sweep/runtime/precision.py casts the other weights that train."""
    from peft import get_peft_model

    assert inspect.signature(get_peft_model).parameters["autocast_adapter_dtype"].default is True


def test_a_model_on_one_device_has_no_device_map(tiny_checkpoint: Path):
    """accelerate would refuse to train a 4-bit model whose map names another device than its own."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_checkpoint, device_map={"": "cpu"})
    assert not hasattr(model, "hf_device_map")


def test_loading_on_a_gpu_begins_with_one_allocation_of_the_model_s_size():
    """sweep/memory/simulation/fake_model.py logs it."""
    from transformers import modeling_utils

    text = source(modeling_utils.caching_allocator_warmup)
    assert "total_byte_count = get_total_byte_count(model, accelerator_device_map, hf_quantizer)" in text
    assert "torch.empty(int(byte_count), dtype=torch.int8, device=device" in text or "_ = torch.empty(" in text


def test_the_trainer_measures_no_memory_and_empties_the_cache_as_it_begins():
    """Its own tracker would reset the peaks of sweep/meters/cuda.py."""
    from transformers import Trainer, TrainingArguments

    assert TrainingArguments.__dataclass_fields__["skip_memory_metrics"].default is True
    assert "self.accelerator.free_memory()" in source(Trainer._inner_training_loop)


def test_a_step_begins_after_its_batches_are_on_the_device():
    """sweep/meters/throughput.py does not time the transfer."""
    from transformers import Trainer

    text = source(Trainer._run_epoch)
    assert text.index("self.get_batch_samples(") < text.index("callback_handler.on_step_begin(")


def test_ranks_wait_as_long_as_the_arguments_state():
    """sweep/training/fit.py makes it long: the other ranks wait for the evaluation of the main one."""
    from transformers import TrainingArguments

    assert TrainingArguments.__dataclass_fields__["ddp_timeout"].default == 1800
    assert 'accelerator_state_kwargs["timeout"] = timedelta(seconds=self.ddp_timeout)' in source(
        TrainingArguments._setup_devices.func
    )


def test_the_history_of_allocations_takes_c_stacks_unless_told_otherwise():
    """sweep/meters/cuda.py asks for Python's stacks: names of C++ are found slowly, inside the failing allocation."""
    parameters = inspect.signature(torch.cuda.memory._record_memory_history).parameters
    assert parameters["stacks"].default == "all"


def test_support_of_bf16_can_be_asked_without_emulation():
    """sweep/runtime/precision.py: a T4 emulates bf16, slowly."""
    assert "including_emulation" in inspect.signature(torch.cuda.is_bf16_supported).parameters
