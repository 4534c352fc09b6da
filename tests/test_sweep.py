"""`i2st sweep`: which variants there are, where their runs are kept, and what the table says."""

import hashlib
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from synthetic_shards import make_shards
from typer.testing import CliRunner

import cli
from benchmarks.simulated_methods import answer, draw_set
from i2st_model.comparison import compare
from i2st_model.config import PRESETS, network_config
from i2st_model.records.results import load_results
from i2st_model.settings import change_config
from i2st_model.sweeping.ablations import ABLATIONS, variants_over
from i2st_model.sweeping.planned_runs import plan_runs, run_folder_of
from i2st_model.sweeping.sweep_runs import train_runs
from i2st_model.sweeping.sweep_table import compare_variants, sweep_table
from i2st_model.sweeping.variants import BASE, plan_variants
from i2st_model.training.config import TrainConfig
from pipeline.commands import progress
from pipeline.errors import ConfigError

SETTINGS = ("dim=16", "heads=2", "mask_width=8", "num_instances=2", "perception_layers=1")
SMALL = ["--train-episodes", "64", "--select", "last", "--device", "cpu", "--episodes", "60"]
SMALL += [word for setting in (*SETTINGS, "stem_tokens=2000") for word in ("--set", setting)]


def i2st(*words):
    return CliRunner().invoke(cli.app, [str(word) for word in words])


def done(*words):
    result = i2st(*words)
    assert result.exit_code == 0, result.output
    return result


def refusal(*words):
    result = i2st(*words)
    assert result.exit_code == 2, result.output
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    return line


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("place")
    make_shards(folder / "shards" / "toy", signal=1.0)
    return folder


@pytest.fixture(autouse=True)
def here(place, monkeypatch):
    monkeypatch.chdir(place)


# --- plans ---


def test_axes_are_varied_one_at_a_time_or_in_a_grid():
    axes = {"beta": ["0", "1"], "dim": ["8", "16"]}
    assert variants_over({"beta": ["0", "1"]}, grid=False) == (("beta=0",), ("beta=1",))
    one_by_one = ((), ("beta=0",), ("beta=1",), ("dim=8",), ("dim=16",))
    assert variants_over(axes, grid=False) == one_by_one
    grid = (("beta=0", "dim=8"), ("beta=0", "dim=16"), ("beta=1", "dim=8"), ("beta=1", "dim=16"))
    assert variants_over(axes, grid=True) == grid


def test_equal_settings_are_one_variant_under_its_first_name():
    words = [(), ("beta=1",), ("global_weight=0.3",), ("frames=8",), ("beta=0",)]
    planned = plan_variants(TrainConfig(), words, num_stored=8)
    assert [one.name for one in planned] == [BASE, "beta=0"]
    assert [one.config.beta for one in planned] == [1.0, 0]


def test_frames_beyond_the_stored_ones_are_left_out():
    planned = plan_variants(TrainConfig(), ABLATIONS["frames"].variants, num_stored=8)
    assert [one.name for one in planned] == [f"frames={count}" for count in (2, 4, 6, 8)]
    with pytest.raises(ConfigError, match="more frames than the 1 that are stored"):
        plan_variants(TrainConfig(), ABLATIONS["frames"].variants, num_stored=1)


@pytest.mark.parametrize("name", list(ABLATIONS))
def test_every_named_sweep_is_of_settings_that_build_a_network(name):
    planned = plan_variants(TrainConfig(), ABLATIONS[name].variants, num_stored=16)
    assert len(planned) == len(ABLATIONS[name].variants)
    for variant in planned:
        network_config({"token_dim": 32, "grid": 4, **variant.config.network})


def test_a_run_is_kept_by_its_settings_seed_and_shards():
    config = TrainConfig()
    place = run_folder_of(Path("runs"), config, dataset="toy", digest="a")
    assert re.fullmatch(r"runs/sweep-toy/[0-9a-f]{10}-seed0", str(place))
    other_seed = run_folder_of(Path("runs"), replace(config, seed=3), dataset="toy", digest="a")
    assert other_seed.name == place.name.replace("seed0", "seed3")
    for same in ({"beta": 1}, {"network": {"global_weight": 0.3}}, {"network": {"scale": 1}}):
        assert (
            run_folder_of(Path("runs"), replace(config, **same), dataset="toy", digest="a") == place
        )
    for changed, digest in ((replace(config, beta=0.5), "a"), (config, "b")):
        assert run_folder_of(Path("runs"), changed, dataset="toy", digest=digest) != place


def test_seeds_of_a_sweep_count_on_from_its_own():
    variants = plan_variants(TrainConfig(seed=5), [(), ("beta=0",)], num_stored=8)
    planned = plan_runs(variants, seeds=3, root=Path("runs"), dataset="toy", digest="a")
    for variant, runs in zip(variants, planned, strict=True):
        assert [run.config for run in runs] == [replace(variant.config, seed=s) for s in (5, 6, 7)]
        assert [run.folder.name[10:] for run in runs] == ["-seed5", "-seed6", "-seed7"]
    assert len({run.folder for runs in planned for run in runs}) == 6


def test_a_run_is_kept_by_the_defaults_of_its_network_too(monkeypatch):
    places = [run_folder_of(Path("runs"), TrainConfig(), dataset="toy", digest="a")]
    monkeypatch.setitem(PRESETS, "i2st", {"instance_init": 0.4})  # as a later version might
    places.append(run_folder_of(Path("runs"), TrainConfig(), dataset="toy", digest="a"))
    assert places[0] != places[1]


def test_weights_that_a_run_starts_from_count_by_their_content(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()

    def place(content, folder="a"):
        (tmp_path / folder / "checkpoint.safetensors").write_bytes(content)
        config = TrainConfig(init_from=str(tmp_path / folder))
        return run_folder_of(Path("runs"), config, dataset="toy", digest="a")

    first = place(b"weights")
    assert place(b"others") != first  # under the same name
    assert place(b"weights", "b") == first
    assert first != run_folder_of(Path("runs"), TrainConfig(), dataset="toy", digest="a")


@pytest.mark.parametrize("word", ["beta=0", "masks=off", "dim=8", "network.dim=8"])
def test_settings_that_a_method_does_not_read_are_no_variants_of_it(word):
    config = TrainConfig(method="hyrsm")
    name = word.partition("=")[0]
    with pytest.raises(ConfigError, match=f"{name} is a setting of i2st, which hyrsm does not"):
        plan_variants(config, [(), (word,)], num_stored=8)
    read = [(), ("fast_rate=1e-4",), ("frames=4",), ("method=i2st", word)]
    assert len(plan_variants(config, read, num_stored=8)) == 4


@pytest.mark.parametrize("given", [{"beta": 0.3}, {"preset": "linear"}, {"network": {"dim": 64}}])
def test_what_all_variants_are_given_is_refused_where_the_method_of_one_does_not_read_it(given):
    words = [("method=i2st",), ("method=hyrsm",)]
    with pytest.raises(ConfigError, match="is a setting of i2st, which hyrsm does not read"):
        plan_variants(TrainConfig(**given), words, num_stored=8)
    assert len(plan_variants(TrainConfig(network={"dim": 128}), words, num_stored=8)) == 2


def test_table_holds_each_variant_less_the_first_over_what_was_asked_for():
    rng = np.random.default_rng(0)
    cells = [draw_set(rng, episodes=60, shot=shot) for shot in (1, 5)]
    found = [[[answer(rng, cell, ease=ease)] for cell in cells] for ease in (1.0, 2.0)]
    compared = compare_variants(found)
    variants = plan_variants(TrainConfig(), [(), ("beta=0",)], num_stored=8)
    for over in ("episodes", "classes"):
        table = sweep_table(variants, cells, compared, over=over, notes=[])
        first, second = (row.cells for row in table.rows)
        assert first[1] is first[3] is None
        for place in range(2):
            mine = compare(found[1][place], found[0][place])
            assert second[2 * place] == mine.first
            assert second[2 * place + 1] == mine.intervals[over]
            assert mine.difference == pytest.approx(second[2 * place].mean - first[2 * place].mean)


# --- the command ---


def test_sweep_trains_once_and_evaluates_every_variant_on_the_same_episodes(tmp_path):
    asked = ["sweep", "--over", "beta=0,1", *SMALL, "--shot", "1,2", "--seeds", 2, "--json"]
    first = done(*asked, "--save", tmp_path / "r")
    found = json.loads(first.stdout)
    runs = [Path(run) for one in found["variants"] for run in one["runs"]]
    assert len(set(runs)) == 4
    trained = {run: (run / "checkpoint.safetensors").stat().st_mtime_ns for run in runs}
    (runs[3] / "checkpoint.safetensors").unlink()  # as if it had been cut short
    planned = json.loads(done(*asked, "--dry-run").stdout)
    assert [Path(one["run"]) for one in planned["runs"]] == runs
    assert [one["trained"] for one in planned["runs"]] == [True, True, True, False]
    assert (planned["to_train"], planned["steps"]) == (1, 1)
    again = done(*asked)
    assert json.loads(again.stdout) == found
    assert "trained already: 3 of 4 runs" in again.stderr
    times = {run: (run / "checkpoint.safetensors").stat().st_mtime_ns for run in runs}
    assert [times[run] == trained[run] for run in runs] == [True, True, True, False]

    results = load_results(tmp_path / "r")
    assert [one.made_by.train_seed for one in results] == [0, 1] * 4
    for number, one in enumerate(found["variants"]):
        for place, cell in enumerate(one["cells"]):
            at = 4 * number + 2 * place
            by_hand = [100 * other.correct.mean() for other in results[at : at + 2]]
            assert cell["first"]["mean"] == pytest.approx(sum(by_hand) / 2)
            assert cell["num_seeds"] == 2
    assert found["variants"][0]["cells"][0]["difference"] == 0
    evaluated = done("evaluate", "--run", runs[0], "--split", "val", "--episodes", 60, "--json")
    assert json.loads(evaluated.stdout)["accuracy"] == pytest.approx(
        100 * results[0].correct.mean()
    )


def test_a_variant_that_cannot_be_trained_is_named_before_any_is_and_the_hint_works(tmp_path):
    make_shards(tmp_path / "bare", name="bare", masks=False)
    asked = ["sweep", "--over", "beta=0,0.5", *SMALL, "--shards", tmp_path / "bare"]
    line = refusal(*asked)
    assert "beta=0.5: the shards of bare hold no masks, masks='true' asks for them" in line
    assert line.endswith("or train with --set masks=off")
    assert not list(Path("runs").glob("sweep-bare/*"))
    assert "2 of 2 runs" in done(*asked, "--set", "masks=off", "--dry-run").stdout


def test_a_dry_run_says_what_would_be_trained_and_trains_nothing():
    before = set(Path("runs").glob("sweep-toy/*"))
    words = ["--over", "alpha=0.25,0.75", *SMALL, "--seeds", 2, "--dry-run"]
    shown = done("sweep", *words, "--train-episodes", 200).stdout.splitlines()
    assert shown[0].split() == ["settings", "seed", "steps", "trained", "run"]
    # 200 episodes are three steps of 64 and one of 8.
    for line, start in zip(shown[2:6], ("0.25  0", "0.25  1", "0.75  0", "0.75  1"), strict=True):
        assert re.fullmatch(rf"alpha={start} +4 +no +runs/sweep-toy/\w+-seed[01]", line)
    assert shown[6:] == ["4 of 4 runs would be trained, 16 steps in all."]
    assert set(Path("runs").glob("sweep-toy/*")) == before


def test_settings_of_trainings_and_evaluation_are_told_apart():
    asked = ["--over", "alpha=0.25", *SMALL, "--shot", "1,2", "--seeds", 2, "--set", "shot=3"]
    shown = done("sweep", *asked, "--episode-seed", 4, "--dry-run").stderr
    words = shown[shown.index("settings: ") :].split()
    for word in ("train_episodes=64", "episodes=60", "train_shot=3", "shot=1,2", "train_way=5"):
        assert words.count(word) == 1
    assert {"way=5", "queries=1", "split=val", "seed=0", "episode_seed=4", "seeds=2"} <= {*words}


def test_sweep_prints_differences_to_the_first_row_on_val():
    shown = done("sweep", "--over", "frames=2,4", *SMALL).stdout.splitlines()
    assert shown[0].split("  ")[0] == "settings"
    assert re.fullmatch(r"frames=2 +\d+\.\d\d \+/- \d+\.\d\d +-", shown[2])
    assert re.fullmatch(r"frames=4 +\S+ \+/- \S+ +[+-]\S+ \[[+-]\S+, [+-]\S+\]", shown[3])
    assert shown[4].startswith("toy val: mean accuracy in percent over 60 episodes of 5 classes")
    assert len(shown) == 5


def test_the_interval_over_sources_is_asked_for_by_either_name(tmp_path):
    make_shards(tmp_path / "s", signal=1.0, group_size=2)
    asked = ["sweep", "--over", "frames=2,4", *SMALL, "--shards", tmp_path / "s"]
    shown = done(*asked, "--interval", "sources").stdout
    assert shown == done(*asked, "--interval", "videos").stdout
    assert "95 % intervals over sources;" in " ".join(shown.split())
    cell = json.loads(done(*asked, "--json").stdout)["variants"][1]["cells"][0]
    low, high = cell["intervals"]["videos"]
    assert f"[{low:+.2f}, {high:+.2f}]" in shown
    assert cell["over"]["videos"] == "sources"
    assert cell["why_not"]["seeds"] == "one training tells nothing of others; pass --seeds 3"


def test_sweep_says_where_no_query_differs_from_the_first_row():
    shown = done("sweep", "--over", "log_every=1,2", *SMALL).stdout.splitlines()
    assert re.fullmatch(r"log_every=2 +\S+ \+/- \S+ +-", shown[3])
    assert shown[5].startswith("no interval over classes: no query differs")


def test_sweep_says_when_the_test_split_was_read():
    shown = done("sweep", "ways", *SMALL, "--split", "test", "--format", "markdown")
    assert "a setting chosen by this table is chosen on test" in shown.stdout
    assert "test has 5 classes: ways [5] instead of [5, 6, 7, 8, 9, 10]" in shown.stderr


def test_sweep_says_when_val_has_chosen_the_weights_too():
    words = [word if word != "last" else "val" for word in SMALL]
    shown = done("sweep", "--over", "frames=2,4", *words, "--set", "val_episodes=20").stdout
    assert "Val has chosen the step of the weights, too" in shown


def test_copies_of_train_videos_are_left_out_before_anything_is_trained(tmp_path):
    copies = {"val 0/02": "train 1/03", "val 4/07": "train 0/00", "test 1/00": "train 2/01"}
    make_shards(tmp_path / "s", copies=copies)
    asked = ["sweep", "--over", "beta=0", *SMALL, "--shards", tmp_path / "s"]
    shown = done(*asked, "--save", tmp_path / "r").stderr
    said = "left out, as they equal train videos byte for byte: 2 videos ('val 0/02', 'val 4/07')"
    assert shown.count(said) == 1
    (kept,) = load_results(tmp_path / "r")
    assert len(kept.episodes.video_ids) == 38
    assert not set(copies) & set(kept.episodes.video_ids)


def test_default_ways_beyond_the_classes_of_val_are_lowered_with_a_note(tmp_path):
    make_shards(tmp_path / "few", name="few", classes=(6, 3, 5))
    asked = ["sweep", "--over", "beta=0", *SMALL, "--shards", tmp_path / "few", "--json"]
    shown = done(*asked)
    assert [cell["way"] for cell in json.loads(shown.stdout)["variants"][0]["cells"]] == [3]
    assert "val has 3 classes: ways [3] instead of [5]" in shown.stderr
    assert "val has 3 classes: ways [3] instead of [3, 5]" in done(*asked, "--way", "3,5").stderr
    assert "has 3 classes, way=5 needs 5; lower way" in refusal(*asked, "--way", 5)


def trained_folder(*words):
    (one,) = json.loads(done("sweep", *words, *SMALL, "--json").stdout)["variants"]
    return Path(one["runs"][0])


def test_a_folder_that_holds_another_run_than_its_name_says_is_refused_and_the_hint_works(tmp_path):
    asked = ["--over", "dice=0.25"]
    folder = trained_folder(*asked)
    other = trained_folder("--over", "dice=0.25", "--seed", 7)
    weights = (folder / "checkpoint.safetensors").read_bytes()
    shutil.move(folder, tmp_path / "away")
    for changed, told in (
        (trained_folder("--over", "dice=0.75"), "dice 0.75 there and 0.25 here"),
        (other, "seed 7 there and 0 here"),
    ):
        shutil.copytree(changed, folder)
        line = refusal("sweep", *asked, *SMALL)
        assert f"{folder} holds another run than its name says: {told}" in line
        shutil.move(folder, tmp_path / changed.name)  # the hint
    assert trained_folder(*asked) == folder
    assert (folder / "checkpoint.safetensors").read_bytes() == weights


def test_a_folder_whose_run_started_from_other_weights_is_refused():
    start = trained_folder("--over", "dice=0.375")
    asked = ["--over", "beta=0.5", "--set", f"init_from={start}"]
    config = trained_folder(*asked) / "config.json"
    recorded = json.loads(config.read_text())
    weights = hashlib.sha256((start / "checkpoint.safetensors").read_bytes()).hexdigest()
    assert recorded["init_sha256"] == weights
    for other in ("0" * 64, None):
        config.write_text(json.dumps({**recorded, "init_sha256": other}))
        line = refusal("sweep", *asked, *SMALL)
        assert f"{config.parent} holds another run than its name says: init_from" in line


def test_a_sweep_from_weights_that_are_gone_is_refused():
    asked = ["sweep", "--over", "beta=0", *SMALL]
    done(*asked)  # the same settings, from no weights: their hash is that of absent ones
    assert "gone is absent" in refusal(*asked, "--set", "init_from=gone")


def test_a_run_begun_on_other_threads_is_refused_and_the_hints_work():
    asked = ["--over", "dice=0.125"]
    folder = trained_folder(*asked)
    (folder / "checkpoint.safetensors").unlink()
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "threads": 3}))
    line = refusal("sweep", *asked, *SMALL)
    assert re.search("pass --threads 3 --device cpu, or pass --allow-nondeterministic", line)
    done("sweep", *asked, *SMALL, "--allow-nondeterministic")
    (folder / "checkpoint.safetensors").unlink()
    done("sweep", *asked, *SMALL, "--threads", 3)


def test_steps_of_each_training_are_shown_beside_the_trainings_that_are_done(monkeypatch):
    monkeypatch.setattr(progress, "SECONDS_PER_LINE", 0)
    words = ["--over", "dice=0.0625,0.03125", *SMALL, "--train-episodes", 128]
    shown = done("sweep", *words, "--set", "log_every=1").stderr.splitlines()
    names = [f"dice={value} seed 0" for value in (0.0625, 0.03125)]
    assert f"trainings 0/2: fitting to train videos, {names[0]}" in shown
    steps = [line for line in shown if re.match(r"trainings \d/2: step \d/", line)]
    assert steps == [  # 128 episodes are two steps of 64
        f"trainings {number}/2: step {step}/2, {name}"
        for number, name in enumerate(names)
        for step in (0, 1, 2)
    ]
    assert shown.index("trainings 0/2") < shown.index(steps[0])
    evaluations = [line for line in shown if line.startswith("evaluations ")]
    values = ("dice=0.0625", "dice=0.03125")
    told = [f"evaluations {number}/2: {value}" for number, value in enumerate(values, start=1)]
    assert evaluations == ["evaluations 0/2", *told]
    said = "\n".join(shown)
    assert re.search(rf"^trainings 2/2: {names[1]}: runs/sweep-toy/\w+-seed0$", said, re.M)


@pytest.mark.slow
def test_steps_of_trainings_in_other_processes_are_told_before_they_are_yielded(tmp_path):
    config = change_config(TrainConfig(episodes=128, select="last", device="cpu"), {}, SETTINGS)
    variants = plan_variants(config, [("beta=0",), ("beta=1",), ("beta=2",)], num_stored=8)
    planned = plan_runs(variants, seeds=1, root=tmp_path, dataset="toy", digest="a")
    runs, told = [run for own in planned for run in own], {}
    finished = train_runs(
        runs,
        Path("shards/toy"),
        jobs=2,
        threads=1,
        on_step=lambda run, step, under_way: told.update({run.variant: (step, under_way)}),
    )
    for run in finished:
        assert told[run.variant] == (2, "")
    assert set(told) == {"beta=0", "beta=1", "beta=2"}


@pytest.mark.slow
def test_trainings_in_processes_of_their_own_end_in_the_same_figures():
    asked = ["sweep", "--over", "dice=0,0.5,2", *SMALL, "--json"]
    in_processes = json.loads(done(*asked, "--jobs", 2).stdout)
    for one in in_processes["variants"]:
        (Path(one["runs"][0]) / "checkpoint.safetensors").unlink()
    assert json.loads(done(*asked).stdout) == in_processes


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "sweep has neither a name nor --over; one of both was needed; pass frames, instances"),
        (["frames", "--over", "beta=0"], "sweep has a name and --over"),
        (["all"], "unknown sweep 'all'; known: frames, instances, attention, matching"),
        (["--over", "beta"], "--over 'beta' cannot be read"),
        (["--over", "beta=0", "--over", "beta=1"], "each setting once"),
        (["--over", "beta=0,,1"], "--over '0,,1' holds an empty name"),
        (["--over", "betta=0,1"], "unknown setting 'betta'.*did you mean 'beta'"),
        (["--over", "beta=-1,0"], "beta=-1"),
        (["--over", "scale=wide,1"], "scale='wide' is no number"),
        (["frames", "--interval", "x"], "interval='x' is unknown; known: .*, seeds, sources; one"),
        (["frames", "--interval", "seeds"], "interval='seeds' with seeds=1; .*; pass --seeds 3$"),
        (["instances", "--method", "hyrsm"], "beta is a setting of i2st, which hyrsm does not"),
        (["frames", "--format", "html"], "format='html' is unknown"),
        (
            ["frames", "--split", "train"],
            "frames=2: it would be trained on 6 classes .'train 0'.* of the evaluation; unseen",
        ),
        (
            ["frames", "--set", "classes=[train 0, val 1, train 2, train 3, train 4]"],
            r"frames=2: it would be trained on 1 class \('val 1'\) of the evaluation",
        ),
        (["frames", "--way", "9"], "split 'val' of toy has 5 classes, way=9 needs 9"),
    ],
)
def test_sweep_refuses_in_one_line_before_it_trains(words, message):
    before = set(Path("runs").glob("sweep-toy/*"))
    assert re.search(message, refusal("sweep", *words))
    assert set(Path("runs").glob("sweep-toy/*")) == before


def test_variants_of_fewer_frames_than_a_method_takes_are_refused():
    words = ["sweep", "--over", "frames=2", "--method", "trx:width=8", "--select", "last"]
    line = refusal(*words, "--train-episodes", 64, "--device", "cpu")
    assert "clips have 2 frames, cardinalities=[2, 3] need 3; lower cardinalities" in line
    done(*words, "--train-episodes", 64, "--device", "cpu", "--set", "options.cardinalities=[2]")


def test_weights_of_an_evaluated_class_are_refused_before_anything_is_trained():
    of_val = "classes=[val 0, val 1, val 2, val 3, val 4]"
    folder = trained_folder("--over", "masks=off", "--set", of_val, "--split", "test")
    line = refusal("sweep", "--over", "beta=0", *SMALL, "--set", f"init_from={folder}")
    assert "it would be trained on 5 classes ('val 0', " in line
