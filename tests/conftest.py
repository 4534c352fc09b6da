"""Shared by all tests: one torch thread, fixed random draws, and the real data where it is."""

import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings

# The same examples in every run, and no verdict on how fast a busy machine made them.
settings.register_profile(
    "repeatable",
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
settings.load_profile("repeatable")

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    # Two OpenMP threads on shared cores are several times slower and change sums in the last bit.
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def fixed_rng():
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def repository() -> Path:
    return REPOSITORY


def _shared(name: str, variable: str) -> Path:
    folder = Path(os.environ.get(variable, REPOSITORY.parent / "shared" / name))
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent; set {variable} to the folder")
    return folder


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder with jhmdb21/{videos,masks,masks_deeplab,clips.csv}."""
    return _shared("data", "I2ST_REAL_DATA")


@pytest.fixture(scope="session")
def split_lists() -> Path:
    """Folder with the published split lists and their normalised tables."""
    return _shared("splits", "I2ST_SPLIT_LISTS")


@pytest.fixture
def fake_backends(tmp_path, monkeypatch):
    """Decoder, encoder and segmenters of extraction_fakes, found as an installed package's are."""
    from extraction_fakes import add_entry_points

    add_entry_points(tmp_path / "site")
    monkeypatch.syspath_prepend(tmp_path / "site")
