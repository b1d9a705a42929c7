from pathlib import Path

import pytest
import torch

from tests.student.builders import make_encoder


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Networks this small are slower with more, most of all on cores that others use."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="session")
def sentence_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_encoder(tmp_path_factory.mktemp("sentence-encoder"), mean_pooled=True)
