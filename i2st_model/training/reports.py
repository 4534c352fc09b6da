"""What a training run tells its caller while it runs and at its end."""

from dataclasses import dataclass
from pathlib import Path

from i2st_model.training.config import Selection


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainProgress:
    """What `train` tells its caller of every logged step, and before what may take longer."""

    step: int
    num_steps: int
    episodes: int
    """Seen so far."""
    loss: float | None = None
    accuracy: float | None = None
    """Percent, on the step's own episodes."""
    val_accuracy: float | None = None
    """Percent; None at steps without a look."""
    notes: tuple[str, ...] = ()
    """Sentences the user should see; once, before the first step."""
    under_way: str = ""
    """What is done before the next step and may take minutes where an encoder runs; empty where
    nothing but steps is."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainReport:
    """What came of a run."""

    run_folder: Path
    checkpoint: Path
    num_steps: int
    selected: Selection
    step: int
    """Of the weights in the checkpoint."""
    val_accuracy: float | None
    """Percent, of those weights; None where nothing was selected."""
    train_classes: tuple[str, ...]
    notes: tuple[str, ...]
    resumed_at: int | None
    """Step a resumed run went on from."""
    seconds: float
    """Of this call."""
