import json
from dataclasses import replace

import pytest
from typer.testing import CliRunner

import cli
from i2st_model.demonstration import METHODS, DemoConfig, run_demo, smallest
from pipeline.errors import ConfigError


def test_smallest_demo_changes_only_what_costs_time():
    config = DemoConfig(seed=3)
    small = smallest(config)
    assert (small.seed, small.out) == (3, config.out)
    assert small.videos_per_class < config.videos_per_class
    assert small.train_episodes < config.train_episodes
    assert small.episodes < config.episodes
    # 5-way episodes of these shots have to be possible.
    assert small.videos_per_class > max(small.shots)
    assert config.videos_per_class > max(config.shots)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_smallest_demo_leaves_shards_a_run_and_a_table_and_a_second_one_does_nothing_anew(
    tmp_path, monkeypatch
):
    config = smallest(DemoConfig(out=tmp_path / "demo"))
    stages = []
    report = run_demo(config, on_progress=lambda p: stages.append((p.stage, p.done, p.total)))
    assert list(dict.fromkeys(stage for stage, _, _ in stages)) == [
        "making videos",
        "extracting",
        "training",
        "evaluating",
    ]
    assert all(done <= total for _, done, total in stages)
    assert [e.method for e in report.evaluations] == list(METHODS)
    assert all(e.config.split == "test" and e.config.way == 5 for e in report.evaluations)
    values = report.to_json()
    assert values["synthetic"] is True
    assert json.loads(json.dumps(values)) == values
    again = run_demo(config)
    assert again.extraction.num_new == 0
    assert again.training.notes == ("the run was finished already",)
    assert again.to_json() == values
    with pytest.raises(ConfigError):
        run_demo(replace(config, seed=1))
    # What the demo says comes next is accepted.
    monkeypatch.chdir(config.out)
    done = CliRunner().invoke(cli.app, ["evaluate", "--shot", "1", "--episodes", "20", "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["dataset"] == report.evaluations[0].dataset
