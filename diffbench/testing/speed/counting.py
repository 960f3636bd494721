"""Exact counts of what work does: the same on every machine with one version of torch. Used by `diffbench bench`.

`operations`: ATen operators that reach the dispatcher below autograd, backward included. `synchronisations`: those
among them whose result the host must wait for on a GPU. `flops`: floating-point operations of matrix products,
convolutions and attention, 2 to a multiply-add, by torch's own formulas.
`peak_bytes`: the most memory that tensors made by the work held at once; a storage counts from the operator that makes
it until it is freed. On CUDA there are also `kernel_launches`, by the profiler, and `peak_bytes` is what the allocator
says.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from diffbench.errors import DiffbenchError
from diffbench.testing.speed.case import Case, Work

# On CUDA the size or the value of what these give is only known when the device has come so far.
WAITING = {"_local_scalar_dense", "nonzero", "nonzero_numpy", "masked_select", "is_nonzero", "equal", "_unique",
           "_unique2", "unique_dim", "unique_consecutive",
           "unique_dim_consecutive", "repeat_interleave.Tensor", "_assert_async", "bincount"}


class Counter(TorchDispatchMode):
    """Counter of operations, synchronisations, flops and bytes, active while it is entered."""

    def __init__(self) -> None:
        super().__init__()
        self.operations, self.synchronisations, self.flops, self.bytes, self.peak_bytes = 0, 0, 0, 0, 0
        self.storages: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (),
                           kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        name = func._schema.name.partition("::")[2]
        self.operations += 1
        self.synchronisations += (name in WAITING or f"{name}.{func._overloadname}" in WAITING
                                  or _indexes_by_mask(name, args) or _leaves_the_device(args, out))
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            self.flops += formula(*args, **kwargs, out_val=out)
        input_storages = {t.untyped_storage()._cdata for t in tree_leaves((args, kwargs))
                          if isinstance(t, torch.Tensor)}
        for output in tree_leaves(out):
            if isinstance(output, torch.Tensor) and output.untyped_storage()._cdata not in input_storages:
                self._hold(output.untyped_storage())
        return out

    def _hold(self, storage: torch.UntypedStorage) -> None:
        if storage in self.storages:
            return
        self.storages.add(storage)
        self.bytes += storage.nbytes()
        self.peak_bytes = max(self.peak_bytes, self.bytes)
        weakref.finalize(storage, self._free, storage.nbytes())

    def _free(self, size: int) -> None:
        self.bytes -= size


def _indexes_by_mask(name: str, args: tuple[Any, ...]) -> bool:
    """Whether an operator indexes by a mask, which waits for the host. Filling one value under a mask does not."""
    if (name not in ("index", "index_put", "index_put_", "_unsafe_index")
        or (name.startswith("index_put") and args[2].numel() == 1)):
        return False
    return any(isinstance(i, torch.Tensor) and i.dtype in (torch.bool, torch.uint8) for i in args[1])


def _leaves_the_device(args: tuple[Any, ...], out: Any) -> bool:
    """Whether an operator copies from a device to the host."""
    return (isinstance(out, torch.Tensor) and out.device.type == "cpu"
            and any(isinstance(a, torch.Tensor) and a.device.type not in ("cpu", "meta") for a in args))


def count(work: Work, device: torch.device) -> dict[str, int]:
    """The counts of one run, by name, after a run that is not counted: coefficients are on the host by then, as in
    every run but the first.

    `nfe` is there where the work has evaluations; see the module for the others.
    """
    work.run()
    before = work.evaluations() if work.evaluations else 0.0
    # cycles of the run before would be freed in the midst of this one
    gc.collect(1)
    enabled = gc.isenabled()
    gc.disable()
    try:
        with Counter() as counter:
            work.run()
    finally:
        if enabled:
            gc.enable()
    counts = {"operations": counter.operations, "synchronisations": counter.synchronisations, "flops": counter.flops,
              "peak_bytes": counter.peak_bytes}
    if work.evaluations:
        counts["nfe"] = _as_integer(work.evaluations() - before)
    if device.type == "cuda":
        counts |= {"peak_bytes": _peak_on(device, work.run), "kernel_launches": kernel_launches(work.run, device)}
    return counts


def count_all(cases: Iterable[Case], device: str) -> tuple[dict[str, dict[str, int]], dict[str, str]]:
    """(counts by case, reasons by case that was not counted), graph breaks included. Takes up to a minute."""
    counts, left_out = {}, {}
    for case in cases:
        if case.is_counted:
            try:
                work = case.prepare(torch.device(device))
            except DiffbenchError as error:
                left_out[case.name] = str(error)
                continue
            counts[case.name] = count(work, torch.device(device)) | (
                {"graph_breaks": graph_breaks(work)} if work.traced else {})
    return counts, left_out


def graph_breaks(work: Work) -> int:
    """The number of graph breaks of torch.compile in the work's module, which it must have; takes seconds."""
    assert work.traced is not None, "only what has a module can be traced"
    module, arguments = work.traced
    torch._dynamo.reset()
    with torch.no_grad():
        breaks = torch._dynamo.explain(module)(*arguments).graph_break_count
    torch._dynamo.reset()
    return breaks


def kernel_launches(run: Callable[[], object], device: torch.device) -> int:
    """The kernels that one run launches on a CUDA device, by the profiler."""
    from torch.profiler import ProfilerActivity, profile

    torch.cuda.synchronize(device)
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        run()
        torch.cuda.synchronize(device)
    return sum(event.count for event in profiler.key_averages()
               if event.key.startswith(("cudaLaunchKernel", "cuLaunchKernel")))


def _peak_on(device: torch.device, run: Callable[[], object]) -> int:
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    run()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


def _as_integer(evaluations: float) -> int | float:
    return int(evaluations) if evaluations == int(evaluations) else evaluations
