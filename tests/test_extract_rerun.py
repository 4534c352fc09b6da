"""A second extraction: nothing is loaded for a finished one, and nothing stale is believed."""

import json
import os
import subprocess
import sys
from importlib import metadata

import numpy as np
import pytest
from PIL import Image

from pipeline.extraction import remembered
from pipeline.extraction.config import ExtractConfig
from pipeline.extraction.made_by import MadeBy
from pipeline.extraction.remembered import NAME, recall, remember
from pipeline.noted_files import file_state, note_file, noting_files

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
    return MadeBy(fingerprints={"encoder": {"a": 1}}, files=(file_state(tmp_path / "weights"),))


def change_settings(config, folder, monkeypatch):
    # Frozen, so that it is not changed by mistake.
    object.__setattr__(config, "grid", 7)


def change_weights(config, folder, monkeypatch):
    (folder / "weights").write_bytes(b"WEIGHTS")
    os.utime(folder / "weights", ns=(0, 1))


def lose_weights(config, folder, monkeypatch):
    (folder / "weights").unlink()


def add_masks(config, folder, monkeypatch):
    (folder / "masks" / "b.npz").write_bytes(b"more")


def change_cache(config, folder, monkeypatch):
    monkeypatch.setenv("I2ST_SAM_CHECKPOINT", "other.pth")


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
        lose_weights,
        add_masks,
        change_cache,
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
