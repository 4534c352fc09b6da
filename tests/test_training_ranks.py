"""Several pools a step, on one process or shared by two."""

import os
import re
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from synthetic_shards import make_shards
from test_training import SMALL, make_batch, make_learner, open_store, weights_of

from i2st_model.checkpoints import load_checkpoint
from i2st_model.runs import CONFIG_NAME, LOG_NAME, STATE_NAME
from i2st_model.training.ahead import made_ahead
from i2st_model.training.config import TrainConfig
from i2st_model.training.ranks import Ranks
from i2st_model.training.run import train
from i2st_model.training.setup import pool_sampler, torch_seed
from i2st_model.training.step import build_optimizer, take_step
from i2st_model.training.step_pools import require_shared, step_pools
from pipeline.errors import ConfigError

POOLS = replace(SMALL, pools_per_step=4, episodes=64 * 4 + 40)

RUNNER = """
import sys, torch
sys.path.insert(0, "tests")
torch.set_num_threads(1)
from pathlib import Path
import cli
from test_training_ranks import {config}, fail_on_second, open_store, threads_of_the_group
from i2st_model.training.ranks import joined_ranks
from i2st_model.training.run import train
from pipeline.errors import I2STError
with joined_ranks(device="cpu") as ranks:
    {before}
    try:
        train({config}, open_store(Path(sys.argv[1])), Path(sys.argv[2]), resume=True)
    except I2STError as fault:
        print(f"exit {{fault.exit_code}}: {{fault}}", flush=True)
    assert threads_of_the_group() or not Path("/proc/self/task").exists()
assert not threads_of_the_group()  # one that outlasts the group can abort the process at its end
"""


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards") / "toy"
    make_shards(folder, signal=2.0)
    return folder


@pytest.fixture(scope="module")
def alone(shards, tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "alone"
    return train(POOLS, open_store(shards), run)


def fail_on_second(ranks):
    """Let the second process meet a fault that the user can mend, in its third step."""
    from i2st_model.training.cached_learner import CachedLearner

    losses, calls = CachedLearner.losses, []

    def failing(self, batch):
        calls.append(1)
        if ranks.number == 1 and len(calls) == 5:
            raise ConfigError("the disk of the second process is gone")
        return losses(self, batch)

    CachedLearner.losses = failing


def threads_of_the_group():
    """Names of this process's threads that serve its group of processes, where Linux tells."""
    names = (path.read_text() for path in Path("/proc/self/task").glob("*/comm"))
    return [name for name in names if "gloo_runloop" in name]


def start_two(repository, code, *words):
    """What torchrun does, for two processes: both outputs."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, *map(str, words)],
            cwd=repository,
            env={
                **environment,
                "MASTER_PORT": str(port),
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "OMP_NUM_THREADS": "1",
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    said = [process.communicate(timeout=120) for process in processes]
    return [(process.returncode, *text) for process, text in zip(processes, said, strict=True)]


def test_two_processes_end_in_the_bits_of_one(shards, alone, tmp_path, repository):
    run = tmp_path / "two"
    ended = start_two(repository, RUNNER.format(config="POOLS", before="pass"), shards, run)
    assert [code for code, _, _ in ended] == [0, 0], ended
    assert weights_of(run) == weights_of(alone.run_folder)
    assert (run / LOG_NAME).read_bytes() == (alone.run_folder / LOG_NAME).read_bytes()
    assert {path.name for path in run.iterdir()} == {
        path.name for path in alone.run_folder.iterdir()
    }


def test_fault_of_one_process_ends_all_with_its_message(shards, tmp_path, repository):
    code = RUNNER.format(config="POOLS", before="fail_on_second(ranks)")
    ended = start_two(repository, code, shards, tmp_path / "run")
    said = "the disk of the second process is gone"
    assert ended[0][:2] == (0, f"exit 2: {said} (process 1 of 2)\n"), ended
    assert ended[1][:2] == (0, f"exit 2: {said}\n"), ended
    assert (tmp_path / "run" / STATE_NAME).exists()


def test_a_run_folder_that_machines_do_not_share_is_refused(shards, tmp_path, repository):
    run = tmp_path / "0"
    code = RUNNER.format(config="POOLS", before="fail_on_second(ranks)")
    start_two(repository, code, shards, run)
    assert (run / STATE_NAME).exists()
    own = RUNNER.format(config="POOLS", before="sys.argv[2] = sys.argv[2][:-1] + str(ranks.number)")
    ended = start_two(repository, own, shards, run)
    assert all("is at step 0 on one machine and at step 2 on another" in out for _, out, _ in ended)


@pytest.mark.parametrize(
    ("otherwise", "said"),
    [
        ("POOLS = replace(POOLS, seed=3 * ranks.number)", "seed 0 there and 3 here"),
        (
            "POOLS = replace(POOLS, network={**POOLS.network, 'dim': 16 + 16 * ranks.number})",
            "network.dim 16 there and 32 here",
        ),
        ("torch.set_num_threads(1 + ranks.number)", "threads 1 there and 2 here"),
        (
            "real = open_store; open_store = lambda at: other_digest(real(at), ranks.number)",
            r"digest [0-9a-f]{12}\.\.\. there and 'ffff' here",
        ),
    ],
)
def test_processes_that_were_started_otherwise_are_refused_in_all(
    shards, tmp_path, repository, otherwise, said
):
    before = f"from dataclasses import replace; from test_training_ranks import *; {otherwise}"
    ended = start_two(
        repository, RUNNER.format(config="POOLS", before=before), shards, tmp_path / "run"
    )
    for code, out, err in ended:
        assert code == 0, err
        assert re.match(f"exit 2: process 1 .* than process 0 .*{said}; one run was needed", out)
        assert out.count("\n") == 1
    assert not (tmp_path / "run").exists()  # as after any settings that are refused


def other_digest(store, number):
    """What a machine sees whose shards are others."""
    if number:
        store.index = replace(store.index, digest="ffff")
    return store


def test_step_takes_the_mean_gradient_of_its_pools(shards):
    dry = {**POOLS.network, "dropout": 0.0, "channel_dropout": 0.0}
    config = replace(POOLS, network=dry, gradient_clip=1e9)
    learner = make_learner(open_store(shards), config)
    expected = {
        name: torch.zeros_like(p).double() for name, p in learner.network.named_parameters()
    }
    for number in range(4):
        learner.network.zero_grad()
        learner.losses(make_batch(learner, number, 16)).total.backward()
        for name, parameter in learner.network.named_parameters():
            if parameter.grad is not None:
                expected[name] += parameter.grad.double() / 4
    batches = [make_batch(learner, number, 16) for number in range(4)]
    optimizer = build_optimizer(config, learner)
    result = take_step(
        config, learner, optimizer, batches, pools=step_pools(config, 0), ranks=Ranks()
    )
    for name, parameter in learner.network.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(
                parameter.grad.double(), expected[name], rtol=1e-5, atol=1e-7, msg=name
            )
    whole = torch.cat([value.flatten() for value in expected.values()]).norm().item()
    assert result.gradient_norm == pytest.approx(whole, rel=1e-5)


def test_pools_and_seeds_of_a_run_are_all_distinct(shards):
    numbers = [number for step in range(5) for number in step_pools(POOLS, step).numbers]
    assert numbers == list(range(20))
    assert len({torch_seed(0, number) for number in numbers}) == 20
    sampler = pool_sampler(POOLS, open_store(shards))
    seen = {
        (pool.rows.tobytes(), pool.support.tobytes(), pool.query.tobytes())
        for pool in (sampler.pool(number, 16) for number in numbers)
    }
    assert len(seen) == 20
    shares = [Ranks(rank, 3).share(range(4)) for rank in range(3)]
    assert [list(share) for share in shares] == [[0, 3], [1], [2]]


def test_last_step_divides_the_episodes_that_are_left():
    assert step_pools(POOLS, 4).episodes == (10, 10, 10, 10)
    few = replace(POOLS, episodes=64 + 3)
    assert (step_pools(few, 1).numbers, step_pools(few, 1).episodes) == ((4, 5, 6), (1, 1, 1))
    uneven = replace(POOLS, episodes=64 + 6)
    assert step_pools(uneven, 1).episodes == (2, 2, 1, 1)
    assert step_pools(uneven, 1).shares == (2 / 6, 2 / 6, 1 / 6, 1 / 6)
    assert step_pools(TrainConfig(episodes=100), 1).shares == (1.0,)


def test_processes_without_a_pool_are_refused_and_the_hint_works():
    with pytest.raises(ConfigError, match="pools_per_step=4 with 8 processes.*pools_per_step=8"):
        require_shared(POOLS, 8)
    require_shared(replace(POOLS, pools_per_step=8), 8)
    few = replace(POOLS, episodes=64 + 3)
    with pytest.raises(ConfigError, match=r"leaves 3 for the last step, 4 .*--episodes 64"):
        require_shared(few, 4)
    require_shared(replace(few, episodes=64), 4)
    with pytest.raises(ConfigError, match="episodes_per_step=64 with pools_per_step=5.* to 65"):
        replace(POOLS, pools_per_step=5)
    replace(POOLS, pools_per_step=5, episodes_per_step=65)


def test_log_and_checkpoint_say_the_pools(alone):
    assert load_checkpoint(alone.run_folder).info.train["pools_per_step"] == 4
    assert '"pools_per_step": 4' in (alone.run_folder / CONFIG_NAME).read_text()


def test_things_made_ahead_come_in_order_one_ahead_and_faults_come_through():
    begun = []

    def make(number):
        begun.append(number)
        if number == 4:
            raise ValueError("four")
        return number * 10

    things = made_ahead(make, range(10))
    assert [next(things) for _ in range(4)] == [0, 10, 20, 30]
    with pytest.raises(ValueError, match="four"):
        next(things)
    assert begun[:5] == [0, 1, 2, 3, 4]
    assert list(made_ahead(make, [])) == []
    assert np.all(list(made_ahead(make, [7])) == [70])
