"""Text towers of open_clip: sentences into the space of the image tower's embedding."""

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pipeline.encoders.open_clip_vit import find_weights, model_config
from pipeline.encoders.weights import fit_state_dict, read_state_dict, sha256_of
from pipeline.errors import BackendError
from pipeline.torchvision_shim import ensure_torchvision

SENTENCES = 64
"""Sentences per call of the tower."""
DEFAULT_SCALE = 100.0
"""What CLIP's training bounds the logit scale by, and nearly reaches."""
_IMAGE_KEYS = ("visual.", "logit_scale", "logit_bias")


class TextTower(NamedTuple):
    """A frozen text tower."""

    network: Any
    tokenizer: Any
    scale: float
    """Factor from cosine to logit that the model was trained with."""
    weights_sha256: str

    @torch.no_grad()
    def encode(self, sentences: Sequence[str]) -> Tensor:
        """Encode n sentences: (n, E) float32 on the CPU, not normalised to unit length."""
        parts = [sentences[at : at + SENTENCES] for at in range(0, len(sentences), SENTENCES)]
        return torch.cat([self.network(self.tokenizer(list(part))).float() for part in parts])


def build_text_tower(model: str, *, weights: Path | None = None) -> TextTower:
    """Build the text tower of an open_clip model, on the CPU.

    Args:
        model: ``MODEL/TAG`` as in ``open_clip.list_pretrained()``, or ``MODEL/FILE``.
        weights: local file with the weights of both towers.

    Returns:
        The tower, its weights loaded and frozen.

    Raises:
        BackendError: unknown model, absent weights, or a text tower that is another package's.
    """
    require_own_words(model)
    name, _, tag = model.partition("/")
    config = model_config(name)
    source = find_weights(name, tag, weights, config)
    state = read_state_dict(source.path)
    network = _text_network(config)
    fit_state_dict(network, _text_state(state), source=f"{source.path}, text of open_clip:{name}")
    scale = state.get("logit_scale")
    return TextTower(
        network=network.eval().requires_grad_(False),
        tokenizer=_tokenizer(config["text_cfg"].get("context_length", 77)),
        scale=DEFAULT_SCALE if scale is None else float(scale.float().exp()),
        weights_sha256=sha256_of(source.path),
    )


def require_own_words(model: str) -> None:
    """Refuse models whose text tower or vocabulary is another package's, and would be fetched.

    Args:
        model: as for `build_text_tower`.

    Raises:
        BackendError: the model is unknown, or its text tower is not open_clip's.
    """
    name = model.partition("/")[0]
    text = model_config(name)["text_cfg"]
    foreign = text.get("hf_model_name") or text.get("hf_tokenizer_name")
    if foreign:
        raise BackendError(
            f"the text tower of open_clip:{name} is {foreign}; one with CLIP's own words was "
            "needed; use shards of another encoder, such as open_clip:ViT-B-16-quickgelu/openai"
        )


def _text_state(state: dict[str, Tensor]) -> dict[str, Tensor]:
    text = {key: value for key, value in state.items() if not key.startswith(_IMAGE_KEYS)}
    # Models with a configurable text tower keep it apart, CLIP's own lies beside the image tower.
    return {key.removeprefix("text."): value for key, value in text.items()}


def _text_network(config: dict[str, Any]) -> Any:
    ensure_torchvision()
    tower = importlib.import_module("open_clip.model")
    quick = config.get("quick_gelu", False)
    return tower._build_text_tower(config["embed_dim"], config["text_cfg"], quick)


def _tokenizer(context_length: int) -> Any:
    ensure_torchvision()
    return importlib.import_module("open_clip").SimpleTokenizer(context_length=context_length)
