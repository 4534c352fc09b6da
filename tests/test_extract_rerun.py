"""A second extraction: nothing is loaded for a finished one, and nothing stale is believed."""

import json
import os
import subprocess
import sys
from importlib import metadata

import numpy as np
import pytest
from PIL import Image

from pipeline.encoders.weights import fetch_from_hub
from pipeline.extraction import remembered
from pipeline.extraction.config import ExtractConfig
from pipeline.extraction.made_by import MadeBy
from pipeline.extraction.remembered import NAME, Memory
from pipeline.noted_files import note_file, noting_files
from pipeline.segmenters.sam.checkpoints import find_checkpoint

RUN = """
import json, sys
from pathlib import Path
from pipeline.datasets import open_dataset
from pipeline.extract import extract
from pipeline.extraction.config import ExtractConfig

source = open_dataset(videos=Path("mine"))
config = ExtractConfig(
    dataset="mine", videos=source.root, out=Path("shards"), encoder="efficientnet-lite0",
    segmenter="center_prior", frames=1, decode_children=0, hands=1, device="cpu",
)
report = extract(config, source.manifest, source.videos)
print(json.dumps([report.num_new, report.digest, "torch" in sys.modules]))
"""


def extract_in_a_new_process(folder, repository):
    done = subprocess.run(
        [sys.executable, "-c", RUN],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(repository)},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def test_extract_of_a_finished_folder_imports_no_torch(tmp_path, repository):
    generator = np.random.default_rng(0)
    for name in ("clap", "jump", "run"):
        for clip in ("a", "b"):
            folder = tmp_path / "mine" / name / clip
            folder.mkdir(parents=True)
            picture = generator.integers(0, 256, (24, 32, 3), np.uint8)
            Image.fromarray(picture).save(folder / "0.png")
    num_new, digest, used_torch = extract_in_a_new_process(tmp_path, repository)
    assert (num_new, used_torch) == (6, True)
    before = {p.name: p.read_bytes() for p in (tmp_path / "shards").iterdir() if p.name != ".lock"}
    assert extract_in_a_new_process(tmp_path, repository) == [0, digest, False]
    after = {p.name: p.read_bytes() for p in (tmp_path / "shards").iterdir() if p.name != ".lock"}
    assert after == before
    # Something is left to do, so the models are loaded, and found to be the same.
    (tmp_path / "mine" / "run" / "a").rename(tmp_path / "mine" / "run" / "c")
    num_new, _, used_torch = extract_in_a_new_process(tmp_path, repository)
    assert (num_new, used_torch) == (1, True)


@pytest.fixture
def config(tmp_path):
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / "a.npz").write_bytes(b"masks")
    (tmp_path / "weights").write_bytes(b"weights")
    (tmp_path / "out").mkdir()
    return ExtractConfig(
        dataset="mine",
        videos=tmp_path,
        out=tmp_path / "out",
        masks=tmp_path / "masks",
        segmenter="precomputed",
    )


@pytest.fixture
def made_by(tmp_path):
    with noting_files() as files:
        note_file(tmp_path / "first")
        note_file(tmp_path / "weights")
    return MadeBy(fingerprints={"encoder": {"a": 1}}, files=tuple(files))


def recall(config):
    return Memory(config).recall()


def remember(config, made_by):
    Memory(config).remember(made_by)


def change_settings(config, folder, monkeypatch):
    # Frozen, so that it is not changed by mistake.
    object.__setattr__(config, "grid", 7)


def change_weights(config, folder, monkeypatch):
    (folder / "weights").write_bytes(b"WEIGHTS")
    os.utime(folder / "weights", ns=(0, 1))


def change_weights_and_set_their_time_back(config, folder, monkeypatch):
    before = (folder / "weights").stat()
    while (folder / "weights").stat().st_ctime_ns == before.st_ctime_ns:
        (folder / "weights").write_bytes(b"WEIGHTS")
        os.utime(folder / "weights", ns=(before.st_atime_ns, before.st_mtime_ns))
    after = (folder / "weights").stat()
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)


def add_weights_that_come_first(config, folder, monkeypatch):
    (folder / "first").write_bytes(b"WEIGHTS")


def work_elsewhere(config, folder, monkeypatch):
    object.__setattr__(config, "scheduler", "tcp://127.0.0.1:8786")


def lose_weights(config, folder, monkeypatch):
    (folder / "weights").unlink()


def add_masks(config, folder, monkeypatch):
    (folder / "masks" / "b.npz").write_bytes(b"more")


def change_cache(config, folder, monkeypatch):
    monkeypatch.setenv("I2ST_SAM_CHECKPOINT", "other.pth")


def change_folder(config, folder, monkeypatch):
    monkeypatch.chdir(folder)


def add_gpu(config, folder, monkeypatch):
    monkeypatch.setattr(remembered, "glob", lambda pattern: ["/dev/nvidia0", "/dev/nvidia1"])


def change_package(config, folder, monkeypatch):
    monkeypatch.setattr(remembered, "version", lambda name: "0.0")


def damage(config, folder, monkeypatch):
    text = (config.out / NAME).read_text()
    (config.out / NAME).write_text(text[: len(text) // 2])


def replace_by_a_list(config, folder, monkeypatch):
    (config.out / NAME).write_text("[]")


@pytest.mark.parametrize(
    "change",
    [
        change_settings,
        change_weights,
        change_weights_and_set_their_time_back,
        add_weights_that_come_first,
        work_elsewhere,
        lose_weights,
        add_masks,
        change_cache,
        change_folder,
        add_gpu,
        change_package,
        damage,
        replace_by_a_list,
    ],
)
def test_recall_believes_nothing_after_a_change(config, made_by, tmp_path, monkeypatch, change):
    assert recall(config) is None
    remember(config, made_by)
    assert recall(config).fingerprints == made_by.fingerprints
    change(config, tmp_path, monkeypatch)
    assert recall(config) is None


def test_recall_believes_nothing_that_changed_while_models_were_loaded(config, made_by):
    memory = Memory(config)
    (config.masks / "b.npz").write_bytes(b"seen too late")
    memory.remember(made_by)
    assert recall(config) is None


def test_recall_believes_nothing_after_a_change_of_code(config, made_by, tmp_path, monkeypatch):
    package = tmp_path / "package"
    package.mkdir()
    monkeypatch.setattr(remembered.pipeline, "__file__", str(package / "__init__.py"))
    remember(config, made_by)
    assert recall(config) is not None
    (package / "new.py").write_text("")
    assert recall(config) is None


def test_weights_that_would_come_first_are_noted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("I2ST_CACHE", str(tmp_path))
    monkeypatch.delenv("I2ST_SAM_CHECKPOINT", raising=False)
    (tmp_path / "sam_vit_b_01ec64.pth").write_bytes(b"weights")
    with noting_files() as files:
        assert find_checkpoint("vit_b")[0] == tmp_path / "sam_vit_b_01ec64.pth"
    assert [(file.path, file.size_bytes) for file in files] == [
        (str(tmp_path / "weights" / "sam_vit_b_01ec64.pth"), -1)
    ]


def test_the_hubs_choice_among_its_files_is_noted(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    folder = tmp_path / "models--owner--name"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("abc")
    (folder / "snapshots" / "abc").mkdir(parents=True)
    (folder / "snapshots" / "abc" / "b.bin").write_bytes(b"weights")
    with noting_files() as files:
        path = fetch_from_hub("owner/name", ("a.safetensors", "b.bin"), encoder="e")
    assert path == folder / "snapshots" / "abc" / "b.bin"
    noted = {file.path for file in files}
    assert noted == {str(folder / "snapshots" / "abc"), str(folder / "refs" / "main")}


def test_remember_keeps_no_secret_and_nothing_of_foreign_models(config, made_by, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_canary")
    monkeypatch.setenv("I2ST_SAM_CHECKPOINT", "/home/canary/sam.pth")
    remember(config, made_by)
    assert "canary" not in (config.out / NAME).read_text()
    (config.out / NAME).unlink()
    entry = metadata.EntryPoint("precomputed", "elsewhere:Build", "i2st.segmenters")
    monkeypatch.setattr(remembered, "entry_points", lambda group: [entry])
    remember(config, made_by)
    assert not (config.out / NAME).exists()


def test_remember_goes_without_a_note_where_a_mask_file_cannot_be_seen(config, made_by):
    (config.masks / "gone.npz").symlink_to("nowhere")
    remember(config, made_by)
    assert recall(config) is None


def test_noting_files_collects_what_is_noted_inside(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(b"12345")
    note_file(tmp_path / "a")
    with noting_files() as outer:
        note_file(tmp_path / "a")
        with noting_files() as inner:
            note_file(tmp_path / "b")
    assert [file.path for file in outer] == [str(tmp_path / "a")]
    assert [(file.path, file.size_bytes) for file in inner] == [(str(tmp_path / "b"), 5)]
