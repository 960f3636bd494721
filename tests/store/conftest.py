"""What tests of the store share: an empty one."""

import pytest

from diffbench.store.artefacts import Store


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "home")
