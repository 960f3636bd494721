"""The fingerprint of this machine: facts that timings depend on.

Used by throughput stages and by the history of durations.
"""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

from diffbench.store.digest import digest

DRIVER = Path("/proc/driver/nvidia/version")


def cores() -> int:
    """The number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@functools.cache
def cpu_name() -> str:
    """The name of the processor as the operating system gives it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        return platform.processor() or platform.machine()
    return platform.processor() or platform.machine()


@functools.cache
def fingerprint(device: str) -> dict[str, Any]:
    """The facts that a throughput figure depends on; figures with different ones are never compared."""
    import torch

    facts: dict[str, Any] = {"device": device.partition(":")[0], "torch": str(torch.__version__)}
    if device.startswith("cuda"):
        properties = torch.cuda.get_device_properties(torch.device(device))
        return facts | {"gpu": properties.name, "gpu_memory_bytes": properties.total_memory, "cuda": torch.version.cuda,
                        "driver": nvidia_driver()}
    return facts | {"cpu": cpu_name(), "cores": cores(), "capability": torch.backends.cpu.get_cpu_capability()}


@functools.cache
def machine_digest(device: str) -> str:
    """The fingerprint as twelve characters, by which earlier timings are found."""
    return digest(fingerprint(device))[:12]


def nvidia_driver() -> str:
    """The version of NVIDIA's driver, or '' where neither the kernel nor nvidia-smi gives it."""
    # asked by every worker on a GPU, and nvidia-smi takes a second
    with contextlib.suppress(OSError):
        match = re.search(r"Kernel Module.*?\s(\d+\.\d+(?:\.\d+)?)\s", DRIVER.read_text())
        if match:
            return match[1]
    try:
        answer = subprocess.run(["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"],
                                capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return answer.stdout.splitlines()[0].strip() if answer.stdout else ""


def resolve_device(device: str) -> str:
    """The device for 'auto', 'cpu', 'cuda' or 'cuda:N'. Raises ValueError for a device that is not there.

    GPUs that differ cannot be used together: how fast a stage was would depend on which it got.
    """
    import torch

    if device == "cpu" or (device == "auto" and not torch.cuda.is_available()):
        return "cpu"
    device = "cuda" if device == "auto" else device
    name, _, index = device.partition(":")
    if name != "cuda" or (index and not index.isdigit()):
        raise ValueError(f"a device is auto, cpu, cuda or cuda:N, got {device!r}")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if int(index or 0) >= count:
        raise ValueError(f"the device {device!r} is not there: this machine has {count} CUDA "
                         f"device{'s' if count != 1 else ''}")
    models = sorted({torch.cuda.get_device_name(i) for i in range(count)})
    if not index and len(models) > 1:
        raise ValueError(f"the GPUs of this machine differ ({', '.join(models)}): name one of them as cuda:N")
    return f"cuda:{int(index)}" if index else "cuda"
