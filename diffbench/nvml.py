"""What NVIDIA's driver reports of a GPU: its energy and how busy it is. Needs the extra `energy` (nvidia-ml-py)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from diffbench.errors import DiffbenchError


class NotReported(DiffbenchError):
    """The driver cannot be asked, or does not say; the text is why."""


def energy_joules(device: torch.device) -> float:
    """Joules the GPU has used since its driver was loaded, by all its users; counted since Volta, refreshed every 20 to 100 ms."""
    with _asked(device) as (nvml, handle):
        return nvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3            # it counts in millijoules


def busy_share(device: torch.device) -> float:
    """Share of the last second or less in which some kernel ran on the GPU, whoever's it was; in [0, 1]."""
    with _asked(device) as (nvml, handle):
        return nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100


@contextlib.contextmanager
def _asked(device: torch.device) -> Iterator[tuple[Any, Any]]:
    """(the library, its handle of the device that torch calls by this name); raises NotReported."""
    if device.type != "cuda":
        raise NotReported("a CPU's counters need rights that a benchmark does not have")
    try:
        import pynvml
    except ImportError:
        raise NotReported("nvidia-ml-py is not installed: pip install 'diffbench[energy]'") from None
    try:
        pynvml.nvmlInit()
        try:                                              # by its identity: CUDA_VISIBLE_DEVICES renumbers torch's devices and not the driver's
            yield pynvml, pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
        finally:
            pynvml.nvmlShutdown()
    except pynvml.NVMLError as error:
        raise NotReported(f"the driver does not say: {error}") from None
