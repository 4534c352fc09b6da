import json

import pytest

from i2st_model.methods.hyrsm import HyRSM
from i2st_model.methods.trx import Trx
from i2st_model.runs import CONFIG_NAME
from i2st_model.settings import change_config, recorded_run
from i2st_model.settings_file import write_settings
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


@pytest.mark.parametrize("nothing", ["null", "~", ""])
def test_nothing_in_a_file_is_nothing(tmp_path, nothing):
    file = tmp_path / "settings.yaml"
    file.write_text(f"init_from: {nothing}\nflips: {nothing}\nclasses: {nothing}\n")
    before = TrainConfig(init_from="runs/a", flips=True, classes=("a",))
    assert change_config(before, {}, [], file=file) == TrainConfig()


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


# --- settings inside others, and in files ---


def test_dotted_words_reach_into_network_options_and_encoder():
    config = changed("options.cardinalities=[2]", "encoder.name=timm:resnet50", "method=trx")
    assert changed("network.dim=64").network == {"dim": 64}
    assert config.options == {"cardinalities": [2]}
    assert config.encoder == {"name": "timm:resnet50"}
    for word, hint in {
        "network.dmi=64": "did you mean 'network.dim'",
        "network.grid=7": "unknown setting 'network.grid'",  # the shards decide it
        "options.=3": "unknown setting 'options.'",
        "seed.x=3": "unknown setting 'seed.x'",
    }.items():
        with pytest.raises(ConfigError, match=hint):
            changed(word)


def test_file_then_flags_then_words(tmp_path):
    file = tmp_path / "settings.yaml"
    file.write_text(
        "seed: 1\nway: 3\nfast_rate: 1e-2\nmasks: off\nclasses: [run, yell]\n"
        "network:\n  dim: 64\n  instances: none\noptions: {width: 8, cardinalities: [2, 3]}\n"
    )
    config = change_config(TrainConfig(), {"way": 4}, ["network.dim=32", "shot=2"], file=file)
    assert (config.seed, config.way, config.shot) == (1, 4, 2)
    assert (config.fast_rate, config.masks, config.classes) == (0.01, "off", ("run", "yell"))
    assert config.network == {"dim": 32, "instances": "none"}
    assert config.options == {"width": 8, "cardinalities": [2, 3]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sed: 1\n", "settings.yaml: unknown setting 'sed'.*did you mean 'seed'"),
        ("network: {dmi: 3}\n", "unknown setting 'network.dmi'.*did you mean 'network.dim'"),
        ("way: three\n", "settings.yaml: way='three' is no whole number"),
        ("seed: 1\nseed: 2\n", "settings.yaml says seed twice"),
        ("- 1\n", "settings.yaml holds no mapping"),
        ("", "settings.yaml holds no setting; name: value lines were needed; write them as"),
        ("# seed: 1\n", "settings.yaml holds no setting"),
        ("network: {}\n", "settings.yaml holds no setting"),
        ("a: [\n", "settings.yaml cannot be read"),
        ("a: !!python/object/apply:os.getcwd []\n", "unknown setting 'a'"),
        ("network: {a: {b: 1}}\n", "unknown setting 'network.a'"),
        ("network: 3\n", "unknown setting 'network'"),
    ],
)
def test_files_that_say_nothing_sensible_are_refused(tmp_path, text, message):
    file = tmp_path / "settings.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message):
        change_config(TrainConfig(), {}, [], file=file)


def test_printed_settings_and_a_runs_config_json_read_back_as_they_were(tmp_path):
    config = TrainConfig(
        masks="off",
        flips=None,
        fast_rate=1e-4,
        classes=("run", "on"),
        network={"dim": 64, "descriptor_norm": "none", "scale": 0.0},
        encoder={"name": "timm:resnet50"},
    )
    of_trx = TrainConfig(
        method="trx", options={"cardinalities": [2], "width": 16, "centre": False}, seed=4
    )
    printed, recorded = tmp_path / "a.yaml", tmp_path / "config.json"
    for one in (config, of_trx):
        printed.write_text(write_settings(one.to_dict()))
        recorded.write_text(json.dumps({"digest": "0", "train": one.to_dict(), "threads": 1}))
        for file in (printed, recorded):
            assert change_config(TrainConfig(), {}, [], file=file) == one
    with pytest.raises(ConfigError, match=r"gone.yaml is absent; a YAML file"):
        change_config(TrainConfig(), {}, [], file=tmp_path / "gone.yaml")


def test_method_is_trained_at_its_own_rate_unless_one_is_given(tmp_path):
    assert HyRSM.learning_rate == Trx.learning_rate == 1e-5
    assert change_config(TrainConfig(), {"method": "hyrsm"}, []).fast_rate == 1e-5
    assert change_config(TrainConfig(), {"method": "hyrsm:heads=4"}, []).fast_rate == 1e-5
    assert change_config(TrainConfig(), {"method": "trx"}, []).fast_rate == 1e-5
    assert change_config(TrainConfig(), {"method": "hyrsm"}, ["fast_rate=1e-3"]).fast_rate == 1e-3
    file = tmp_path / "settings.yaml"
    file.write_text("method: hyrsm\nfast_rate: 0.5\n")
    assert change_config(TrainConfig(), {}, [], file=file).fast_rate == 0.5
    file.write_text("method: hyrsm\n")
    changed = change_config(TrainConfig(), {}, ["seed=3"], file=file)
    assert (changed.fast_rate, changed.slow_rate) == (1e-5, TrainConfig().slow_rate)


def test_options_behind_a_method_are_settings_of_their_own():
    begun = TrainConfig(options={"dropout": 0.2, "heads": 2})
    found = change_config(begun, {"method": "hyrsm:heads=4:logit_scale=2"}, [])
    assert found.method == "hyrsm"
    assert found.options == {"dropout": 0.2, "heads": 4, "logit_scale": 2}
    typed = ["method=hyrsm:heads=4", "options.dropout=0.2", "options.logit_scale=2"]
    assert found == change_config(TrainConfig(), {}, typed)
    with pytest.raises(ConfigError, match=r"hyrsm has no option 'head' \(did you mean 'heads'"):
        change_config(begun, {"method": "hyrsm:head=4"}, [])


def test_resumed_method_keeps_the_rate_it_was_begun_with():
    begun = TrainConfig(method="hyrsm", fast_rate=0.25)
    assert change_config(begun, {"method": "hyrsm"}, ["episodes=640"]).fast_rate == 0.25


# --- settings that the method does not read ---


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("beta=0.5", "beta=0.5"),
        ("alpha=0.3", "alpha=0.3"),
        ("dice=0", "dice=0"),
        ("masks=off", "masks=off"),
        ("preset=linear", "preset=linear"),
        ("slow_rate=1e-4", "slow_rate=0.0001"),
        ("dim=64", "network.dim=64"),
        ("network.dim=64", "network.dim=64"),
    ],
)
def test_a_setting_that_the_method_does_not_read_is_refused(tmp_path, word, name):
    setting, _, value = name.partition("=")
    said = (
        f"{setting} is a setting of i2st, which hyrsm does not read, and is given as {value}; .* "
        "was needed; leave it out, or pass --method i2st"
    )
    with pytest.raises(ConfigError, match=said):
        changed(word, method="hyrsm:heads=4")
    file = tmp_path / "settings.yaml"
    file.write_text(word.replace("network.dim=64", "network: {dim: 64}").replace("=", ": "))
    with pytest.raises(ConfigError, match=said):
        change_config(TrainConfig(), {"method": "hyrsm"}, [], file=file)
    assert change_config(TrainConfig(), {}, [], file=file) == changed(word)


def test_flags_of_other_methods_are_refused_even_at_their_defaults():
    with pytest.raises(
        ConfigError,
        match="masks is a setting of i2st, which trx does not read, and is given as true",
    ):
        changed(method="trx", masks="true")
    with pytest.raises(ConfigError, match="preset is a setting of i2st"):
        changed(method="trx", preset="i2st")
    # What was recorded before this was refused can still be gone on with.
    begun = TrainConfig(method="trx", beta=0.5, network={"dim": 32})
    assert change_config(begun, {}, ["seed=3"]).beta == 0.5
