import hashlib
import json
from concurrent.futures import ThreadPoolExecutor

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
from tiny_models import segment_anything, tiny_sam
from tiny_transformers import bert_tokenizer, transformers, write_tiny_grounding_dino

from pipeline.errors import BackendError, ConfigError
from pipeline.masks import unpack_masks
from pipeline.segmenters import get_segmenter
from pipeline.segmenters.open_vocabulary import grounding_dino
from pipeline.segmenters.open_vocabulary.box_selection import box_iou, select_boxes
from pipeline.segmenters.open_vocabulary.grounding_dino import (
    Detections,
    GroundingDino,
    detector_size,
)
from pipeline.segmenters.open_vocabulary.grounding_dino_sam import (
    GroundingDinoSam,
    GroundingDinoSamSettings,
)
from pipeline.segmenters.open_vocabulary.slot_nouns import nouns_by_slot
from pipeline.segmenters.open_vocabulary.transformers_models import load_model
from pipeline.segmenters.sam.decoding import Candidates, EmbeddedFrames

NOUNS = ("person", "hockey sticks", "red hat")
SIDE = 64


def blobs_of(colour_map):
    """Boxes x0, y0, x1, y1 in pixels of the 4-connected regions of a bool picture."""
    from skimage.measure import label, regionprops

    return [
        (box[1], box[0], box[3], box[2])
        for box in (region.bbox for region in regionprops(label(colour_map, connectivity=1)))
    ]


class ColourDetector:
    """Boxes every blob of a noun's colour, twice, and once the whole frame with a low score."""

    device = torch.device("cpu")

    def find(self, frames, nouns):
        height, width = frames.shape[1:3]
        size = torch.tensor([width, height, width, height])
        boxes = torch.zeros(len(frames), 30, 4)
        scores = torch.zeros(len(frames), 30, len(nouns))
        for i, frame in enumerate(frames.numpy().astype(int)):
            found = [((0, 0, width, height), j, 0.2) for j in range(len(nouns))]
            for j, noun in enumerate(nouns):
                near = np.abs(frame - COLOURS.get(noun, (9, 9, 9))).max(axis=-1) < 60
                for k, blob in enumerate(blobs_of(near)):
                    found += [(blob, j, 0.9 - 0.1 * k), (blob, j, 0.5)]
            for q, (box, j, score) in enumerate(found):
                boxes[i, q], scores[i, q, j] = torch.tensor(box) / size, score
        return Detections(boxes, scores)


class ColourSam:
    """Masks what in a box has the colour of the box's middle."""

    side = 64

    def embed(self, frames):
        height, width = frames.shape[1:3]
        scale = self.side / max(height, width)
        size = (round(height * scale), round(width * scale))
        pixels = frames.permute(0, 3, 1, 2).float() / 255
        canvas = torch.zeros(len(frames), 3, self.side, self.side)
        canvas[:, :, : size[0], : size[1]] = torch.nn.functional.interpolate(
            pixels, size, mode="area"
        )
        return EmbeddedFrames(canvas, (float(size[0]), float(size[1])))

    def decode_boxes(self, frames, frame_index, boxes):
        corners = boxes.view(-1, 2, 2) * torch.tensor(frames.extent[::-1])
        y, x = torch.meshgrid(*[torch.arange(self.side) + 0.5] * 2, indexing="ij")
        masks = []
        for index, ((x0, y0), (x1, y1)) in zip(frame_index, corners.tolist(), strict=True):
            canvas = frames.embeddings[index]
            middle = canvas[:, int((y0 + y1) / 2), int((x0 + x1) / 2), None, None]
            inside = (x > x0) & (x < x1) & (y > y0) & (y < y1)
            masks.append(inside & ((canvas - middle).abs().amax(dim=0) < 0.4))
        logits = torch.where(torch.stack(masks), 8.0, -8.0)[:, None]
        return Candidates(logits, torch.full((len(masks), 1), 0.9))


def segment(*clips, **settings):
    segmenter = GroundingDinoSam(
        ColourDetector(), ColourSam(), GroundingDinoSamSettings(**settings)
    )
    return segmenter.segment(clips)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tiny_grounding_dino(tmp_path_factory.mktemp("dino"))


@pytest.fixture(scope="module")
def detector(folder):
    loaded = load_model(
        "GroundingDinoForObjectDetection", str(folder), device="cpu", backend="test"
    )
    return GroundingDino(loaded.model, loaded.tokenizer, short_side=SIDE)


def random_frames(count, height=48, width=64):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, height, width, 3), dtype=torch.uint8, generator=generator)


def test_phrases_are_the_official_tokens_of_the_joined_text(detector):
    official = bert_tokenizer()(". ".join(NOUNS) + ".", return_offsets_mapping=True)
    phrases = detector.phrases(NOUNS)
    assert phrases.ids == official.input_ids
    text, ends = ". ".join(NOUNS), []
    for (first, end), noun in zip(phrases.spans, NOUNS, strict=True):
        begin, stop = official.offset_mapping[first][0], official.offset_mapping[end - 1][1]
        assert text[begin:stop] == noun
        ends.append(official.input_ids[end])
    assert set(ends) == {bert_tokenizer().convert_tokens_to_ids(".")}


def test_detections_are_those_of_the_official_model(folder, detector):
    frames = random_frames(3)
    found = detector.find(frames, NOUNS)
    tokenizer = bert_tokenizer()
    processor = transformers.GroundingDinoProcessor(
        transformers.GroundingDinoImageProcessor(
            size={"shortest_edge": SIDE, "longest_edge": int(1333 * SIDE / 800)}
        ),
        tokenizer,
    )
    model = transformers.GroundingDinoForObjectDetection.from_pretrained(folder).eval()
    # The official processor rounds resized pixels, so ours are handed to its model.
    texts = processor(
        images=list(frames.permute(0, 3, 1, 2)), text=[list(NOUNS)] * 3, return_tensors="pt"
    )
    pixels = detector._pixels(frames)
    assert pixels.shape == texts.pixel_values.shape
    deviations = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1) * 255
    assert ((pixels - texts.pixel_values).abs() * deviations).max() <= 1.01
    with torch.inference_mode():
        output = model(**{**texts, "pixel_values": pixels})
    # Threshold below zero keeps every box, in order; no words are asked for.
    results = processor.post_process_grounded_object_detection(
        output, threshold=-1, text_threshold=2.0
    )
    for boxes, scores, result, logits in zip(*found, results, output.logits, strict=True):
        torch.testing.assert_close(boxes, result["boxes"].clamp(0, 1), atol=1e-5, rtol=1e-5)
        # person is token 1; hockey sticks are 3 to 5; red hat is 7 and 8.
        expected = logits.sigmoid()[:, [[1, 1, 1], [3, 4, 5], [7, 8, 8]]].amax(dim=-1)
        torch.testing.assert_close(scores, expected, atol=1e-5, rtol=1e-5)
        assert (scores.amax(dim=1) <= result["scores"] + 1e-5).all()
    assert found.scores.std() > 0.05


def test_detector_sizes_are_the_official_ones():
    from transformers.image_transforms import get_size_with_aspect_ratio

    sizes = np.random.default_rng(0).integers(16, 2200, (3000, 2)).tolist()
    for size in [*map(tuple, sizes), (240, 320), (720, 1280), (640, 360), (800, 800), (800, 1067)]:
        assert detector_size(size, 800) == get_size_with_aspect_ratio(size, 800, 1333)


def test_detections_do_not_depend_on_launches_or_on_frames_beside(detector):
    frames = random_frames(5)
    found = detector.find(frames, NOUNS)
    backwards = detector.find(frames.flip(0), NOUNS)
    alone = detector.find(frames[3:4], NOUNS)
    for all_of, reversed_of, one in zip(found, backwards, alone, strict=True):
        assert torch.equal(all_of, reversed_of.flip(0))
        assert torch.equal(all_of[3], one[0])
    larger = GroundingDino(
        detector.model, detector._tokenizer, short_side=SIDE, frames_per_launch=3
    )
    for ours, theirs in zip(larger.find(frames, NOUNS), found, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_a_text_beyond_the_encoders_limit_is_refused(detector):
    with pytest.raises(ConfigError, match=r"has 402 tokens; Grounding DINO reads 256; .*--prompts"):
        detector.phrases(["ball"] * 200)


def test_nouns_are_cleaned_and_narrower_synonyms_left_out():
    clip = scene_clip(
        [scene()[0]],
        actor=("Person", "person in shirt", "golfer", "Person"),
        objects=("St. Bernard?", "", "  Golf   Club "),
    )
    assert nouns_by_slot(clip.prompts) == {
        0: ("person", "golfer"),
        1: ("st bernard",),
        3: ("golf club",),
    }


def test_box_overlaps_match_a_written_out_loop():
    rng = np.random.default_rng(0)
    corners = rng.random((6, 2))
    boxes = np.concatenate([corners, corners + rng.random((6, 2))], axis=1)
    found = box_iou(torch.from_numpy(boxes))
    for i, a in enumerate(boxes):
        for j, b in enumerate(boxes):
            width = max(min(a[2], b[2]) - max(a[0], b[0]), 0)
            height = max(min(a[3], b[3]) - max(a[1], b[1]), 0)
            total = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
            shared = width * height
            assert found[i, j].item() == pytest.approx(shared / (total - shared))


def detections(*rows):
    """One frame's boxes: (x0, y0, x1, y1), scores of each noun."""
    boxes, scores = zip(*rows, strict=True)
    return Detections(torch.tensor([boxes]), torch.tensor([scores]))


LEFT, NEAR_LEFT, RIGHT = (0.0, 0.0, 0.4, 1.0), (0.0, 0.0, 0.42, 1.0), (0.6, 0.0, 1.0, 1.0)
LIMITS = {"min_score": 0.3, "max_overlap": 0.8, "most": 4}


def kept_scores(found, **limits):
    """Scores of the boxes kept of the one frame, slot and noun."""
    scores = select_boxes(found, [[0]], **{**LIMITS, **limits}).scores[0, 0]
    return scores[scores > 0].tolist()


def test_a_box_goes_to_the_slot_it_answers_to_most():
    found = detections((LEFT, (0.5, 0.9, 0.1)), (RIGHT, (0.2, 0.4, 0.6)))
    kept = select_boxes(found, [[0], [], [1, 2]], **LIMITS)
    assert not kept.scores[0, :2].any()
    assert kept.scores[0, 2].tolist() == pytest.approx([0.9, 0.6])
    assert torch.equal(kept.boxes[0, 2], torch.tensor([LEFT, RIGHT]))


def test_a_box_twice_counts_once_and_the_best_stay():
    found = detections(
        (NEAR_LEFT, (0.5,)), (LEFT, (0.6,)), (RIGHT, (0.4,)), ((0.4, 0.4, 0.5, 0.5), (0.2,))
    )
    assert kept_scores(found) == pytest.approx([0.6, 0.4])
    assert kept_scores(found, max_overlap=0.99) == pytest.approx([0.6, 0.5, 0.4])
    assert kept_scores(found, most=1) == pytest.approx([0.6])
    assert kept_scores(found, min_score=0.1) == pytest.approx([0.6, 0.4, 0.2])
    assert kept_scores(found, min_score=0.7) == []


def test_a_suppressed_box_suppresses_nothing():
    boxes = [(0.1 * i, 0.0, 0.1 * i + 0.4, 1.0) for i in range(3)]
    found = detections(*[(box, (0.9 - 0.1 * i,)) for i, box in enumerate(boxes)])
    # Neighbours overlap by 0.6, the first and the last by a third.
    assert kept_scores(found, max_overlap=0.5) == pytest.approx([0.9, 0.7])


def test_a_disc_of_each_noun_comes_back():
    frames, discs = zip(
        *[scene(("red", 40 + 25 * i, 30, 20), ("blue", 120 - 25 * i, 90, 18)) for i in range(4)],
        strict=True,
    )
    masks = segment(scene_clip(frames, objects=("blue",)))[0]
    np.testing.assert_array_equal(masks.found, [[True, True, False, False]] * 4)
    np.testing.assert_allclose(masks.score[:, :2], 0.9, atol=1e-3)
    for cells, (red, blue) in zip(unpack_masks(masks.bits), discs, strict=True):
        assert cell_iou(cells[0], red) > 0.85
        assert cell_iou(cells[1], blue) > 0.85


def test_two_discs_of_a_noun_are_one_union_and_an_absent_one_is_not_found():
    frame, discs = scene(("blue", 30, 40, 18), ("blue", 120, 80, 25))
    masks = segment(scene_clip([frame], actor=("red",), objects=("blue",)))[0]
    assert masks.found[0].tolist() == [False, True, False, False]
    assert cell_iou(unpack_masks(masks.bits)[0, 1], discs[0] | discs[1]) > 0.85


def test_the_actor_who_touches_the_object_is_taken():
    frame, (near, _, _) = scene(("red", 40, 60, 20), ("blue", 68, 60, 10), ("red", 130, 60, 25))
    masks = segment(scene_clip([frame], objects=("blue",)))[0]
    assert cell_iou(unpack_masks(masks.bits)[0, 0], near) > 0.8


def test_a_frame_without_the_noun_abstains():
    frames = [scene(("red", 80, 60, 30))[0], scene()[0]]
    masks = segment(scene_clip(frames))[0]
    assert masks.found[:, 0].tolist() == [True, False]
    assert not masks.bits[1].any()


def test_clips_that_show_or_name_nothing_have_no_masks():
    shown_nothing, named_nothing = segment(
        scene_clip([scene()[0]] * 3), scene_clip([scene(("red", 80, 60, 30))[0]], actor=())
    )
    assert shown_nothing.bits.shape == (3, 4, 2048)
    assert not shown_nothing.found.any()
    assert not named_nothing.found.any()


@pytest.mark.parametrize("limit", [{"min_score": 0.95}, {"min_area": 0.5}, {"max_area": 0.05}])
def test_each_limit_refuses_a_mask(limit):
    clip = scene_clip([scene(("red", 80, 60, 30))[0]])
    assert segment(clip)[0].found[0, 0]
    assert not segment(clip, **limit)[0].found.any()


def test_colours_do_not_depend_on_order_or_company():
    assert_clips_stand_alone(segment)


@pytest.fixture
def sam_file(tmp_path, monkeypatch):
    """A tiny SAM that calls itself vit_b."""
    torch.save(tiny_sam(width=768).state_dict(), tmp_path / "sam.pth")
    registry = {"vit_b": lambda checkpoint: tiny_sam(width=768)}
    monkeypatch.setattr(segment_anything, "sam_model_registry", registry)
    return tmp_path / "sam.pth"


def test_both_models_come_from_files_and_are_told_in_the_fingerprint(folder, sam_file):
    segmenter = get_segmenter(f"grounding_dino_sam:{folder},{sam_file}", detector_side=SIDE)
    facts = segmenter.fingerprint()
    files = {"weights_sha256": folder / "model.safetensors", "sam_sha256": sam_file}
    for name, file in files.items():
        assert facts[name] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert facts["name"] == "grounding_dino_sam"
    assert facts["detector_side"] == SIDE
    assert facts["min_score"] == 0.35
    assert facts["sam"] == "vit_b"
    assert json.loads(json.dumps(facts)) == facts


def test_the_parts_fit_together_with_tiny_models(folder, sam_file):
    segmenter = get_segmenter(
        f"grounding_dino_sam:{folder}",
        sam=str(sam_file),
        detector_side=SIDE,
        sam_side=512,
        boxes=2,
        min_score=0,
        min_area=0,
        max_area=1.0,
    )
    clips = [
        scene_clip(random_frames(2).numpy(), actor=("person",), objects=("ball", "red hat")),
        scene_clip(random_frames(3, 40, 30).numpy(), actor=("dog",)),
    ]
    first, second = segmenter.segment(clips)
    assert first.bits.shape == (2, 4, 2048)
    assert first.found[:, :3].any()
    assert not first.found[:, 3].any()
    assert not second.found[:, 1:].any()
    np.testing.assert_array_equal(unpack_masks(first.bits).any(axis=(2, 3)), first.found)
    assert_same_masks(segmenter.segment(clips[::-1])[1], first)
    assert_same_masks(segmenter.segment(clips[1:])[0], second)


def test_an_absent_detector_is_told(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(BackendError, match="lacks IDEA-Research/grounding-dino-tiny: ") as caught:
        get_segmenter("grounding_dino_sam")
    assert "\n" not in str(caught.value)
    assert "--segmenter grounding_dino_sam:FOLDER" in str(caught.value)


def test_the_detector_runs_in_bfloat16_as_on_a_gpu(detector, monkeypatch):
    frames = random_frames(2)
    expected = detector.find(frames, NOUNS)
    monkeypatch.setattr(grounding_dino, "autocast", lambda device: torch.autocast("cpu"))
    found = detector.find(frames, NOUNS)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == theirs.dtype
        assert ours.shape == theirs.shape
        assert ours.isfinite().all()
    assert not torch.equal(found.scores, expected.scores)


def test_detections_from_several_threads_are_those_of_one(detector):
    clips = [random_frames(3, 40 + i, 30) for i in range(8)]
    with ThreadPoolExecutor(4, initializer=torch.set_num_threads, initargs=(1,)) as threads:
        found = list(threads.map(lambda frames: detector.find(frames, NOUNS), clips))
    for frames, own in zip(clips, found, strict=True):
        for first, second in zip(own, detector.find(frames, NOUNS), strict=True):
            assert torch.equal(first, second)
