"""Which GPU each of the processes that share a run takes."""

import pytest
import torch

from i2st_model.training import ranks as training_ranks
from i2st_model.training.ranks import Ranks
from pipeline.errors import ConfigError


@pytest.fixture
def two_gpus(monkeypatch):
    """A machine that claims to have two GPUs, and the GPU that was taken."""
    taken = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    return taken


def test_every_process_has_a_gpu_of_its_own(two_gpus, monkeypatch):
    for local, device in (("0", "cuda:0"), ("1", "cuda:1")):
        monkeypatch.setenv("LOCAL_RANK", local)
        assert Ranks(int(local), 4).own_device("auto") == device
    monkeypatch.setenv("LOCAL_RANK", "2")
    message = "process 2 of this machine cuda:0, of 2 GPUs; one for each .*; start fewer with --npr"
    for name in ("auto", "cuda"):
        with pytest.raises(ConfigError, match=f"device={name} gives {message}"):
            Ranks(2, 4).own_device(name)
    assert Ranks(2, 4).own_device("cpu") == "cpu"  # the hint
    with pytest.raises(ConfigError, match=r"device=cuda:1 gives process 2 .*; pass --device cuda$"):
        Ranks(2, 4).own_device("cuda:1")
    assert Ranks().own_device("cuda:1") == "cuda:1"


@pytest.mark.parametrize(("local", "expected"), [("1", [1]), ("2", [])])
def test_a_process_without_a_gpu_joins_the_others_to_be_heard(
    two_gpus, monkeypatch, local, expected
):
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda *a, **b: None)
    monkeypatch.setattr(torch.distributed, "destroy_process_group", lambda: None)
    monkeypatch.setattr(training_ranks, "current_ranks", lambda: Ranks(int(local), 3, "cuda"))
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("LOCAL_RANK", local)
    with training_ranks.joined_ranks(device="auto"):
        assert two_gpus == expected
