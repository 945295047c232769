"""The run directory, where the two programs meet: what the orchestrator puts into it, and what the trainer leaves."""

import json
from collections.abc import Mapping

from orchestrator.far_data import errand
from orchestrator.keeping import orders
from orchestrator.plan import Plan

ARTIFACTS = (
    "recs",
    "gl.nc",
    "features_input",
    "features_output",
    "features_attributes",
    "samples_input",
    "titles.json",
    "trials.jsonl",
    "trials.txt",
    "best.json",
    "metrics.jsonl",
    "log.txt",
)
"""What a good run brings home."""
CHECKPOINTS = "checkpoints.tar"
"""What a stopped one may bring besides, to go on from."""
FETCHED = (*ARTIFACTS, CHECKPOINTS)


def job_files(plan: Plan, *, gpus: int) -> Mapping[str, bytes]:
    """The trainer's side of the contract: `run/spec.json` and `run/network.json`; and its errands to buckets."""
    job = {
        "data": plan.far_data.url if plan.far_data else f"../data/{_data_name(plan)}",
        "network": "network.json",
        "min_devices": max(1, gpus),
        "checkpoint_seconds": plan.spec.checkpoint_seconds,
        "settings": plan.spec.settings.model_dump(exclude_none=True),
    }
    kept_in, data = plan.kept_in, plan.far_data
    return {
        "run/spec.json": json.dumps(job, indent=1).encode(),
        "run/network.json": plan.spec.network.read_bytes(),
        **({"run/bucket.json": orders(kept_in, names=ARTIFACTS, checkpoints=CHECKPOINTS)} if kept_in else {}),
        **({"run/data.json": errand(data)} if data else {}),
    }


def _data_name(plan: Plan) -> str:
    """Name of the one file or folder under `data/`."""
    (name,) = {file.destination.parts[1] for file in plan.manifest.files if file.destination.parts[0] == "data"}
    return name
