import json

import pytest

from i2st_model.runs import CONFIG_NAME
from i2st_model.settings import change_config, recorded_run
from i2st_model.training.config import TrainConfig
from pipeline.errors import CheckpointError, ConfigError


def changed(*words, **flags):
    return change_config(TrainConfig(), flags, words)


@pytest.mark.parametrize(
    ("word", "name", "value"),
    [
        ("beta=0.5", "beta", 0.5),
        ("fast_rate=1e-3", "fast_rate", 0.001),  # a word to YAML
        ("fast_rate=1", "fast_rate", 1),
        ("flips=false", "flips", False),
        ("flips=null", "flips", None),
        ("frames=4", "frames", 4),
        ("masks=off", "masks", "off"),  # false to YAML
        ("masks=true", "masks", "true"),
        ("device=cpu", "device", "cpu"),
        ("classes=[run, brush hair]", "classes", ("run", "brush hair")),
    ],
)
def test_word_sets_a_train_setting(word, name, value):
    found = getattr(changed(word), name)
    assert found == value
    assert type(found) is type(value)


def test_word_sets_a_network_setting_on_top_of_those_there_are():
    before = TrainConfig(network={"dim": 64, "heads": 4})
    after = change_config(before, {}, ["dim=32", "instances=none", "centre=false"])
    assert after.network == {"dim": 32, "heads": 4, "instances": "none", "centre": False}
    assert before.network == {"dim": 64, "heads": 4}


def test_last_word_wins_and_words_win_over_flags():
    config = changed("episodes=7", "episodes=8", episodes=6, seed=3)
    assert (config.episodes, config.seed) == (8, 3)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("beta", "setting 'beta' cannot be read; name=value was needed; write e.g. beta=0.5"),
        ("masks", "setting 'masks' cannot be read"),
        ("beta={a: 1}", "cannot be read"),
        ("beta=[", "cannot be read"),
        ("bta=1", "unknown setting 'bta'.*did you mean 'beta'"),
        ("=1", "unknown setting ''.*docs/method.md"),
        ("token_dim=5", "unknown setting 'token_dim'"),  # the shards decide it
        ("network=5", "unknown setting 'network'"),
        ("beta=x", "beta='x' is no number; number was needed"),
        ("beta=null", "beta=None is no number"),
        ("way=2.5", "way=2.5 is no whole number"),
        ("masks=no", "masks='no' is unknown; one of true, shuffled, off"),
        ("classes=3", "classes=3; a list of class names was needed"),
    ],
)
def test_word_that_sets_nothing_is_refused(word, message):
    with pytest.raises(ConfigError, match=message):
        changed(word)


def test_recorded_run_is_what_config_json_says(tmp_path):
    config = TrainConfig(seed=4, classes=("a", "b"), network={"dim": 32})
    values = {"train": config.to_dict(), "shards": str(tmp_path)}
    (tmp_path / CONFIG_NAME).write_text(json.dumps(values))
    found = recorded_run(tmp_path)
    assert (found.train, found.shards) == (config, tmp_path)
    (tmp_path / CONFIG_NAME).write_text(json.dumps({**values, "shards": str(tmp_path / "gone")}))
    assert recorded_run(tmp_path).shards is None


@pytest.mark.parametrize("values", [{}, {"shards": "x"}, {"shards": None, "train": {}}])
def test_run_without_its_settings_is_refused(tmp_path, values):
    (tmp_path / CONFIG_NAME).write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match="lacks .*start another run"):
        recorded_run(tmp_path)
