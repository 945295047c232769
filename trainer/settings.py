"""What a training run is asked for: `TrainSettings`, and `JobSpec`, the `spec.json` of a run
directory; and how data are split to measure with. Two runs with equal settings, data, network and mesh give the
same losses.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from trainer.errors import SettingsError


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TrainSettings(_Strict):
    """Settings of one training. Defaults of the optimizer part are those of DSSTNE's `train`
    (spec section 4.1); a network that states its own `Optimizer` overrides `None`s.
    """

    batch_size: Annotated[int, Field(ge=1)] | None = None
    """`None`: the network's own, else 256."""
    epochs: Annotated[int, Field(ge=0)] | None = None
    """0: the network as it begins. `None`: the network's own, else 10."""
    k: Annotated[int, Field(ge=1)] = 10
    """Recommendations per sample."""
    held_out: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Fraction of each sample's features hidden from training and used to measure."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 12134
    learning_rate: Annotated[float, Field(ge=0)] | None = None
    """`None`: the network's own, else 0.025."""
    l2: Annotated[float, Field(ge=0)] | None = None
    """Weight decay (`-lambda`). `None`: the network's own, else 0.0001."""
    l1: Annotated[float, Field(ge=0)] = 0.0
    momentum: Annotated[float, Field(ge=0, lt=1)] | None = None
    """`-mu`: momentum, beta1 or decay, by optimizer. `None`: the network's own, else 0.5."""
    momentum2: Annotated[float, Field(ge=0, lt=1)] | None = None
    """`-mu1`: beta2 of Adam. `None`: the network's own, else 0.999."""
    rate_interval: Annotated[int, Field(ge=0)] = 0
    """Epochs after which the learning rate is multiplied by `rate_factor`, again and again; 0: never."""
    rate_factor: Annotated[float, Field(ge=0)] = 1.0
    data_shards: Annotated[int, Field(ge=1)] | None = None
    """Size of mesh axis `data`; axis `model` takes the remaining devices. `None`: what passes least between devices."""
    report_every: Annotated[int, Field(ge=1)] = 1
    """Epochs between two reports."""
    tune_trials: Annotated[int, Field(ge=0)] = 0
    """Combinations of what the network leaves open that a job tries before it trains the best one; 0: none is open."""
    tune_minutes: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """After which none of them is begun."""
    min_rating: Annotated[float, Field(allow_inf_nan=False)] | None = None
    """A job leaves lower ratings out."""
    analog: bool = False
    """A job takes ratings as values, not as signs of interest."""
    half_life_days: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """A job halves values, which begin at 1 unless they are `analog`, for each so many days before the latest."""

    @classmethod
    def of_json(cls, text: str) -> "TrainSettings":
        """The settings of a JSON object; `SettingsError` where it is none, or names the first that is wrong."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise SettingsError(f"settings: {_first_problem(error)}") from error

    @classmethod
    def of(cls, **values: object) -> "TrainSettings":
        """The settings of these values; one outside its range raises `SettingsError` naming it."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise SettingsError(_first_problem(error)) from error


class SplitSettings(_Strict):
    """How data are split to measure with. What each protocol makes of it says `trainer.data.protocols`."""

    protocol: Literal["strong", "weak", "leave-one-out", "temporal", "given"] = "weak"
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 12134
    held_out: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Share that is hidden, to be found."""
    test_users: Annotated[float, Field(gt=0)] = 0.1
    """Samples to test with: a share of all if below 1, else how many."""
    validation_part: Annotated[float, Field(ge=0)] | None = None
    """As much for validation; 0: none. `None`: as the protocol has it."""
    least_features: Annotated[int, Field(ge=1)] = 5
    """Samples with fewer are left out."""
    last: bool = False
    """The latest feature is hidden, not a random one."""
    min_rating: float | None = None
    """Ratings below are left out."""

    @classmethod
    def of(cls, **values: object) -> "SplitSettings":
        """The settings of these values, `None` where there is none; one outside its range raises `SettingsError` naming
        it.
        """
        try:
            return cls.model_validate({name: value for name, value in values.items() if value is not None})
        except ValidationError as error:
            raise SettingsError(_first_problem(error)) from error


class JobSpec(_Strict):
    """`spec.json`: what the orchestrator asks of the trainer. Paths are relative to the run
    directory.
    """

    data: str
    """A ratings table, a folder of one, or a file in DSSTNE's text format."""
    network: str = "network.json"
    min_devices: Annotated[int, Field(ge=1)] = 1
    """Refuse to train when JAX sees fewer devices than this."""
    checkpoint_seconds: Annotated[float, Field(ge=0)] = 60.0
    """After an epoch a checkpoint is left if the last is so old: a machine that is lost costs about so much."""
    settings: TrainSettings = TrainSettings()

    @classmethod
    def read(cls, path: Path) -> "JobSpec":
        """Parse `path`; a wrong or unknown key raises `SettingsError` naming it."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except ValidationError as error:
            raise SettingsError(f"{path}: {_first_problem(error)}") from error


def _first_problem(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"]) or "$"
    return f"{where}: {first['msg']} (given: {first['input']!r})"
