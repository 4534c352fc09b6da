"""The network's settings of a run, whoever decides them: printed, recorded and compared."""

import json
from dataclasses import MISSING, fields, replace

import pytest
import yaml
from synthetic_shards import make_shards
from test_cli_stage_two import i2st
from test_training import SMALL, open_store
from test_training_faults import stop_at

from i2st_model.config import NetworkConfig, network_config
from i2st_model.runs import CONFIG_NAME
from i2st_model.settings import change_config
from i2st_model.training.config import TrainConfig
from i2st_model.training.run import train
from pipeline.errors import ConfigError

SIZES = {"token_dim": 8, "grid": 4, "embedding_dim": 8}
NAMES = {one.name for one in fields(NetworkConfig)} - {*SIZES, "base_classes"}


def test_printed_settings_hold_the_whole_network_and_read_back_as_the_same_run(tmp_path):
    file = tmp_path / "settings.yaml"
    for words in ([], ["--preset", "specified", "--set", "dim=64"], ["--method", "hyrsm"]):
        printed = i2st("train", *words, "--print-config")
        file.write_text(printed.stdout)
        network = yaml.safe_load(printed.stdout)["network"]
        assert set(network) == (set() if "hyrsm" in words else NAMES)
        if words[:1] == ["--preset"]:
            # "specified" has queries; its dim of 512 is overridden; no preset has heads.
            assert (network["instances"], network["dim"]) == ("queries", 64)
            assert network_config({**SIZES, **network}).heads == NetworkConfig(**SIZES).heads
            begun = change_config(TrainConfig(), {}, [], file=file)
            assert (begun.preset, begun.network) == ("specified", {"dim": 64})
        assert i2st("train", "--config", file, "--print-config").stdout == printed.stdout


def test_a_printed_file_says_nothing_of_a_network_to_another_method(tmp_path):
    file = tmp_path / "settings.yaml"
    file.write_text(i2st("train", "--print-config").stdout)
    assert change_config(TrainConfig(), {"method": "hyrsm"}, [], file=file).network == {}


def test_a_run_records_its_network_and_is_not_gone_on_with_under_other_defaults(tmp_path):
    store, run = open_store(make_shards(tmp_path / "s").folder), tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train(SMALL, store, run, on_progress=stop_at(3))
    recorded = json.loads((run / CONFIG_NAME).read_text())
    own = {one.name: one.default for one in fields(NetworkConfig) if one.default is not MISSING}
    assert recorded["network"] == {n: {**own, **SMALL.network}[n] for n in NAMES}
    # As an earlier version with another default would have left it.
    other = {**recorded, "network": {**recorded["network"], "logit_scale": 4.0}}
    (run / CONFIG_NAME).write_text(json.dumps(other))
    said = r"is another run: network.logit_scale 4.0 there and 8.0 here"
    with pytest.raises(ConfigError, match=said):
        train(SMALL, store, run, resume=True)
    (run / CONFIG_NAME).write_text(json.dumps(recorded))
    spelt = replace(SMALL, network={**SMALL.network, "logit_scale": 8.0})
    assert train(spelt, store, run, resume=True).resumed_at == 2
