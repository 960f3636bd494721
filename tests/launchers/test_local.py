"""The local launcher: the suite, and what only it promises."""

import pytest

from diffbench.launchers.local import LocalLauncher
from diffbench.testing import launching
from tests.launchers import run


def make():
    return LocalLauncher(gpus=["5", "GPU-8932f937"])


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    with launching.Bench("tests.launchers.test_local:make", tmp_path_factory.mktemp("local bench ü"), gpus=2) as bench:
        yield bench


@pytest.mark.parametrize("check", launching.CHECKS, ids=lambda check: check.__name__)
def test_suite(bench, check):
    run(check, bench)
