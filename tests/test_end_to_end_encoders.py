"""Encoders that train: which weights move, and that nothing else does."""

import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from i2st_model.end_to_end.encoder_config import EncoderConfig
from i2st_model.end_to_end.parameters import block_names, open_last_blocks
from i2st_model.end_to_end.trainable import TrainableEncoder
from pipeline.encoders import get_encoder
from pipeline.errors import BackendError, ConfigError
from pipeline.torchvision_shim import ensure_torchvision

ensure_torchvision()

timm = pytest.importorskip("timm")

TINY_CLIP = {
    "embed_dim": 24,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 64, "layers": 3, "width": 48, "head_width": 24, "patch_size": 16},
    "text_cfg": {"context_length": 16, "vocab_size": 64, "width": 32, "heads": 2, "layers": 1},
}
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Random weights of small models: name -> file."""
    from open_clip import factory
    from open_clip.factory import create_model

    folder, patch = tmp_path_factory.mktemp("weights"), pytest.MonkeyPatch()
    patch.setattr(factory, "_MODEL_CONFIGS", {**factory._MODEL_CONFIGS, "tiny": TINY_CLIP})
    torch.manual_seed(0)
    models = {
        "timm:test_resnet": timm.create_model("test_resnet", num_classes=0, zero_init_last=False),
        "timm:test_vit": timm.create_model("test_vit", num_classes=0),
        "open_clip:tiny/mine": create_model("tiny", pretrained=None),
    }
    files = {}
    for number, (name, model) in enumerate(models.items()):
        files[name] = folder / f"{number}.safetensors"
        save_file(
            {key: value.contiguous() for key, value in model.state_dict().items()}, files[name]
        )
    yield files
    patch.undo()


def build(weights, name="timm:test_resnet", **settings):
    torch.manual_seed(1)
    return TrainableEncoder(EncoderConfig(name=name, weights=str(weights[name]), **settings), CPU)


def some_views(encoder, count=3):
    side = encoder.frozen.image_size
    return torch.randint(0, 256, (count, side, side, 3), dtype=torch.uint8)


def all_weights(encoder):
    return {name: value.clone() for name, value in encoder.network.state_dict().items()}


def take_step(encoder, views, rate=0.1):
    optimizer = torch.optim.SGD(encoder.parameters(), lr=rate)
    tokens, embedding = encoder(views)
    (tokens.square().mean() + embedding.square().mean()).backward()
    optimizer.step()
    optimizer.zero_grad()


ALL = ("timm:test_resnet", "timm:test_vit", "open_clip:tiny/mine")


# --- features ---


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("trained", ["full", "last_blocks", "lora"])
def test_features_begin_as_those_of_the_frozen_encoder(weights, name, trained):
    encoder = build(weights, name, trained=trained, blocks=1, frames_at_a_time=2)
    frozen = get_encoder(name, weights=weights[name])
    views = some_views(encoder)
    tokens, embedding = encoder(views)
    expected = frozen.encode(views)
    assert tokens.requires_grad
    # Batches of another size add in another order; float16 keeps 11 bits.
    torch.testing.assert_close(tokens, expected.tokens.float(), rtol=2e-3, atol=2e-3)
    torch.testing.assert_close(embedding, expected.embedding.float(), rtol=2e-3, atol=2e-3)


def test_checkpointed_gradients_are_the_same_gradients(weights):
    gradients = []
    for checkpointed in (False, True):
        encoder = build(weights, checkpoint_gradients=checkpointed, frames_at_a_time=2)
        torch.manual_seed(2)
        tokens, _ = encoder(some_views(encoder, 5))
        tokens.square().mean().backward()
        gradients.append({n: p.grad for n, p in encoder.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        assert torch.equal(gradient, gradients[1][name]), name


def test_checkpointing_keeps_few_activations(weights):
    def kept_bytes(checkpointed):
        encoder = build(weights, checkpoint_gradients=checkpointed, frames_at_a_time=1)
        sizes = []

        def pack(tensor):
            sizes.append(tensor.untyped_storage().nbytes())
            return tensor

        views = some_views(encoder, 4)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            encoder(views)
        return sum(sizes)

    assert kept_bytes(True) < 0.1 * kept_bytes(False)


# --- which weights train ---


def test_blocks_are_the_layers_of_known_networks(weights):
    resnet = timm.create_model("resnet50", num_classes=0)
    assert block_names(resnet) == [
        f"layer{stage}.{block}"
        for stage, depth in enumerate((3, 4, 6, 3), 1)
        for block in range(depth)
    ]
    tower = build(weights, "open_clip:tiny/mine").network
    assert block_names(tower) == [f"transformer.resblocks.{n}" for n in range(3)]
    assert block_names(timm.create_model("test_vit")) == [f"blocks.{n}" for n in range(6)]


@pytest.mark.parametrize(
    ("name", "opened"),
    [
        ("timm:test_resnet", ("layer4.",)),
        ("timm:test_vit", ("blocks.5.", "norm.", "fc_norm.")),
        ("open_clip:tiny/mine", ("transformer.resblocks.2.", "ln_post.")),
    ],
)
def test_last_blocks_train_alone_with_what_stands_behind_them(weights, name, opened):
    encoder = build(weights, name, trained="last_blocks", blocks=1)
    before = all_weights(encoder)
    take_step(encoder, some_views(encoder))
    changed = {key for key, value in all_weights(encoder).items() if not value.equal(before[key])}
    assert changed
    assert all(key.startswith(opened) for key in changed)
    held = {key.removeprefix("trained.").replace("/", ".") for key in encoder.state_dict()}
    assert held == {key for key in before if key.startswith(opened) and "running" not in key} - {
        key for key in before if key.endswith("num_batches_tracked")
    }


def test_full_training_moves_weights_and_no_running_statistics(weights):
    encoder = build(weights)
    encoder.train()
    before = all_weights(encoder)
    take_step(encoder, some_views(encoder))
    for name, value in all_weights(encoder).items():
        is_statistic = "running" in name or "tracked" in name
        assert value.equal(before[name]) == is_statistic, name
    assert not any(module.training for module in encoder.network.modules())


def test_more_blocks_than_there_are_say_how_many_there_are():
    network = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
    assert block_names(network) == ["0", "2"]
    with pytest.raises(ConfigError, match=r"encoder.blocks=3, toy has 2 blocks; 1 to 2"):
        open_last_blocks(network, 3, name="toy")


def test_reset_puts_back_what_training_changed(weights):
    encoder = build(weights, trained="last_blocks", blocks=1)
    before = all_weights(encoder)
    take_step(encoder, some_views(encoder))
    assert any(not value.equal(before[name]) for name, value in all_weights(encoder).items())
    encoder.reset(0)
    assert all(value.equal(before[name]) for name, value in all_weights(encoder).items())


def test_reset_draws_adapters_from_the_seed_alone(weights):
    encoder = build(weights, "timm:test_vit", trained="lora", rank=2)
    views = some_views(encoder)
    expected = [features.detach() for features in encoder(views)]
    drawn = []
    for seed in (5, 6, 5):
        torch.manual_seed(len(drawn))
        take_step(encoder, views)
        encoder.reset(seed)
        assert torch.initial_seed() == len(drawn)
        after = all_weights(encoder)
        drawn.append({name: value for name, value in after.items() if ".lora_A." in name})
        assert all(not value.any() for name, value in after.items() if ".lora_B." in name)
    for name, value in drawn[0].items():
        assert value.equal(drawn[2][name])
        assert not value.equal(drawn[1][name])
        # Uniform within 1 / sqrt(inputs), as layers of torch and peft start.
        bound = value[0].numel() ** -0.5
        assert 0.9 * bound < value.abs().max() <= bound
    for features, wanted in zip(encoder(views), expected, strict=True):
        assert torch.equal(features, wanted)


# --- adapters ---


@pytest.mark.parametrize("name", ALL)
def test_adapters_train_and_the_network_stays(weights, name):
    encoder = build(weights, name, trained="lora", rank=2)
    before = all_weights(encoder)
    for _ in range(3):
        take_step(encoder, some_views(encoder), rate=0.5)
        with torch.inference_mode():
            encoder(some_views(encoder))
    after = all_weights(encoder)
    changed = {key for key, value in after.items() if not value.equal(before[key])}
    assert changed
    assert all(".lora_" in key for key in changed)
    assert {key.split(".")[-3] for key in changed} == {"lora_A", "lora_B"}
    assert all("/lora_" in key for key in encoder.state_dict())
    # Rank 2 of a square layer of width w is 4 w of its w x w weights.
    assert sum(value.numel() for value in encoder.parameters()) < 0.25 * sum(
        value.numel() for key, value in after.items() if ".lora_" not in key
    )


def test_an_adapted_layer_is_its_formula(weights):
    encoder = build(weights, "timm:test_vit", trained="lora", rank=2)
    layer = encoder.network.blocks[0].attn.qkv
    (a,), (b,) = layer.lora_A.values(), layer.lora_B.values()
    nn.init.normal_(b.weight)
    x = torch.randn(5, layer.in_features)
    base = layer.get_base_layer()
    expected = x @ base.weight.T + base.bias + 2 * x @ a.weight.T @ b.weight.T
    torch.testing.assert_close(layer(x), expected)


def test_a_network_without_plain_layers_cannot_be_adapted():
    with pytest.raises(ConfigError, match="efficientnet-lite0 has no linear layer and no plain"):
        TrainableEncoder(EncoderConfig(name="efficientnet-lite0", trained="lora"), CPU)


def test_without_peft_the_install_line_is_named(weights, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(BackendError, match=r"peft is absent; .* `pip install 'i2st\[peft\]'`"):
        build(weights, trained="lora")


# --- encoders of others ---


def test_an_encoder_that_shows_no_network_is_refused(monkeypatch):
    from pipeline import encoders

    monkeypatch.setitem(encoders.ENCODERS, "closed", lambda model, **options: object())
    with pytest.raises(ConfigError, match="encoder closed shows no network"):
        TrainableEncoder(EncoderConfig(name="closed"), CPU)


def test_an_encoder_that_cannot_be_is_refused_with_the_settings_of_training(monkeypatch):
    from pipeline.encoders import weights

    with pytest.raises(BackendError, match="pass --set encoder.name=timm:resnet50$"):
        TrainableEncoder(EncoderConfig(name="timm:resnet51"), CPU)

    def unreachable(*words, **named):
        raise weights.absent_weights("timm:resnet18", "no network")

    monkeypatch.setattr("pipeline.encoders.timm_model.fetch_from_hub", unreachable)
    with pytest.raises(BackendError) as caught:
        TrainableEncoder(EncoderConfig(name="timm:resnet18"), CPU)
    assert str(caught.value).endswith(
        "pass a local file with --set encoder.weights=FILE, or --set "
        "encoder.name=efficientnet-lite0"
    )


def test_the_embedded_encoder_trains():
    encoder = TrainableEncoder(
        EncoderConfig(name="efficientnet-lite0", trained="last_blocks", blocks=1), CPU
    )
    before = all_weights(encoder)
    take_step(encoder, some_views(encoder, 1), rate=0.01)
    changed = {key for key, value in all_weights(encoder).items() if not value.equal(before[key])}
    assert {key.split(".")[0] for key in changed} == {"_blocks", "_conv_head", "_bn1"}
    assert np.isfinite(sum(value.double().sum().item() for value in encoder.parameters()))
