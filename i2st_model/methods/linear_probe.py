"""Logistic regression fitted to the support of every episode.

Shape letters: B clips, E episodes, Q query clips, N way, K shot, M = N K support clips, T frames,
D embedding channels.
"""

import logging
from collections.abc import Mapping

import torch
from torch import Tensor

from i2st_model.matching import unit
from i2st_model.methods.centred import CentredMethod
from i2st_model.methods.clips import Clips
from pipeline.errors import ConfigError

logger = logging.getLogger(__name__)

TOLERANCE = 1e-11
"""Largest residual of the optimality conditions; predictions lie in [0, 1]."""
MAX_STEPS = 10_000
"""Of the solver; 40 to 100 are usual, weak regularisation takes more."""


class LinearProbe(CentredMethod):
    """Multinomial logistic regression on centred, length-one clip embeddings.

    Tian et al., "Rethinking few-shot image classification: a good embedding is all you need?",
    ECCV 2020, arXiv:2003.11539, on a frozen encoder: per episode, minimise the sum over support
    clips of the cross entropy plus ``regularisation / 2`` times the squared weights, bias free.
    scikit-learn's C is 1 / ``regularisation``; its default 1 scored 0.3 to 0.9 points less than the
    10 of here on JHMDB-21's train and val classes. Solved to convergence in float64; scores have no
    gradient, as nothing is trained.
    """

    name = "linear_probe"

    def __init__(self, *, centre: bool = True, regularisation: float = 0.1) -> None:
        super().__init__(centre=centre)
        if not regularisation > 0:
            raise ConfigError(
                f"regularisation={regularisation}; a number above 0 is needed; raise it"
            )
        self.regularisation = regularisation
        self.spec = self.name
        """What its warning calls it; another where it is part of a method."""
        self._warned = False

    def prepare(self, clips: Clips) -> dict[str, Tensor]:
        """Map (B, T, D) frame embeddings to ``clip`` (B, D) of length one."""
        return {"clip": unit(self.centred(clips.features).mean(dim=1))}

    @torch.no_grad()
    def score(self, support: Mapping[str, Tensor], query: Mapping[str, Tensor]) -> Tensor:
        """Score ``clip``, (E, N, K, D) and (E, Q, D): (E, Q, N) float, of mean zero over N."""
        N, K = support["clip"].shape[1:3]
        clips_EMD = support["clip"].flatten(1, 2).double()
        # With a free bias any origin gives the same fit; at the mean it splits from the weights.
        mean_E1D = clips_EMD.mean(dim=1, keepdim=True)
        centred_EMD = clips_EMD - mean_E1D
        gram_EMM = centred_EMD @ centred_EMD.transpose(1, 2)
        dual_EMN, bias_E1N, residual_E = fit_probe(gram_EMM, N, K, self.regularisation)
        self._warn_once(float(residual_E.max()))
        products_EQM = (query["clip"].double() - mean_E1D) @ centred_EMD.transpose(1, 2)
        return (products_EQM @ dual_EMN + bias_E1N).to(query["clip"].dtype)

    def _warn_once(self, residual: float) -> None:
        if residual <= TOLERANCE or self._warned:
            return
        self._warned = True
        logger.warning(
            "%s: an episode stopped after %d steps at a residual of %.1e; %.0e was "
            "needed, its scores are near the optimum alone; raise regularisation=%g, e.g. "
            "%s:regularisation=%g",
            self.spec,
            MAX_STEPS,
            residual,
            TOLERANCE,
            self.regularisation,
            self.spec,
            10 * self.regularisation,
        )


def fit_probe(
    gram: Tensor, way: int, shot: int, regularisation: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Fit one logistic regression per episode.

    Weights are ``centred^T dual``, as the optimum lies in the span of the support (representer
    theorem). The Hessian of the loss is never above that of Boehning 1992
    (doi:10.1007/BF00048682), ``(I - 11^T / N) / 2`` times the Gram matrix; steps by its inverse,
    with Nesterov's momentum, restarted where it points uphill (O'Donoghue & Candes 2015,
    arXiv:1204.3982). An episode stops by itself: no result depends on the episodes beside it.

    Args:
        gram: (E, M, M) float64. Products of the support clips minus their mean, class by class.
        way: N.
        shot: K, M = N K.
        regularisation: weight of half the squared weights, above 0.

    Returns:
        (E, M, N) dual coefficients and (E, 1, N) biases, float64, of mean zero over N; and (E,)
        largest residuals, above `TOLERANCE` where an episode stopped at `MAX_STEPS`.
    """
    E, M = gram.shape[:2]
    eye_MM = torch.eye(M, dtype=gram.dtype, device=gram.device)
    truth_MN = eye_MM[:way, :way].repeat_interleave(shot, dim=0)
    step_EMM = torch.linalg.inv(gram / 2 + regularisation * eye_MM)
    dual, bias = gram.new_zeros(E, M, way), gram.new_zeros(E, 1, way)
    ahead_dual, ahead_bias, age = dual, bias, gram.new_ones(E, 1, 1)
    for step in range(MAX_STEPS + 1):
        error = (gram @ ahead_dual + ahead_bias).softmax(dim=2) - truth_MN
        residual, bias_residual = error + regularisation * ahead_dual, error.sum(1, keepdim=True)
        largest = torch.maximum(_largest(residual), _largest(bias_residual))
        going = largest > TOLERANCE
        if step == MAX_STEPS or not going.any():
            break
        last_dual, last_bias = dual, bias
        dual = torch.where(going, ahead_dual - step_EMM @ residual, dual)
        bias = torch.where(going, ahead_bias - 2 / M * bias_residual, bias)
        moved_dual, moved_bias = dual - last_dual, bias - last_bias
        uphill = _sum(gram @ residual * moved_dual) + _sum(bias_residual * moved_bias) > 0
        momentum = torch.where(uphill, 0.0, age / (age + 3))
        age = torch.where(uphill, 1.0, age + 1)
        ahead_dual = torch.where(going, dual + momentum * moved_dual, ahead_dual)
        ahead_bias = torch.where(going, bias + momentum * moved_bias, ahead_bias)
    return ahead_dual, ahead_bias, largest.flatten()


def _largest(values: Tensor) -> Tensor:
    return values.abs().amax(dim=(1, 2), keepdim=True)


def _sum(values: Tensor) -> Tensor:
    return values.sum(dim=(1, 2), keepdim=True)
