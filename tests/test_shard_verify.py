"""Verify finds every disagreement between the index, the files and the rows."""

import os
from dataclasses import replace

import h5py
import numpy as np
import pytest
from shard_cases import all_features, extract, features, reseal, write_index

from pipeline.shards.index import ShardIndex
from pipeline.shards.reader import ShardReader
from pipeline.shards.verify import verify


def test_verify_finds_nothing_wrong_with_a_fresh_dataset(tmp_path):
    extract(tmp_path, all_features(12))
    assert verify(tmp_path) == []


def test_verify_finds_nothing_wrong_without_masks_or_after_an_addition(tmp_path):
    extract(tmp_path, all_features(5, with_masks=False))
    extract(tmp_path, all_features(9, with_masks=False))
    assert verify(tmp_path) == []


def test_verify_goes_on_after_a_fault(tmp_path):
    extract(tmp_path, all_features(12))
    os.truncate(tmp_path / "shard-00000.h5", 4096)
    (tmp_path / "shard-00002.h5").unlink()
    problems = verify(tmp_path)
    assert len(problems) == 2
    assert "shard-00000.h5 has 4096 bytes" in problems[0]
    assert "shard-00002.h5 (No such file" in problems[1]


def test_verify_reads_again_what_was_verified_before(tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.shards.mapping._SETTLED_SECONDS", -1.0)
    extract(tmp_path, all_features(4))
    ShardReader(tmp_path).tokens([0])
    path = tmp_path / "shard-00000.h5"
    times = path.stat()
    changed = bytearray(path.read_bytes())
    changed[-1] ^= 1
    path.write_bytes(changed)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    (problem,) = verify(tmp_path)
    assert "was committed" in problem


def test_verify_reports_a_damaged_index(tmp_path):
    extract(tmp_path, all_features(4))
    path = tmp_path / "index.json"
    path.write_text(path.read_text().replace("toy", "toi"))
    (problem,) = verify(tmp_path)
    assert "its seal does not match" in problem


@pytest.mark.parametrize(
    ("name", "value", "fact"),
    [
        ("tokens", 1, "sha256, features_sha256"),
        ("frame_indices", 3, "sha256"),
        ("mask_score", 1, "sha256"),
        ("video_id", b"climb/clip 099", "video_id"),
        ("class_index", 1, "class_index"),
        ("split", b"test", "split"),
        ("num_damaged_packets", 77, "num_damaged_packets, sha256"),
    ],
)
def test_verify_finds_a_resealed_change_of_any_dataset(tmp_path, name, value, fact):
    extract(tmp_path, [features(number) for number in range(3)])
    with h5py.File(tmp_path / "shard-00000.h5", "r+") as file:
        file[name][1] = value
    reseal(tmp_path)
    assert ShardReader(tmp_path).tokens([0]).shape == (1, 2, 4, 6)
    (problem,) = verify(tmp_path)
    assert f"row 1: {fact} of 'climb/clip 001' differ from the index" in problem


def test_verify_finds_a_forged_checksum_of_features(tmp_path):
    index = extract(tmp_path, [features(1), features(2)])
    one, two = index.videos
    write_index(tmp_path, replace(index, videos=(one, two._replace(features_sha256="0" * 64))))
    (problem,) = verify(tmp_path)
    assert "row 1: features_sha256 of 'climb/clip 002' differ from the index" in problem


def test_verify_finds_masks_smuggled_into_another_split(tmp_path):
    extract(tmp_path, [features(1), features(2, class_name="run")])
    with h5py.File(tmp_path / "shard-00000.h5", "r+") as file:
        file["mask_bits"][1] = np.uint8(255)
    reseal(tmp_path)
    (problem,) = verify(tmp_path)
    assert "row 1: masks of 'run/clip 002'" in problem


def test_verify_finds_rows_that_changed_places_and_a_foreign_digest(tmp_path):
    extract(tmp_path, [features(1), features(2)])
    index = ShardIndex.load(tmp_path)
    one, two = index.videos
    swapped = (one._replace(row=two.row), two._replace(row=one.row))
    write_index(tmp_path, replace(index, videos=swapped, digest="0" * 64))
    problems = verify(tmp_path)
    assert "the digest is not that of its videos" in problems[0]
    assert all("video_id" in problem and "sha256" in problem for problem in problems[1:])
    assert len(problems) == 3
