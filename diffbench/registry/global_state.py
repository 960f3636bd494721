"""The state of the process that everybody's numbers depend on: torch's switches, generators, and the functions that
networks call.

Taken before strangers' modules are imported and compared afterwards, by `loading` and by workers. Nothing is put right
in silence: what changed is named, with who changed it.
"""

from __future__ import annotations

import builtins
import hashlib
import os
import sys
from collections.abc import Callable, Iterator
from types import FunctionType, ModuleType
from typing import Any

import numpy
import torch

# variables that libraries compute by
ENVIRONMENT = ("DIFFBENCH_", "CUBLAS_", "CUDNN_", "NVIDIA_TF32_", "TORCH_ALLOW_", "OMP_NUM_", "MKL_")
GLOBAL_HOOKS = ("_global_forward_hooks", "_global_forward_pre_hooks", "_global_backward_hooks",
                "_global_backward_pre_hooks",
                "_global_module_registration_hooks", "_global_parameter_registration_hooks",
                "_global_buffer_registration_hooks")

# What is read, by the words a message has for it. An attribute that this torch does not have is left out.
SWITCHES: dict[str, Callable[[], Any]] = {
    "torch's default dtype": torch.get_default_dtype,
    "torch's default device": torch.get_default_device,
    "torch's gradient mode": torch.is_grad_enabled,
    "torch's inference mode": torch.is_inference_mode_enabled,
    "torch's number of threads": torch.get_num_threads,
    "torch's deterministic algorithms": lambda: (torch.are_deterministic_algorithms_enabled(),
                                                 torch.is_deterministic_algorithms_warn_only_enabled()),
    "torch's filling of uninitialised memory": lambda: torch.utils.deterministic.fill_uninitialized_memory,
    "torch's precision of float32 products": torch.get_float32_matmul_precision,
    "torch's anomaly mode": lambda: (torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()),
    "torch's autocast": lambda: (*((d, torch.is_autocast_enabled(d), torch.get_autocast_dtype(d))
                                   for d in ("cpu", "cuda")),
                                 torch.is_autocast_cache_enabled()),
    "torch's stack of function modes": lambda: (torch._C._len_torch_function_stack(),
                                                torch._C._is_torch_function_enabled()),
    "torch's stack of dispatch modes": lambda: torch._C._len_torch_dispatch_stack(),
    "torch's flushing of denormal numbers": lambda: sys.float_info.min * 0.5 == 0,
    "torch's hooks of all modules": lambda: tuple(len(getattr(torch.nn.modules.module, name)) for name in GLOBAL_HOOKS),
    "kernels that are put in the place of torch's own": lambda: tuple(
        sorted(key for key in getattr(torch.library, "_impls", ()) if key.startswith("aten/"))),
    # Those of Python and numpy begin at random anyway, and libraries draw from them as they are imported.
    "the state of torch's global generator": lambda: hashlib.sha256(
        torch.default_generator.get_state().numpy().tobytes()).hexdigest(),
    "numpy's handling of floating-point errors": lambda: tuple(sorted(numpy.geterr().items())),
}
BACKENDS = {
    "cudnn": ("enabled", "benchmark", "benchmark_limit", "deterministic", "allow_tf32"),
    "cuda.matmul": ("allow_tf32", "allow_fp16_reduced_precision_reduction", "allow_bf16_reduced_precision_reduction",
                    "allow_fp16_accumulation"),
    "mkldnn": ("enabled", "deterministic", "allow_tf32"),
    "opt_einsum": ("enabled", "strategy"),
}
ATTENTION = ("flash_sdp_enabled", "mem_efficient_sdp_enabled", "math_sdp_enabled", "cudnn_sdp_enabled",
             "fp16_bf16_reduction_math_sdp_allowed")
LIBRARIES = ("torch", "torch.nn", "torch.nn.functional", "torch.nn.init", "torch.linalg", "torch.fft", "torch.special",
             "torch.optim", "torch.autograd",
             "torch.random", "torch._C._nn", "numpy", "numpy.linalg", "numpy.fft", "numpy.random", "math", "builtins")
CLASSES = ("torch.nn.modules", "torch.optim")            # of these modules, what each class holds is compared too


class GlobalState:
    """A picture of the process-wide state at one moment."""

    def __init__(self) -> None:
        self.values = dict(_values())
        self.holders = _holders()
        self.held = {name: dict(vars(holder)) for name, holder in self.holders.items()}
        self.codes = [(f"{name}.{key}", function, _code(function)) for name, held in self.held.items()
                      for key, function in held.items()
                      if isinstance(function, FunctionType)]

    def changes(self) -> list[str]:
        """Differences from the present state, each as 'torch's default dtype from torch.float32 to torch.float64'."""
        now = dict(_values())
        texts = [f"{name}{_from_to(value, now[name])}" for name, value in self.values.items() if name in now
                 and now[name] != value]
        for name, holder in self.holders.items():
            before, held = self.held[name], vars(holder)
            texts += [f"the function {name}.{key}" for key, value in before.items()
                      if held.get(key, value) is not value and callable(value)
                      and not _is_wrapped_by_its_library(value, held[key])]
            texts += [f"the function {name}.{key}" for key in held.keys() - before.keys() if _hides(holder, key)]
        return texts + [f"the code of {name}" for name, function, code in self.codes if _code(function) != code]


def _values() -> Iterator[tuple[str, Any]]:
    for name, read in SWITCHES.items():
        yield name, read()
    for backend, attributes in BACKENDS.items():
        holder: Any = torch.backends
        for part in backend.split("."):
            holder = getattr(holder, part)
        yield from ((f"torch.backends.{backend}.{name}", getattr(holder, name)) for name in attributes
                    if hasattr(holder, name))
    yield from ((f"torch.backends.cuda.{name}()", getattr(torch.backends.cuda, name)()) for name in ATTENTION
                if hasattr(torch.backends.cuda, name))
    yield "the environment variables", {name: value for name, value in os.environ.items()
                                        if name.startswith(ENVIRONMENT)}


def _holders() -> dict[str, Any]:
    """The modules and classes whose functions networks and samplers are made of, and diffbench's own."""
    own = [name for name in sys.modules if name.startswith("diffbench.")]
    holders: dict[str, Any] = {name: sys.modules.get(name) or _attribute(name) for name in (*LIBRARIES, *own)}
    holders = {name: module for name, module in holders.items() if isinstance(module, ModuleType)}
    for name, module in list(sys.modules.items()):
        if name.startswith((*CLASSES, "diffbench.")) and isinstance(module, ModuleType):
            holders |= {f"{name}.{key}": cls for key, cls in list(vars(module).items()) if isinstance(cls, type)
                        and cls.__module__ == name}
    return holders | {"torch.Tensor": torch.Tensor, "torch._C.TensorBase": torch._C.TensorBase,
                      "torch.Generator": torch.Generator}


def _hides(holder: Any, name: str) -> bool:
    """Whether a new name takes the place of one that was found behind it: of a base class, or of a built-in."""
    return (any(name in vars(base) for base in holder.__mro__[1:]) if isinstance(holder, type)
            else name in vars(builtins))


def _attribute(name: str) -> Any:
    holder, _, last = name.rpartition(".")
    return getattr(sys.modules.get(holder), last, None)


def _code(function: Any) -> tuple[Any, ...]:
    return function.__code__, function.__defaults__, id(function.__kwdefaults__)


def _is_wrapped_by_its_library(function: Any, other: Any) -> bool:
    """Whether torch itself has wrapped one of its functions, as it does with manual_seed when its compiler is imported.
    """
    inner = getattr(other, "__wrapped__", None) or getattr(other, "_torchdynamo_orig_callable", None)
    code = getattr(other, "__code__", None)
    return inner is function and code is not None and code.co_filename.startswith(
        os.path.dirname(str(torch.__file__)) + os.sep)


def _from_to(before: Any, now: Any) -> str:
    if isinstance(before, dict):
        names = sorted({*before, *now})
        return " " + ", ".join(f"{name} from {before.get(name)!r} to {now.get(name)!r}" for name in names
                               if before.get(name) != now.get(name))
    return f" from {before} to {now}" if len(f"{before}{now}") < 100 else ""
