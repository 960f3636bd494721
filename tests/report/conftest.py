"""What tests of the page share: an empty store, and a folder of results whose rows were made up."""

import pytest

from diffbench.store.artefacts import Store
from tests.helpers import made_rows


@pytest.fixture
def store(tmp_path):
    found = Store(tmp_path / "store")
    found.prepare()
    return found


@pytest.fixture
def run(tmp_path):
    return made_rows.folder(tmp_path / "run", made_rows.rows(), pictures=True)
