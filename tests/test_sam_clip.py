import numpy as np
import pytest
import torch
from colour_models import ColourClip, ColourSam, segment
from colour_scenes import COLOURS, GREEN, assert_same_masks, cell_iou, scene, scene_clip
from host_waits import NoHostWaits
from skimage.morphology import dilation
from tiny_models import open_clip, segment_anything, tiny_clip, tiny_clip_config, tiny_sam
from torch.utils._python_dispatch import _disable_current_modes

from pipeline.errors import BackendError, ConfigError
from pipeline.masks import pool_masks, unpack_masks
from pipeline.segmenters import get_segmenter, sam_clip
from pipeline.segmenters.sam.decoding import SamDecoder
from pipeline.segmenters.sam.points import ProposalSettings
from pipeline.segmenters.sam_clip import SamClip
from pipeline.segmenters.sam_clip.dense_clip import DenseClip
from pipeline.segmenters.sam_clip.settings import SamClipSettings, settings_of
from pipeline.views import GEOMETRIES, mask_window, square_view

OF_MANY = {"frames_per_launch": 2, "prompts_per_launch": 4}
both_ways = pytest.mark.parametrize("ways", [{}, {"proposals": "grid"}], ids=["prompts", "grid"])


@both_ways
def test_a_red_disc_on_green_comes_back(ways):
    frames, discs = zip(*[scene(("red", 40 + 20 * i, 60, 22)) for i in range(4)], strict=True)
    masks = segment(scene_clip(frames), **ways)[0]
    np.testing.assert_array_equal(masks.found, [[True, False, False, False]] * 4)
    for cells, (disc,) in zip(unpack_masks(masks.bits)[:, 0], discs, strict=True):
        assert cell_iou(cells, disc) > 0.9
    assert (masks.score[:, 0] > 0.5).all()
    assert (masks.score <= 1).all()


@both_ways
def test_two_nouns_are_followed_through_the_frames(ways):
    frames, discs = zip(
        *[scene(("red", 40 + 25 * i, 30, 20), ("blue", 120 - 25 * i, 90, 18)) for i in range(4)],
        strict=True,
    )
    masks = segment(scene_clip(frames, objects=("blue",)), **ways)[0]
    assert masks.found[:, :2].all()
    # What stands in for rejected masks scores a tenth.
    assert (masks.score[:, :2] > 0.5).all()
    for cells, (red, blue) in zip(unpack_masks(masks.bits), discs, strict=True):
        assert cell_iou(cells[0], red) > 0.85
        assert cell_iou(cells[1], blue) > 0.85


@pytest.mark.parametrize("least", [{"min_presence_cells": 1.1}, {"min_presence_frame": 100.0}])
def test_a_noun_must_pass_both_tests_of_presence(least):
    clip = scene_clip([scene(("red", 80, 60, 30))[0]])
    assert segment(clip)[0].found.any()
    assert not segment(clip, **least)[0].found.any()


@both_ways
def test_an_absent_colour_is_not_found_beside_one_that_is(ways):
    frames = [scene(("red", 80, 60, 25))[0]] * 2
    masks = segment(scene_clip(frames, actor=("blue",), objects=("red",)), **ways)[0]
    np.testing.assert_array_equal(masks.found, [[False, True, False, False]] * 2)
    assert not masks.bits[:, 0].any()
    assert not masks.score[:, 0].any()


@both_ways
def test_a_clip_that_shows_no_noun_has_no_masks(ways):
    masks = segment(
        scene_clip([scene()[0]] * 3, actor=("red",), objects=("blue", "yellow")), **ways
    )[0]
    assert masks.bits.shape == (3, 4, 2048)
    assert not masks.found.any()


@both_ways
def test_a_frame_without_the_noun_abstains_in_a_clip_that_shows_it(ways):
    frames = [scene(("red", 80, 60, 30))[0]] * 3 + [scene()[0]]
    masks = segment(scene_clip(frames), **ways)[0]
    assert masks.found[:, 0].tolist() == [True, True, True, False]


@both_ways
def test_two_discs_of_a_noun_are_one_union(ways):
    frame, discs = scene(("blue", 30, 40, 18), ("blue", 120, 80, 25), ("red", 80, 100, 12))
    masks = segment(scene_clip([frame], actor=("red",), objects=("blue",)), **ways)[0]
    cells = unpack_masks(masks.bits)[0]
    assert cell_iou(cells[1], discs[0] | discs[1]) > 0.9
    assert cell_iou(cells[0], discs[2]) > 0.8
    assert masks.found[0].tolist() == [True, True, False, False]


def test_the_actor_who_touches_the_object_is_taken():
    frame, (near, ball, _) = scene(("red", 40, 60, 20), ("blue", 68, 60, 10), ("red", 130, 60, 25))
    masks = segment(scene_clip([frame], actor=("red",), objects=("blue",)))[0]
    cells = unpack_masks(masks.bits)[0]
    # SAM's candidate "anywhere" would unite both actors; the box keeps them apart.
    assert cell_iou(cells[0], near) > 0.8
    assert cell_iou(cells[1], ball) > 0.8


def test_the_better_synonym_speaks_for_the_actor():
    frame, (disc,) = scene(("blue", 80, 60, 30))
    masks = segment(scene_clip([frame], actor=("yellow", "blue")))[0]
    assert cell_iou(unpack_masks(masks.bits)[0, 0], disc) > 0.9


def test_a_prompt_without_nouns_finds_nothing():
    masks = segment(scene_clip([scene(("red", 80, 60, 30))[0]], actor=()))[0]
    assert not masks.found.any()


def random_clips(count, frames=3):
    """Clips of three sizes with discs here and there; each has its own words."""
    rng = np.random.default_rng(0)
    prompts = [(("red", "yellow"), ("blue",)), (("blue",), ()), (("red",), ("blue", "yellow"))]
    clips = []
    for i in range(count):
        pictures = [
            scene(
                ("red", *rng.integers(30, 60, 2), 20),
                ("blue", *rng.integers(90, 110, 2), 12),
                height=120 + 8 * (i % 3),
            )[0]
            for _ in range(frames)
        ]
        actor, objects = prompts[i % len(prompts)]
        clips.append(scene_clip(pictures, actor=actor, objects=objects, name=str(i)))
    return clips


def assert_same(ours, theirs):
    for first, second in zip(ours, theirs, strict=True):
        assert_same_masks(first, second)


def test_no_clips_have_no_masks():
    assert segment() == []


@both_ways
def test_masks_do_not_depend_on_order_or_company(ways):
    clips = random_clips(6)
    together = segment(*clips, **ways)
    assert all(masks.found.any() for masks in together)
    assert_same(segment(*clips[::-1], **ways)[::-1], together)
    assert_same([segment(clip, **ways)[0] for clip in clips], together)
    assert_same(segment(*clips[1:3], **ways), together[1:3])


def tiny_segmenter(fixed=None, mode="clearclip", launches=None, **settings):
    # Random weights tell nothing apart: every noun counts as present.
    # Random weights tell nothing apart. So every noun counts as present, maps are made so flat that
    # any mask may pass, and SAM's masks are made firm and well thought of.
    settings = {
        "min_presence_cells": 0,
        "min_presence_frame": 0,
        "min_probability": 0,
        "logit_scale": 5,
        "max_area": 1,
        **settings,
    }
    sam = tiny_sam()
    sam.mask_decoder.iou_prediction_head.layers[-1].bias.fill_(0.9)
    for maker in sam.mask_decoder.output_hypernetworks_mlps:
        maker.layers[-1].weight.mul_(100)
        maker.layers[-1].bias.mul_(100)
    return SamClip(
        DenseClip(tiny_clip(), open_clip.get_tokenizer("ViT-B-16"), short_side=64, mode=mode),
        SamDecoder(sam, **(launches or {})),
        SamClipSettings(**settings),
        grid=ProposalSettings(points_per_side=4, kept=8, min_quality=-9, min_stability=0),
        fixed=fixed,
    )


def noise_clips(count):
    rng = np.random.default_rng(0)
    words = [("ball", "hand"), (), ("wall",), ("a", "b", "c")]
    return [
        scene_clip(
            rng.integers(0, 256, (2, 48, (64, 80)[i % 2], 3), np.uint8),
            actor=("person", "man")[: 1 + i % 2],
            objects=words[i % len(words)],
        )
        for i in range(count)
    ]


@pytest.mark.parametrize("mode", ["clearclip", "proxy_sam"])
@pytest.mark.parametrize("proposals", ["prompts", "grid"])
@pytest.mark.parametrize("launches", [{}, OF_MANY], ids=["single", "of_many"])
def test_bits_of_the_official_modules_do_not_depend_on_company_order_or_layout(
    mode, proposals, launches
):
    segmenter = tiny_segmenter(mode=mode, proposals=proposals, launches=launches)
    clips = noise_clips(5)
    together = segmenter.segment(clips)
    assert all(masks.found.any() for masks in together)
    assert_same(segmenter.segment(clips[::-1])[::-1], together)
    assert_same([segmenter.segment([clip])[0] for clip in clips], together)
    fixed = tiny_segmenter(mode=mode, proposals=proposals, launches=launches, fixed=True)
    assert_same(fixed.segment(clips), together)


@both_ways
def test_decoding_what_may_be_there_gives_the_masks_of_what_is_there(ways):
    clips = [*random_clips(3), scene_clip([scene()[0]] * 3), scene_clip([scene()[0]] * 3, actor=())]
    assert_same(segment(*clips, fixed=True, **ways), segment(*clips, **ways))


def unwatched(from_numpy):
    """Arrays are uploaded from pinned memory, which NoHostWaits cannot tell from other copies."""

    def run(array):
        with _disable_current_modes():
            return from_numpy(array)

    return run


@pytest.mark.parametrize("mode", ["clearclip", "naclip", "proxy_sam"])
@pytest.mark.parametrize("proposals", ["prompts", "grid"])
def test_nothing_waits_for_the_device_before_the_masks_are_fetched(mode, proposals, monkeypatch):
    segmenter = tiny_segmenter(fixed=True, mode=mode, proposals=proposals, launches=OF_MANY)
    clips = noise_clips(3)
    # Words are encoded when they are first met, which may wait.
    expected = segmenter.segment(clips)
    monkeypatch.setattr(torch, "from_numpy", unwatched(torch.from_numpy))
    with NoHostWaits():
        masks = segmenter.segment(clips)
    assert_same(masks, expected)


def on_device_without_numbers(module):
    """Move a module to torch's meta device, where tensors have shapes and nothing else."""
    for part in module.modules():
        for table in (part._parameters, part._buffers):
            table.update(
                {name: value.to("meta") for name, value in table.items() if value is not None}
            )
    return module


class Unfetched:
    """Masks that stay where they are, in place of their way to the host."""

    seen: list = []

    def __init__(self, masks):
        self.num_frames = len(masks.cells)
        self.seen.append(masks)

    def masks(self, num_frames):
        return [None] * (self.num_frames // num_frames)


@both_ways
def test_everything_happens_on_the_models_device_and_no_number_is_asked_for(ways, monkeypatch):
    # The meta device refuses what mixes devices, as a GPU does, and what asks for a number.
    monkeypatch.setattr(sam_clip, "Fetch", Unfetched)
    monkeypatch.setattr(Unfetched, "seen", [])
    segmenter = SamClip(
        DenseClip(
            on_device_without_numbers(tiny_clip()),
            open_clip.get_tokenizer("ViT-B-16"),
            short_side=64,
        ),
        SamDecoder(on_device_without_numbers(tiny_sam())),
        SamClipSettings(**ways),
    )
    segmenter.segment(noise_clips(3))
    assert [(*masks.cells.shape,) for masks in Unfetched.seen] == [
        (4, 4, 128, 128),
        (2, 4, 128, 128),
    ]
    assert {part.device.type for masks in Unfetched.seen for part in masks} == {"meta"}


def ellipse(height, width):
    """A red ellipse off the centre of a green frame, and its pixels."""
    y, x = np.mgrid[:height, :width] + 0.5
    mask = ((y - 0.55 * height) / (0.3 * height)) ** 2 + (
        (x - 0.4 * width) / (0.2 * width)
    ) ** 2 < 1
    frame = np.empty((height, width, 3), np.uint8)
    frame[:] = np.where(mask[..., None], COLOURS["red"], GREEN)
    return frame, mask


def cells_of(*frames):
    """The actor's 128 x 128 cells in each frame, by a SAM whose masks are as fine as the real."""
    masks = segment(scene_clip(frames), sam=ColourSam(side=256))[0]
    assert masks.found[:, 0].all()
    return unpack_masks(masks.bits)[:, 0]


def within_one_cell(ours, theirs):
    square = np.ones((3, 3), bool)
    return (
        not (ours & ~dilation(theirs, square)).any()
        and not (theirs & ~dilation(ours, square)).any()
    )


SIZES = [(240, 320), (180, 320), (320, 240), (361, 642), (240, 427)]


@pytest.mark.parametrize("size", SIZES)
def test_a_shape_survives_resizing_and_padding_within_one_cell(size):
    frame, mask = ellipse(*size)
    cells = cells_of(frame)[0]
    assert within_one_cell(cells, pool_masks(mask))
    assert not within_one_cell(np.roll(cells, 3, axis=1), pool_masks(mask))


@pytest.mark.parametrize("size", SIZES)
def test_a_mirrored_frame_has_the_mirrored_masks_within_one_cell(size):
    frame, _ = ellipse(*size)
    own, mirrored = cells_of(frame, frame[:, ::-1])
    assert within_one_cell(mirrored, own[:, ::-1])
    assert not within_one_cell(mirrored, own)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_the_window_of_a_view_shows_what_the_view_shows(size, geometry):
    frame, _ = ellipse(*size)
    window = mask_window(geometry)
    seen = cells_of(frame)[0][window, window]
    view = square_view(frame[None], image_size=2 * len(seen), geometry=geometry)[0]
    assert within_one_cell(seen, pool_masks(view[..., 0] > 127, len(seen)))


def test_a_cropped_frame_has_the_masks_of_what_is_left():
    frame, mask = ellipse(240, 320)
    cells = cells_of(frame[60:, 40:280])[0]
    assert within_one_cell(cells, pool_masks(mask[60:, 40:280]))


def test_options_come_as_text_and_wrong_ones_are_told():
    models, settings = settings_of({"sam_side": "512", "components": "2", "proposals": "grid"})
    assert (models.sam_side, settings.components, settings.proposals) == (512, 2, "grid")
    with pytest.raises(ConfigError, match=r"proposals 'dots'; needed: one of prompts, grid"):
        settings_of({"proposals": "dots"})
    with pytest.raises(ConfigError, match=r"no option 'component'.* components"):
        settings_of({"component": 2})


@pytest.fixture
def weight_files(tmp_path, monkeypatch):
    """Files of a tiny SAM that calls itself vit_b, and of a tiny CLIP that open_clip knows."""
    sam, clip = tiny_sam(width=768), tiny_clip()
    torch.save(sam.state_dict(), tmp_path / "sam.pth")
    torch.save(clip.state_dict(), tmp_path / "clip.pt")
    registry = {"vit_b": lambda checkpoint: tiny_sam(width=768)}
    monkeypatch.setattr(segment_anything, "sam_model_registry", registry)
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "Tiny", tiny_clip_config())
    return tmp_path


def test_weights_are_loaded_from_files_and_told_in_the_fingerprint(weight_files, caplog):
    import hashlib
    import json

    spec = f"sam_clip:{weight_files / 'sam.pth'},Tiny/{weight_files / 'clip.pt'}"
    segmenter = get_segmenter(spec, clip_short_side="64", min_area="0.01", proposals="grid")
    facts = segmenter.fingerprint()
    for name, file in (("sam_sha256", "sam.pth"), ("clip_sha256", "clip.pt")):
        assert facts[name] == hashlib.sha256((weight_files / file).read_bytes()).hexdigest()
    assert facts["sam"] == "vit_b"
    assert facts["clip"] == "Tiny/clip.pt"
    assert facts["clip_mode"] == "clearclip"
    assert facts["clip_short_side"] == 64
    assert facts["sam_side"] == 1024
    assert facts["min_area"] == 0.01
    assert facts["proposals"] == "grid"
    assert facts["grid"]["points_per_side"] == 16
    assert facts["precision"] == "fp32"
    assert json.loads(json.dumps(facts)) == facts
    torch.testing.assert_close(
        segmenter.clip.encode_texts(["sky"]),
        tiny_clip().encode_text(open_clip.tokenize(["sky"]), normalize=True),
    )
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


def test_the_fingerprint_tells_the_precision():
    class OnGpu(ColourClip):
        device = torch.device("cuda")

    precisions = [
        SamClip(clip, ColourSam()).fingerprint()["precision"] for clip in (ColourClip(), OnGpu())
    ]
    assert precisions == ["fp32", "bf16"]


def test_absent_clip_weights_are_told_with_what_to_give(weight_files):
    with pytest.raises(BackendError, match=r"lacks CLIP Tiny/nowhere.pt: .*`--clip Tiny/FILE`"):
        get_segmenter(f"sam_clip:{weight_files / 'sam.pth'},Tiny/nowhere.pt")


def test_a_file_that_is_no_sam_checkpoint_is_refused(tmp_path):
    torch.save({"weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(BackendError, match=r"other.pth is no SAM checkpoint"):
        get_segmenter(f"sam_clip:{tmp_path / 'other.pth'}")
    torch.save(tiny_sam(width=48).state_dict(), tmp_path / "tiny.pth")
    with pytest.raises(BackendError, match=r"width 48; needed: one of vit_b, vit_l, vit_h"):
        get_segmenter(f"sam_clip:{tmp_path / 'tiny.pth'}")
