"""Energy and utilisation of a GPU from NVIDIA's driver. Used by stages. Needs the extra `energy` (nvidia-ml-py)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from diffbench.errors import DiffbenchError


class NotReported(DiffbenchError):
    """Raised where the driver cannot be asked or does not say; the message is the reason."""


def energy_joules(device: torch.device) -> float:
    """Joules that the GPU has used since its driver was loaded, by all users; refreshed every 20 to 100 ms."""
    with _device_handle(device) as (nvml, handle):
        return nvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3            # it counts in millijoules


def busy_share(device: torch.device) -> float:
    """The share of the last second or less in which a kernel of anybody ran on the GPU, in [0, 1]."""
    with _device_handle(device) as (nvml, handle):
        return nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100


@contextlib.contextmanager
def _device_handle(device: torch.device) -> Iterator[tuple[Any, Any]]:
    """(the library, its handle of torch's device). Raises NotReported."""
    if device.type != "cuda":
        raise NotReported("a CPU's counters need rights that a benchmark does not have")
    try:
        import pynvml
    except ImportError:
        raise NotReported("nvidia-ml-py is not installed: pip install 'diffbench[energy]'") from None
    try:
        pynvml.nvmlInit()
        # by its identity: CUDA_VISIBLE_DEVICES renumbers torch's devices and not the driver's
        try:
            yield pynvml, pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
        finally:
            pynvml.nvmlShutdown()
    except pynvml.NVMLError as error:
        raise NotReported(f"the driver does not say: {error}") from None
