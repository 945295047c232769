"""DSSTNE's CDL (spec 4.6): the JSON file that tells `encoder` what to do. Errors name the JSON path."""

from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from trainer.jsontree import Members, Node, read_json
from trainer.network_names import OPTIMIZERS
from trainer.network_types import OptimizerName

_KEYS = ["Version", "Network", "Data", "Command", "RandomSeed", "TrainingParameters"]
_TRAINING_KEYS = [
    "Epochs",
    "Alpha",
    "AlphaInterval",
    "AlphaMultiplier",
    "mu",
    "lambda",
    "CheckpointInterval",
    "CheckpointName",
    "Optimizer",
    "Results",
    "MiniBatch",
    "ShuffleIndices",
]
_NO_OPTIMIZER = "CDL::Load_JSON: Invalid TrainingParameter Optimizer: {value}"
_SEED = 12134


class Command(Enum):
    """What is to be done."""

    TRAIN = "Train"
    PREDICT = "Predict"
    VALIDATE = "Validate"


@dataclass(frozen=True, slots=True)
class Cdl:
    """A CDL file, every default explicit."""

    network: Path
    """Definition (JSON) to train or validate, network file (NetCDF) to predict."""
    data: tuple[Path, ...]
    command: Command
    seed: int = _SEED
    epochs: int = 1
    alpha: float = 0.1
    alpha_interval: int = 0
    """Epochs after which `alpha` is multiplied by `alpha_multiplier`; 0: never."""
    alpha_multiplier: float = 0.5
    mu: float = 0.9
    decay: float = 0.001
    """`lambda`, the L2 weight decay."""
    checkpoint_interval: int = 1
    checkpoint_name: str = "check"
    optimizer: OptimizerName | None = None
    """`None`: as the network says, which is SGD unless it has an `Optimizer`."""
    results: Path = Path("network.nc")
    batch_size: int = 1024
    shuffle: bool | None = None
    """`None`: as the network says."""


def read_cdl(path: Path) -> Cdl:
    """The CDL in a file; anything wrong with it raises `NetworkError`. `Data` may be a list of files, and `MiniBatch`
    and `ShuffleIndices` are taken, as DSSTNE's text promises and its program does not.
    """
    root = read_json(path)
    members = root.members(_KEYS, unknown="*** CDL::Load_JSON: Unknown keyword:  {key}")
    command = _command(root, members)
    data = members.get("Data")
    if data is None or not data.items():
        raise root.fail("CDL::Load_JSON: Data source file is required to be set")
    parameters = members.get("TrainingParameters") or Node({}, f"{root.path}.TrainingParameters", root.file)
    training = parameters.members(_TRAINING_KEYS, unknown="CDL::Load_JSON: Invalid TrainingParameter: {key}")
    if command is Command.TRAIN and training.get("Epochs") is None:
        raise parameters.fail("CDL::Load_JSON: Mode set to Training, requires number of epochs to be set")
    shuffle, optimizer = training.get("ShuffleIndices"), training.get("Optimizer")
    return Cdl(
        network=Path(members.text("Network", "")),
        data=tuple(Path(one.text()) for one in data.items()),
        command=command,
        seed=int(members.number("RandomSeed", _SEED, low=0)),
        epochs=_whole(training, "Epochs", 1, low=1),
        alpha=training.number("Alpha", 0.1, low=1e-30),
        alpha_interval=_whole(training, "AlphaInterval", 0, low=0),
        alpha_multiplier=training.number("AlphaMultiplier", 0.5, low=0.0),
        mu=training.number("mu", 0.9, low=0.0, high=0.999999),
        decay=training.number("lambda", 0.001, low=0.0),
        checkpoint_interval=_whole(training, "CheckpointInterval", 1, low=1),
        checkpoint_name=training.text("CheckpointName", "check"),
        optimizer=None if optimizer is None else optimizer.choice(OPTIMIZERS, _NO_OPTIMIZER),
        results=Path(training.text("Results", "network.nc")),
        batch_size=_whole(training, "MiniBatch", 1024, low=1),
        shuffle=None if shuffle is None else shuffle.flag(),
    )


def _command(root: Node, members: Members) -> Command:
    for name in ("Network", "Command"):
        if members.get(name) is None:
            wanted = "is required to be set" if name == "Network" else "is required"
            raise root.fail(f"CDL::Load_JSON: {name} {wanted}, none found")
    return members.choice(
        "Command", {one.value: one for one in Command}, Command.TRAIN, unknown="unknown Command: {value}"
    )


def _whole(members: Members, name: str, default: int, *, low: int) -> int:
    node = members.get(name)
    return default if node is None else node.integer(low)
