"""The fingerprint of an extraction: JSON values that decide what its shards hold."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from pipeline.extraction.config import ExtractConfig
from pipeline.manifests import Manifest, Video
from pipeline.prompts import PromptTables, prompts_for, prompts_sha256
from pipeline.shards import FORMAT_VERSION
from pipeline.shards.jpegs import frame_store


def fingerprint(
    config: ExtractConfig,
    manifest: Manifest,
    backends: Mapping[str, Any],
    user_prompts: PromptTables | None = None,
) -> dict[str, Any]:
    """JSON values that decide the shards' content; videos done under others count as not done.

    Which videos there are is not among them, so that a folder can grow. What is not used, such as
    stored views, is left out, so that shards without it keep the fingerprint they had before.

    Args:
        config: settings.
        manifest: the dataset.
        backends: fingerprints of ``decoder``, ``encoder`` and ``segmenter``.
        user_prompts: the user's prompts and the dataset's placeholders.

    Returns:
        The values.
    """
    views = [view.name for view in config.stored_views]
    has_masks = backends["segmenter"] is not None
    return {
        "format_version": FORMAT_VERSION,
        "manifest": {"name": manifest.name, "sha256": manifest.sha256},
        "decoder": backends["decoder"],
        "frames": {"count": config.frames, "rule": config.frame_rule},
        **(
            {"store": frame_store(config.frame_side)}
            if config.store == "frames"
            else {"view": {"geometry": config.geometry}, "encoder": backends["encoder"]}
        ),
        **({"views": views} if views else {}),
        "segmenter": backends["segmenter"],
        "prompts": _prompts(config, manifest, user_prompts) if has_masks else None,
    }


def _prompts(
    config: ExtractConfig, manifest: Manifest, tables: PromptTables | None
) -> dict[str, str]:
    """Hashes of the prompts of every train class, and of what single videos have beside them."""
    of_classes = (
        prompts_for(
            manifest,
            Video(video_id=name, path="", class_name=name, split="train"),
            user_table=tables,
            mode=config.prompt_mode,
        )
        for name in manifest.classes.get("train", ())
    )
    of_videos = json.dumps(asdict(tables or PromptTables()), sort_keys=True)
    return {
        "mode": config.prompt_mode,
        "classes_sha256": prompts_sha256(of_classes),
        "tables_sha256": hashlib.sha256(of_videos.encode()).hexdigest(),
    }
