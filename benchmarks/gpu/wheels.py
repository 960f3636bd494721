"""Wheels for a machine without a network: `python -m benchmarks.gpu.wheels [--to .wheels] [--python 3.12]`.

Downloads a wheel for each of CARRIED and all it needs but what PRESENT names, builds diffbench's own, and ends with an
error where all together are larger than LARGEST_MB. There: `pip install --no-index --no-deps --target SITE
.wheels/*.whl`, and SITE on PYTHONPATH.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from email.parser import Parser
from pathlib import Path

from packaging.markers import default_environment
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
CARRIED = ("diffusers", "azula", "torch-fidelity", "pydantic", "ruamel-yaml", "plotly", "annotated-types")
# What the machine has: the image of a GPU machine with PyTorch, as its page of packages names them.
PRESENT = frozenset("""
    torch torchvision torchmetrics numpy pandas pluggy pyarrow click rich safetensors scikit-learn pillow jinja2
    markupsafe nvidia-ml-py tensorboard matplotlib pytest pytest-benchmark pytest-timeout pytest-xdist filelock
    psutil packaging requests urllib3 certifi idna charset-normalizer httpx httpcore h11 anyio huggingface-hub
    hf-xet tqdm pyyaml regex fsspec typing-extensions zipp scipy joblib threadpoolctl narwhals lightning-utilities
    setuptools python-dateutil six jaxtyping einops tabulate annotated-doc typer shellingham tokenizers accelerate
""".split())
PLATFORMS = tuple(f"manylinux{tag}_x86_64" for tag in ("_2_28", "_2_27", "_2_17", "2014", "2010", "1"))
LARGEST_MB = 48                       # of the 64 that may travel; the rest is for data


def main() -> None:
    """Fills a folder with wheels."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--to", type=Path, default=ROOT / ".wheels",
                        help="an ignored folder; what is in it is removed (%(default)s)")
    parser.add_argument("--python", default="3.12", help="of the machine (%(default)s)")
    options = parser.parse_args()
    shutil.rmtree(options.to, ignore_errors=True)
    options.to.mkdir(parents=True)
    waiting, fetched = list(CARRIED), set()
    while waiting:
        name = waiting.pop()
        if name in fetched or name in PRESENT:
            continue
        fetched.add(name)
        waiting += needs(download(name, options.to, options.python), options.python)
    subprocess.run([sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--wheel-dir", str(options.to), str(ROOT)],
                   check=True)
    wheels = sorted(options.to.glob("*.whl"))
    megabytes = sum(wheel.stat().st_size for wheel in wheels) / 1e6
    for wheel in wheels:
        print(f"{wheel.stat().st_size / 1e6:6.1f} MB  {wheel.name}")
    print(f"{megabytes:6.1f} MB  in {len(wheels)} wheels")
    if megabytes > LARGEST_MB:
        sys.exit(f"more than {LARGEST_MB} MB: take names out of CARRIED")


def download(name: str, to: Path, python: str) -> Path:
    """The wheel of a package for that machine."""
    before = set(to.glob("*.whl"))
    platforms = [option for platform in PLATFORMS for option in ("--platform", platform)]
    subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:",
                    "--python-version", python, "--implementation", "cp",
                    *platforms, "--dest", str(to), name], check=True)
    (wheel,) = set(to.glob("*.whl")) - before
    return wheel


def needs(wheel: Path, python: str) -> Iterator[str]:
    """The names of the requirements of a wheel, extras apart."""
    environment = {**default_environment(), "python_version": python, "python_full_version": f"{python}.0",
                   "platform_machine": "x86_64", "extra": ""}
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = (name for name in archive.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", name))
        metadata_of_wheel = Parser().parsestr(archive.read(metadata).decode())
    for text in metadata_of_wheel.get_all("Requires-Dist", []):
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate(environment):
            yield canonical(requirement.name)


def canonical(name: str) -> str:
    """A name in the form by which package indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    main()
