"""Content of environment.json: what the numbers of a run depend on besides its matrix, and the comparison of two of
them.

Used by a run, `rerun`, `doctor` and merged reports. docs/reproducing.md describes the file.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlparse

from diffbench.machine.fingerprint import cores, cpu_name, fingerprint, nvidia_driver
from diffbench.registry import entry_points
from diffbench.results.checked_json import PluginFile, Request

FILE = "environment.json"
SHORTEST_SECRET = 8                   # letters; a shorter value of a variable stands in other words by chance
FORMAT = 2                            # 1 had no number, and no more than versions and the machine
GIT_SECONDS = 2.0                     # a working tree that takes longer to look at is not said to be clean or dirty

# Variables of other libraries that choose kernels, their order of summation, their precision or the devices they see.
CHOOSING = re.compile(
    r"(ATEN|CUBLAS|CUDA|CUDNN|DNNL|GOMP|KMP|MKL|NCCL|OMP|ONEDNN|OPENBLAS|PYTORCH|TORCH)_\w+|NVIDIA_TF32_OVERRIDE|PYTHONHASHSEED")
# Of those, what changes no number: a worker is given its own, or it says how threads wait, or where things lie, and
# what lies there is hashed.
WITHOUT_EFFECT = re.compile(
    r"(OMP|OPENBLAS|MKL)_NUM_THREADS|OMP_WAIT_POLICY|GOMP_SPINCOUNT|KMP_BLOCKTIME|CUDA_VISIBLE_DEVICES|PYTHONHASHSEED|DIFFBENCH_\w+|"
    r"[A-Z]+_(\w+_)?(HOME|PATH|DIR|VERSION)")
# Packages that read, check and show, and compute nothing; and ours, of which the keys of stages tell more than its
# version.
SILENT = re.compile(
    r"diffbench|annotated-types|click|cloudpickle|colorama|filelock|fsspec|importlib-metadata|jinja2|joblib|lazy-importer|lightning-utilities|"
    r"markdown-it-py|markupsafe|mdurl|mpmath|narwhals|networkx|packaging|pandas|pluggy|pyarrow|pydantic|pydantic-core|pygments|python-dateutil|"
    r"pytz|rich|ruamel-yaml\S*|safetensors|setuptools|six|sympy|tabulate|tqdm|typing-\S+|tzdata|zipp")
# Parts of the file that may change bits. Code is not among them: the keys of stages say what it was, commits only where
# to find it.
DECISIVE = ("python", "libc", "architecture", "cpu", "cpu_capability", "gpus", "gpu_software", "packages", "settings",
            "variables")

_HEADER = re.compile(r"^(Version|Requires-Dist): (.*)$", re.MULTILINE)
_SECRET = r"token|secret|passw|credential|api_?key|private_?key"
_URL_USER = re.compile(r"(?<=://)[^/@\s]+(?=@)")
_SECRET_VALUE = re.compile(rf"((?:{_SECRET})[^=\s]*=)\S+", re.IGNORECASE)


class Change(NamedTuple):
    """One thing that was otherwise then, as JSON; None where it was, or is, not there."""

    what: str                         # "packages.torch", "libc", ...
    then: Any
    now: Any

    @property
    def part(self) -> str:
        """The part of environment.json that it stands in."""
        return self.what.partition(".")[0]

    @property
    def name(self) -> str:
        """Name of the changed entry within that part."""
        return self.what.partition(".")[2]

    def __str__(self) -> str:
        return f"{self.name or self.what} {_shown(self.then)} then, {_shown(self.now)} now"


def environment(device: str, *, request: Request | None = None, matrix: Path | None = None,
                is_deterministic: bool = False) -> dict[str, Any]:
    """The content of environment.json for a run on this machine, as JSON. device: "cpu", "cuda" or "cuda:N".

    request: how the run was asked for, which `diffbench rerun` repeats; matrix: its file, whose project's commit is
    noted; is_deterministic: what the matrix asks of the workers.
    """
    plugins = _plugins()
    return {
        "format": FORMAT, "command": [Path(sys.argv[0]).name, *map(without_secrets, sys.argv[1:])],
        "request": request or {},
        "python": platform.python_version(), "platform": platform.platform(), "architecture": platform.machine(),
        "libc": " ".join(platform.libc_ver()),
        "cpu": cpu_name(), "cores": cores(), "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "machine": fingerprint(device), **_devices(device),
        "packages": packages(["diffbench", *(plugin["distribution"] for plugin in plugins)]), "plugins": plugins,
        "git": {"diffbench": git_state(Path(__file__).parents[1]), "project": _project(matrix) if matrix else None},
        "settings": _settings(is_deterministic), "variables": _variables(os.environ),
    }


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[Change]:
    """Differences between two environments that may change bits.
    What `then` does not tell, being of an earlier format, is no difference.
    """
    changes = []
    for part in DECISIVE:
        before, after = then.get(part), now.get(part)
        if "format" not in then and isinstance(before, Mapping) and isinstance(after, Mapping):
            after = {name: after.get(name) for name in before}
        if part in then:
            changes += differing(part, before, after)
    ignored = {"variables": WITHOUT_EFFECT, "packages": SILENT}
    return [change for change in changes if not (change.part in ignored
                                                 and ignored[change.part].fullmatch(change.name))]


def differing(what: str, then: Any, now: Any) -> Iterator[Change]:
    """The leaves in which two JSON values differ; lists as a whole."""
    if isinstance(then, Mapping) and isinstance(now, Mapping):
        for key in sorted({*then, *now}):
            yield from differing(f"{what}.{key}", then.get(key), now.get(key))
    elif what == "gpus":
        # which of equal ones it was, and how many there are, changes nothing
        models = [sorted({(gpu.get("name"), gpu.get("compute_capability")) for gpu in side or ()})
                  for side in (then, now)]
        if models[0] != models[1]:
            yield Change(what, *([name for name, _ in side] for side in models))
    elif then != now:
        yield Change(what, then, now)


def packages(roots: Iterable[str]) -> dict[str, str]:
    """Versions of these distributions and of all that they need, extras apart, as far as they are installed;
    by normalised name.
    """
    versions: dict[str, str] = {}
    waiting = list(roots)
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in versions:
            continue
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:             # needed on another system, or by another Python
            continue
        text = distribution.read_text("METADATA") or distribution.read_text("PKG-INFO") or ""
        # parsing the whole as a message takes ten times as long
        headers = _HEADER.findall(text.partition("\n\n")[0])
        versions[name] = next((value.strip() for key, value in headers if key == "Version"), "")
        waiting += [re.split(r"[^A-Za-z0-9._-]", value, maxsplit=1)[0] for key, value in headers
                    if key == "Requires-Dist" and "extra ==" not in value]
    return dict(sorted(versions.items()))


def git_state(folder: Path) -> dict[str, Any] | None:
    """{"commit", "is_dirty"} of the repository whose tracked files lie in a folder; None where there is none. is_dirty:
    whether tracked files differ from the commit, None where that could not be told soon.

    An installed copy inside somebody's repository is none of its files, so its commit is not told.
    """
    return _state(folder) if _git(folder, "ls-files", "--error-unmatch", ".") is not None else None


def git_commit(folder: Path) -> str | None:
    """The commit as a row of the results has it, with '+changes' where files differ from it; None outside a repository.
    """
    state = git_state(folder)
    return state and state["commit"] + ("+changes" if state["is_dirty"] else "")


def files_of(plugins: Sequence[str]) -> list[PluginFile]:
    """Loose plug-in files as a request names them: where they lie, and their SHA-256."""
    return [{"path": str(Path(file).resolve()), "sha256": hashlib.sha256(Path(file).read_bytes()).hexdigest()}
            for file in plugins]


def without_secrets(text: str) -> str:
    """A word of a command, or what another library says, without what looks like a credential or stands in a variable
    that holds one.
    """
    for name, value in os.environ.items():
        if len(value) >= SHORTEST_SECRET and re.search(_SECRET, name, re.IGNORECASE):
            text = text.replace(value, "***")
    return _SECRET_VALUE.sub(r"\1***", _URL_USER.sub("***", text))


def _devices(device: str) -> dict[str, Any]:
    """Devices that compute. GPUs are asked for a run on them alone:
    to look at them costs seconds, and to others they change nothing.
    """
    import torch

    devices: dict[str, Any] = {"cpu_capability": torch.backends.cpu.get_cpu_capability(), "gpus": [],
                               "gpu_software": None}
    if not device.startswith("cuda"):
        return devices
    for i in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(i)
        devices["gpus"].append({"name": properties.name, "memory_bytes": properties.total_memory,
                              "uuid": f"GPU-{properties.uuid}",
                              "compute_capability": f"{properties.major}.{properties.minor}"})
    nccl = (".".join(map(str, torch.cuda.nccl.version())) if torch.distributed.is_available()
            and torch.distributed.is_nccl_available() else None)
    devices["gpu_software"] = {"driver": nvidia_driver(), "cuda": torch.version.cuda,
                               "cudnn": torch.backends.cudnn.version(), "nccl": nccl}
    return devices


def _settings(is_deterministic: bool) -> dict[str, Any]:
    """Torch's switches that change bits, as the process that starts the run has them;
    workers begin with torch's own, and `deterministic`.
    """
    import torch

    return {
        "deterministic": is_deterministic, "float32_matmul_precision": torch.get_float32_matmul_precision(),
        "cuda_matmul": _precision(torch.backends.cuda.matmul), "cudnn": _precision(torch.backends.cudnn),
        "bf16_reduced_precision_reduction": torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction,
        "cudnn_benchmark": torch.backends.cudnn.benchmark, "cudnn_deterministic": torch.backends.cudnn.deterministic,
        "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
        "mkl": torch.backends.mkl.is_available(),
        "mkldnn": torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled,
        "default_dtype": str(torch.get_default_dtype()).partition(".")[2],
    }


def _precision(backend: Any) -> str:
    """Precision in which a backend multiplies float32: since torch 2.9 a word, and the switch it had before may then
    not be asked.
    """
    word = getattr(backend, "fp32_precision", None)
    return word if word not in (None, "none") else "tf32" if backend.allow_tf32 else "ieee"


def _variables(environ: Mapping[str, str]) -> dict[str, str]:
    chosen = {name: value for name, value in environ.items() if name.startswith("DIFFBENCH_")
              or CHOOSING.fullmatch(name)}
    return {name: "***" if re.search(_SECRET, name, re.IGNORECASE) else without_secrets(chosen[name])
            for name in sorted(chosen)}


def _plugins() -> list[dict[str, Any]]:
    """Every distribution that offers components or hooks, with what it offers:
    the built-in ones come through the same door.
    """
    plugins = []
    for distribution in metadata.distributions():
        offers = {f"{point.group}:{point.name}": point.value for point in distribution.entry_points
                  if point.group.partition(".")[0] == "diffbench"}
        # an editable install may be met twice on the path
        if offers and distribution.name not in (plugin["distribution"] for plugin in plugins):
            is_editable = entry_points.is_editable(distribution)
            plugins.append({"distribution": distribution.name, "version": distribution.version,
                          "is_editable": is_editable,
                          "git": git_state(_folder_of(distribution)) if is_editable else None,
                          "entry_points": dict(sorted(offers.items()))})
    return sorted(plugins, key=lambda plugin: plugin["distribution"])


def _folder_of(distribution: metadata.Distribution) -> Path:
    """Folder of an editable distribution's source (PEP 610)."""
    return Path(unquote(urlparse(json.loads(distribution.read_text("direct_url.json") or "{}")["url"]).path))


def _project(matrix: Path) -> dict[str, Any] | None:
    """The state of the repository that a matrix lies in, and whether it holds the matrix; None outside of one."""
    state = _state(matrix.parent)
    inside = _git(matrix.parent, "ls-files", "--full-name", "--", matrix.name) if state else None
    return state and state | {"matrix": inside or None}


def _state(folder: Path) -> dict[str, Any] | None:
    commit = _git(folder, "rev-parse", "--verify", "HEAD")
    if not commit:
        return None
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "is_dirty": None if changes is None else bool(changes)}


def _git(folder: Path, *arguments: str) -> str | None:
    """Output of git, or None where it fails or takes too long.
    It takes no lock, and starts no program that a repository names.
    """
    command = ["git", "--no-optional-locks", "-c", "core.fsmonitor=false", "-C", str(folder), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=GIT_SECONDS, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_shown, value)) or "none"
    return "absent" if value is None else str(value)
