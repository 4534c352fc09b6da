"""The fixed first step on cached tokens: centre, rotate to principal components, scale.

Shape letters: B clips, T frames, L grid cells, C token channels, P stem channels.
"""

import torch
from torch import Tensor, nn

from i2st_model.config import NetworkConfig


class Stem(nn.Module):
    """Tokens to about unit-variance principal components, by buffers that no gradient touches.

    Paper: our choice; it stands in for the trained backbone's last layer. Measured: centring is
    worth 2.1 points at 1-shot before any learning; whitening hurts, so one scale serves all
    components and their variances keep their ratios.
    """

    mean: Tensor
    components: Tensor
    fitted: Tensor

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("mean", torch.zeros(config.token_dim))
        self.register_buffer("components", torch.eye(config.token_dim, config.stem_dim))
        self.register_buffer("fitted", torch.zeros((), dtype=torch.bool))

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (..., C) float tokens to (..., P) float32."""
        # x R - m R, not (x - m) R: the large tensor is read once and never copied.
        return tokens.to(self.mean.dtype) @ self.components - self.mean @ self.components

    @torch.no_grad()
    def fit(self, sample: Tensor) -> None:
        """Set the buffers from tokens of the training split.

        Args:
            sample: (..., C) float. Training tokens; some ten thousand suffice.

        Raises:
            ValueError: the tokens have another width than the config, or are fewer than two.
        """
        rows = sample.reshape(-1, sample.shape[-1]).to("cpu", torch.float64)
        if rows.shape[1] != self.config.token_dim or len(rows) < 2:
            raise ValueError(
                f"stem sample has shape {tuple(sample.shape)}; two or more tokens of "
                f"{self.config.token_dim} channels are needed"
            )
        mean = rows.mean(dim=0)
        centred = rows - mean
        variance, vectors = torch.linalg.eigh(centred.T @ centred / len(rows))
        kept = variance.flip(0)[: self.config.stem_dim].clamp_min(0)
        basis = vectors.flip(1)[:, : self.config.stem_dim]
        basis = basis * _signs(basis)
        if self.config.scale:
            basis = basis * (self.config.scale / kept.mean().sqrt().clamp_min(1e-12))
        self.mean.copy_(mean if self.config.centre else torch.zeros_like(mean))
        self.components.copy_(basis)
        self.fitted.fill_(True)


def _signs(basis: Tensor) -> Tensor:
    # An eigenvector's sign is arbitrary and differs between LAPACK builds; make its largest entry
    # positive.
    largest = basis.abs().argmax(dim=0, keepdim=True)
    return basis.gather(0, largest).sign()
