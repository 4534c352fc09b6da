import configparser
import hashlib
import json
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from colour_scenes import (
    COLOURS,
    assert_clips_stand_alone,
    assert_same_masks,
    cell_iou,
    scene,
    scene_clip,
)
from safetensors.torch import load_file, save_file
from skimage.measure import label
from tiny_transformers import SAM3_SIDE, clip_tokenizer, transformers, write_tiny_sam3

from pipeline.errors import BackendError
from pipeline.masks import unpack_masks
from pipeline.noted_files import noting_files
from pipeline.segmenters import get_segmenter
from pipeline.segmenters.open_vocabulary import sam3_model, transformers_models
from pipeline.segmenters.open_vocabulary.sam3 import Sam3, Sam3Settings, bystanders
from pipeline.segmenters.open_vocabulary.sam3_model import ConceptMasks, Sam3Concepts
from pipeline.segmenters.open_vocabulary.transformers_models import load_model

NOUNS = ("person", "hockey stick", "ball")


class ColourConcepts:
    """Sees the pixels of a noun's colour; other nouns, such as "sky", in everything."""

    device = torch.device("cpu")

    def find(self, frames, nouns):
        pixels = frames.permute(0, 3, 1, 2).float()
        small = torch.nn.functional.interpolate(pixels, (96, 96), mode="area")
        logits = []
        for noun in nouns:
            colour = torch.tensor(COLOURS.get(noun, (0, 255, 0))).float()[:, None, None]
            near = (small - colour).abs().amax(dim=1) < 100
            logits.append(torch.where(near | (noun == "everything"), 8.0, -8.0))
        logits = torch.stack(logits, dim=1)
        presence = torch.where((logits > 0).any(dim=(2, 3)), 0.9, 0.1)
        instances = torch.stack([blobs_of(one) for one in (logits > 0).flatten(0, 1)])
        instances = instances.unflatten(0, presence.shape)
        scores = torch.where(instances.any(dim=(3, 4)), 0.8, 0.1)
        return ConceptMasks(logits, presence, scores, instances)


def blobs_of(shown):
    """(3, S, S) bool: the first three connected regions of a picture."""
    regions = torch.from_numpy(label(shown.numpy()))
    return torch.stack([regions == i for i in (1, 2, 3)])


def segment(*clips, **settings):
    return Sam3(ColourConcepts(), Sam3Settings(**settings)).segment(clips)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tiny_sam3(tmp_path_factory.mktemp("sam3"))


@pytest.fixture(scope="module")
def concepts(folder):
    loaded = load_model("Sam3Model", str(folder), device="cpu", backend="sam3")
    return Sam3Concepts(loaded.model, loaded.tokenizer)


def random_frames(count, height=48, width=64):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, height, width, 3), dtype=torch.uint8, generator=generator)


def test_sam3_answers_are_those_of_the_official_forward(folder, concepts):
    frames = random_frames(3, SAM3_SIDE, SAM3_SIDE)
    found = concepts.find(frames, NOUNS)
    model = transformers.Sam3Model.from_pretrained(folder).eval()
    side = {"height": SAM3_SIDE, "width": SAM3_SIDE}
    processor = transformers.Sam3Processor(
        transformers.Sam3ImageProcessor(size=side), clip_tokenizer()
    )
    for i, frame in enumerate(frames):
        for j, noun in enumerate(NOUNS):
            inputs = processor(images=frame.permute(2, 0, 1), text=noun, return_tensors="pt")
            with torch.inference_mode():
                output = model(**inputs)
            torch.testing.assert_close(
                found.logits[i, j], output.semantic_seg[0, 0], atol=1e-5, rtol=1e-5
            )
            (official,) = processor.post_process_instance_segmentation(output, threshold=0)
            scores, best = official["scores"].sort(descending=True)
            ours = found.presence[i, j] * found.scores[i, j]
            torch.testing.assert_close(ours, scores[:8], atol=1e-4, rtol=1e-4)
            differ = official["masks"][best[:8]].bool() ^ found.instances[i, j]
            assert differ.float().mean() < 1e-3
    # The nouns differ by more than the tolerance.
    assert (found.logits[:, 0] - found.logits[:, 1]).abs().max() > 1e-3


def test_sam3_pixels_are_those_of_the_official_processor(concepts):
    frames = random_frames(2)
    side = {"height": SAM3_SIDE, "width": SAM3_SIDE}
    official = transformers.Sam3ImageProcessor(size=side)(
        list(frames.permute(0, 3, 1, 2)), return_tensors="pt"
    ).pixel_values
    # It rounds to whole grey levels after resizing.
    assert (concepts._pixels(frames) - official).abs().max() <= 1.01 / 127.5


@pytest.mark.parametrize(("frames_per_launch", "pairs_per_launch"), [(2, 4), (4, 1), (3, 9)])
def test_sam3_launches_of_any_size_give_the_same_answers(
    concepts, frames_per_launch, pairs_per_launch
):
    frames = random_frames(5)
    expected = concepts.find(frames, NOUNS)
    found = Sam3Concepts(
        concepts.model,
        concepts._tokenizer,
        frames_per_launch=frames_per_launch,
        pairs_per_launch=pairs_per_launch,
    ).find(frames, NOUNS)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_sam3_answers_do_not_depend_on_mates(concepts):
    frames = random_frames(4)
    together = concepts.find(frames, NOUNS)
    backwards = concepts.find(frames.flip(0), NOUNS[::-1])
    alone = concepts.find(frames[2:3], NOUNS[1:2])
    for all_of, reversed_of, one in zip(together, backwards, alone, strict=True):
        assert torch.equal(all_of, reversed_of.flip(0, 1))
        assert torch.equal(all_of[2, 1], one[0, 0])


def test_sam3_cuts_a_noun_to_its_tokens(concepts):
    ids = concepts._tokenizer.encode("ball " * 50).ids
    assert len(ids) == 32
    assert (ids[0], ids[-1]) == (49406, 49407)


def test_sam3_segments_with_a_model_from_a_folder_alone_and_in_company(folder):
    segmenter = get_segmenter(f"sam3:{folder}", min_presence=0, min_score=0, max_area=1.0)
    clips = [
        scene_clip(random_frames(2).numpy(), actor=("person",), objects=("ball", "red hat")),
        scene_clip(random_frames(3, 40, 30).numpy(), actor=("dog",)),
    ]
    first, second = segmenter.segment(clips)
    assert first.bits.shape == (2, 4, 2048)
    assert first.bits.dtype == np.uint8
    assert first.score.dtype == np.float16
    assert first.found[:, :3].any()
    assert not first.found[:, 3].any()
    assert not second.found[:, 1:].any()
    np.testing.assert_array_equal(unpack_masks(first.bits).any(axis=(2, 3)), first.found)
    assert_same_masks(segmenter.segment(clips[::-1])[1], first)
    assert_same_masks(segmenter.segment(clips[1:])[0], second)


def test_a_disc_of_each_noun_comes_back():
    frames, discs = zip(
        *[scene(("red", 40 + 25 * i, 30, 20), ("blue", 120 - 25 * i, 90, 18)) for i in range(4)],
        strict=True,
    )
    masks = segment(scene_clip(frames, objects=("blue",)))[0]
    np.testing.assert_array_equal(masks.found, [[True, True, False, False]] * 4)
    np.testing.assert_allclose(masks.score[:, :2], 0.9 * 0.8, atol=1e-3)
    for cells, (red, blue) in zip(unpack_masks(masks.bits), discs, strict=True):
        assert cell_iou(cells[0], red) > 0.9
        assert cell_iou(cells[1], blue) > 0.9


def test_two_discs_of_a_noun_are_one_union_and_so_are_those_of_two_synonyms():
    frame, discs = scene(
        *[("blue", 30, 40, 18), ("yellow", 120, 80, 25), ("red", 30, 90, 12), ("red", 90, 30, 12)]
    )
    masks = segment(scene_clip([frame], actor=("blue", "yellow"), objects=("red",)))[0]
    cells = unpack_masks(masks.bits)[0]
    assert cell_iou(cells[0], discs[0] | discs[1]) > 0.9
    assert cell_iou(cells[1], discs[2] | discs[3]) > 0.9


def test_actors_that_do_not_act_are_left_out():
    frame, (near, ball, _) = scene(("red", 40, 60, 20), ("blue", 68, 60, 10), ("red", 130, 60, 25))
    masks = segment(scene_clip([frame], objects=("blue",)))[0]
    assert cell_iou(unpack_masks(masks.bits)[0, 0], near) > 0.9
    assert cell_iou(unpack_masks(masks.bits)[0, 1], ball) > 0.9


def test_what_an_actor_shares_with_a_bystander_stays():
    instances = torch.zeros(1, 1, 3, 128, 128, dtype=torch.bool)
    for i, (left, right) in enumerate([(0, 40), (30, 60), (100, 120)]):
        instances[0, 0, i, :, left:right] = True
    ball = torch.zeros(1, 128, 128, dtype=torch.bool)
    ball[0, :4, :4] = True
    nothing = torch.zeros(1, 1)
    found = bystanders(ConceptMasks(nothing, nothing, nothing, instances), ball)[0]
    # The first acts; of the second, the ten columns that both cover are not taken from it.
    assert found[0].nonzero().flatten().tolist() == [*range(40, 60), *range(100, 120)]


def test_of_actors_without_an_object_the_largest_two_stay():
    frame, discs = scene(("red", 30, 60, 20), ("red", 80, 60, 12), ("red", 130, 60, 25))
    masks = segment(scene_clip([frame]))[0]
    assert cell_iou(unpack_masks(masks.bits)[0, 0], discs[0] | discs[2]) > 0.9


def test_a_frame_without_the_noun_abstains():
    frames = [scene(("red", 80, 60, 30))[0], scene()[0]]
    masks = segment(scene_clip(frames, actor=("red",), objects=("blue",)))[0]
    np.testing.assert_array_equal(masks.found, [[True, False, False, False], [False] * 4])
    assert not masks.bits[1].any()
    assert not masks.score[1].any()


def test_an_absent_synonym_adds_nothing():
    frame, (disc,) = scene(("red", 80, 60, 30))
    masks = segment(scene_clip([frame], actor=("blue", "red")))[0]
    assert cell_iou(unpack_masks(masks.bits)[0, 0], disc) > 0.9


@pytest.mark.parametrize(
    "limit", [{"min_presence": 0.95}, {"min_score": 0.75}, {"min_area": 0.5}, {"max_area": 0.05}]
)
def test_each_limit_refuses_a_mask(limit):
    clip = scene_clip([scene(("red", 80, 60, 30))[0]])
    assert segment(clip)[0].found[0, 0]
    refused = segment(clip, **limit)[0]
    assert not refused.found.any()
    assert not refused.bits.any()


def test_a_noun_that_is_everywhere_is_not_found():
    assert not segment(scene_clip([scene()[0]], actor=("everything",)))[0].found.any()


def test_a_prompt_without_nouns_finds_nothing():
    assert not segment(scene_clip([scene(("red", 80, 60, 30))[0]], actor=()))[0].found.any()


def test_colours_do_not_depend_on_order_or_company():
    assert_clips_stand_alone(segment)


def test_sam3_fingerprint_tells_weights_and_thresholds(folder):
    facts = get_segmenter(f"sam3:{folder}", min_score=0.3).fingerprint()
    weights = (folder / "model.safetensors").read_bytes()
    assert facts["weights_sha256"] == hashlib.sha256(weights).hexdigest()
    assert facts["name"] == "sam3"
    assert facts["min_score"] == 0.3
    assert facts["min_presence"] == 0.5
    assert facts["precision"] == "fp32"
    assert facts["package"] == f"transformers {transformers.__version__}"
    assert json.loads(json.dumps(facts)) == facts


def test_the_files_that_decide_the_masks_are_noted(folder):
    with noting_files() as files:
        get_segmenter(f"sam3:{folder}").fingerprint()
    names = {Path(file.path).name for file in files}
    # The folder too: another file of weights in it would be read beside the others.
    assert names == {folder.name, "config.json", "tokenizer.json", "model.safetensors"}


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_folder_without_one_of_its_files_is_refused(folder, tmp_path, name):
    shutil.copytree(folder, tmp_path / "sam3")
    (tmp_path / "sam3" / name).rename(tmp_path / name)
    with pytest.raises(BackendError, match=rf"{name[-11:]}.* is absent|no .safetensors") as got:
        get_segmenter(f"sam3:{tmp_path / 'sam3'}")
    assert "\n" not in str(got.value)
    assert "--segmenter sam3:FOLDER" in str(got.value)


def test_a_folder_that_lacks_weights_or_is_of_another_model_is_refused(folder, tmp_path):
    copy = tmp_path / "sam3"
    shutil.copytree(folder, copy)
    weights = load_file(copy / "model.safetensors")
    del weights["text_projection.bias"]
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BackendError, match="lacks 1 weights, first 'text_projection.bias'"):
        get_segmenter(f"sam3:{copy}")
    save_file({"x": torch.zeros(1)}, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BackendError, match=r"sam3: it lacks \d{3} weights"):
        get_segmenter(f"sam3:{copy}")
    (copy / "config.json").write_text("{]")
    with pytest.raises(BackendError, match="Sam3Model cannot be read from it") as caught:
        get_segmenter(f"sam3:{copy}")
    assert "\n" not in str(caught.value)


def test_weights_that_are_neither_here_nor_within_reach_are_told(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(BackendError, match=r"lacks facebook/sam3: .*HF_HUB_OFFLINE") as caught:
        get_segmenter("sam3")
    assert "\n" not in str(caught.value)
    assert "licence must be accepted" in str(caught.value)
    with pytest.raises(BackendError, match="it is no folder and no owner/name"):
        get_segmenter(f"sam3:{tmp_path / 'absent'}")


def test_without_the_package_or_with_an_old_one_the_command_to_install_it_is_told(monkeypatch):
    told = r"transformers is {}; .* install it with `pip install 'transformers>=5.9'`"
    monkeypatch.setattr(transformers_models, "version", lambda package: "5.8.1")
    with pytest.raises(BackendError, match=told.format("of version 5.8.1")):
        get_segmenter("sam3")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(BackendError, match=told.format(r"absent \(transformers\)")):
        get_segmenter("sam3")


def test_the_extra_asks_for_the_version_that_is_checked(repository):
    config = configparser.ConfigParser()
    config.read(repository / "setup.cfg")
    oldest = ".".join(map(str, transformers_models.OLDEST_VERSION))
    assert config["options.extras_require"]["transformers"] == f"transformers>={oldest}"


def test_sam3_runs_in_bfloat16_as_on_a_gpu(concepts, monkeypatch):
    frames = random_frames(2)
    expected = concepts.find(frames, NOUNS)
    monkeypatch.setattr(sam3_model, "autocast", lambda device: torch.autocast("cpu"))
    found = Sam3Concepts(concepts.model, concepts._tokenizer).find(frames, NOUNS)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == theirs.dtype
        assert ours.shape == theirs.shape
    assert (found.logits - expected.logits).abs().mean() < 0.1 * expected.logits.abs().mean()


def test_sam3_is_taken_from_the_hubs_cache(folder, tmp_path, monkeypatch):
    from huggingface_hub import constants, file_download

    snapshot = tmp_path / "models--someone--tiny" / "snapshots" / "0123"
    shutil.copytree(folder, snapshot)
    (snapshot.parent.parent / "refs").mkdir()
    (snapshot.parent.parent / "refs" / "main").write_text("0123")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for module in (constants, file_download):
        monkeypatch.setattr(module, "HF_HUB_CACHE", str(tmp_path), raising=False)
    facts = get_segmenter("sam3:someone/tiny").fingerprint()
    assert facts == {**get_segmenter(f"sam3:{folder}").fingerprint(), "model": "tiny"}


def test_sam3_answers_from_several_threads_are_those_of_one(folder):
    segmenter = get_segmenter(f"sam3:{folder}", min_presence=0, min_score=0, max_area=1.0)
    clips = [
        scene_clip(random_frames(3, 40 + i, 30).numpy(), actor=("dog",), objects=(f"ball {i}",))
        for i in range(8)
    ]
    expected = segmenter.segment(clips)
    fresh = get_segmenter(f"sam3:{folder}", min_presence=0, min_score=0, max_area=1.0)
    with ThreadPoolExecutor(4, initializer=torch.set_num_threads, initargs=(1,)) as threads:
        found = list(threads.map(lambda clip: fresh.segment([clip])[0], clips))
    for first, second in zip(found, expected, strict=True):
        assert first.found.any()
        assert_same_masks(first, second)
