"""What a method gets that another package adds: one class of 30 lines and one entry point."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from synthetic_shards import make_shards

from i2st_model.evaluation import EvaluateConfig, evaluate
from i2st_model.features import FeatureStore
from i2st_model.load_method import load_method, train_statistics
from i2st_model.methods import get_method, method_names
from i2st_model.training.config import TrainConfig
from i2st_model.training.run import train

CLASS = Path(__file__).with_name("example_method.py")
CHANCE = (
    "from i2st_model.methods.chance import Chance\n\n\nclass Luck(Chance):\n    name = 'luck'\n"
)


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Make a folder look like an installed distribution with two methods."""
    info = tmp_path / "site" / "mapped-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mapped\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[i2st.methods]\nmapped = example_method:Mapped\nluck = example_luck:Luck\n"
    )
    (tmp_path / "site" / "example_luck.py").write_text(CHANCE)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))


def test_the_example_is_one_class_of_at_most_30_lines():
    assert len(CLASS.read_text().splitlines()) <= 30


def test_an_entry_point_is_listed_built_and_evaluated(installed, tmp_path):
    assert {"mapped", "luck"} <= set(method_names())
    store = FeatureStore(make_shards(tmp_path / "shards", signal=200.0))
    method = get_method("mapped", dim=16)
    torch.manual_seed(0)
    method.fit(train_statistics(store, store.rows_of(store.classes_of("train"))))
    found = evaluate(method.eval(), store, EvaluateConfig(episodes=50, device="cpu"))
    # The classes lie so far apart that a random map keeps them so.
    assert (found.method, found.accuracy.mean) == ("mapped", 100.0)


def test_an_entry_point_has_the_command_line(installed, tmp_path, monkeypatch):
    from typer.testing import CliRunner

    import cli

    make_shards(tmp_path / "shards" / "toy")
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(cli.app, ["evaluate", "--method", "luck", "--episodes", "400"])
    assert done.exit_code == 0, done.output
    assert "luck on toy test (5 classes, 40 videos), 5-way 1-shot" in done.stdout
    accuracy = float(done.stdout.split("episodes: ")[1].split()[0])
    assert np.isclose(accuracy, 20, atol=8)  # 40 videos have some luck of their own


def test_an_entry_point_is_trained_and_its_run_evaluated(installed, tmp_path):
    store = FeatureStore(make_shards(tmp_path / "shards", signal=6.0, nuisance=2.0))
    settings = TrainConfig(
        method="mapped", options={"dim": 8}, episodes=320, select="last", fast_rate=1e-2
    )
    run = train(replace(settings, device="cpu"), store, tmp_path / "run").run_folder
    method, checkpoint = load_method(
        "mapped", store, shards=tmp_path / "shards", run=run, device="cpu"
    )
    assert (method.dim, checkpoint.info.method) == (8, "mapped")
    few = EvaluateConfig(episodes=400, shot=3, device="cpu")
    trained = evaluate(method, store, few, checkpoint=checkpoint).accuracy.mean
    plain, _ = load_method("protonet", store, shards=tmp_path / "shards", device="cpu")
    # Training learns to leave out the four channels in which videos differ and classes do not.
    assert trained > evaluate(plain, store, few).accuracy.mean + 10
