import pytest
import torch

from pipeline.devices import check_device_name, resolve_device
from pipeline.errors import ConfigError


def pretend_gpus(monkeypatch, count):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)


@pytest.mark.parametrize(
    ("name", "num_gpus", "device"),
    [
        ("cpu", 0, "cpu"),
        ("auto", 0, "cpu"),
        ("cpu", 2, "cpu"),
        ("auto", 2, "cuda:1"),
        ("cuda", 2, "cuda:1"),
        ("cuda:0", 2, "cuda:0"),
    ],
)
def test_device_is_the_one_named_and_workers_take_turns(monkeypatch, name, num_gpus, device):
    pretend_gpus(monkeypatch, num_gpus)
    assert resolve_device(name, worker_number=3) == device


@pytest.mark.parametrize(("name", "num_gpus"), [("cuda", 0), ("cuda:0", 0), ("cuda:2", 2)])
def test_a_device_that_is_not_there_is_refused(monkeypatch, name, num_gpus):
    pretend_gpus(monkeypatch, num_gpus)
    with pytest.raises(ConfigError, match=f"{name}.*has {num_gpus} GPUs.*--device auto"):
        resolve_device(name)


@pytest.mark.parametrize("name", ["gpu", "cuda:-1", "cuda:", "CPU", "mps", ""])
def test_what_names_no_device_is_refused_with_the_names_that_do(monkeypatch, name):
    pretend_gpus(monkeypatch, 2)
    expected = f"unknown device {name!r}; known: auto, cpu, cuda, cuda:N; pass one of these"
    for check in (resolve_device, check_device_name):
        with pytest.raises(ConfigError) as refusal:
            check(name)
        assert str(refusal.value) == expected
