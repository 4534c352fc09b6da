"""Any number of views through an encoder, in batches of one size.

Shape letters: n views, S their side in pixels.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.encoders import FrameEncoder, FrameFeatures


@torch.inference_mode()
def encode_all(
    encoder: FrameEncoder, views: Tensor | NDArray[np.uint8], batch_size: int
) -> FrameFeatures:
    """Encode any number of views so that no frame's bytes depend on the frames beside it.

    Kernels are chosen by shape, and another kernel adds in another order; so every batch has the
    same shape, the last one filled up with copies of its last view whose features are dropped.

    Args:
        encoder: where the views go.
        views: (n, S, S, 3) uint8. RGB, n >= 1.
        batch_size: frames of one call to the encoder.

    Returns:
        Features of the n views, in their order.
    """
    views = torch.as_tensor(views)
    features = []
    for batch in views.split(batch_size):
        missing = 0 if encoder.frame_by_frame else batch_size - len(batch)
        padded = torch.cat([batch, batch[-1:].expand(missing, -1, -1, -1)]) if missing else batch
        tokens, embedding = encoder.encode(padded)
        features.append(FrameFeatures(tokens[: len(batch)], embedding[: len(batch)]))
    return FrameFeatures(
        torch.cat([part.tokens for part in features]),
        torch.cat([part.embedding for part in features]),
    )
