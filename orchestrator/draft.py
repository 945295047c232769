"""Everything that is decided before money is spent: network and data checked by the trainer, the cloud
surveyed, the upload listed, the plan made. Changes nothing anywhere.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from secrets import token_hex

from orchestrator.errors import UsageError
from orchestrator.events import Stage
from orchestrator.far_data import far_data, far_data_notes
from orchestrator.fit import Needs
from orchestrator.homing import CHECKPOINTS, held, refuse_other_training
from orchestrator.inputs import CapacityQuestions, Inputs, InputSummary, check_inputs, local_data, settled
from orchestrator.keeping import bucket_notes, folder_of_run
from orchestrator.kept import KeptMachine, refuse_if_slow
from orchestrator.manifest import build_manifest
from orchestrator.packaged import packaged, trainer_package
from orchestrator.plan import Plan, make_plan, new_run_id
from orchestrator.ports import CloudReader, Storage
from orchestrator.resources import InstanceType
from orchestrator.spec import RunSpec
from orchestrator.survey import survey
from orchestrator.telling import Telling


@dataclass(frozen=True, slots=True)
class Draft:
    """A plan and the inputs it was made for."""

    plan: Plan
    inputs: Inputs


def draft(
    spec: RunSpec,
    reader: CloudReader,
    *,
    storage: Storage,
    telling: Telling,
    unweighed: str = "",
    on: KeptMachine | None = None,
) -> Draft:
    """Plan `spec`, `on` a kept machine if one is given. What only the user can mend rises as `UsageError`. Where
    `unweighed` says why not, the trainer is not asked what the training needs.
    """
    spec, inputs = _checked(spec, telling)
    unweighed = unweighed or ("" if inputs.data is not None else "the data is not here")
    with (
        telling.stage(Stage.PLAN, "image, prices, quota, fit, files") as say,
        CapacityQuestions(inputs, batch_size=spec.settings.batch_size) as questions,
    ):

        def ask(types: Sequence[InstanceType]) -> None:
            if not unweighed:
                questions.ask(found.gpus * spec.nodes for found in types)

        if on is None:
            facts = survey(reader, spec, telling.clock, on_types=ask)
        else:
            spec = on.asked(spec, reader, telling.clock.now())
            facts = on.facts(reader, spec, telling.clock)
            ask(facts.instance_types)
        manifest = build_manifest(
            project=spec.project,
            trainer=trainer_package(),
            infra=packaged("infra"),
            data=inputs.data,
            output=spec.output,
        )
        run_id = new_run_id(spec.name, telling.clock.now(), token_hex(3))
        needs = Needs(unknown=unweighed) if unweighed else questions.needs()
        plan = make_plan(spec, facts, manifest=manifest, run_id=run_id, needs=needs)
        plan = _with_storage(plan, storage)
        if on is not None:
            refuse_if_slow(plan.fits, plan.spec)
        say(f"{len(plan.offers)} offers")
    return Draft(plan, inputs)


def _checked(spec: RunSpec, telling: Telling) -> tuple[RunSpec, Inputs]:
    """The spec with settings that the network gives, and what was read on this computer."""
    with telling.stage(Stage.CHECK, "network and data") as say:
        if spec.continue_from is not None and not held(spec.continue_from):
            raise UsageError(f"{spec.continue_from / CHECKPOINTS}: no checkpoint to go on from came home there")
        inputs = _inputs(spec)
        spec = settled(spec, inputs.summary)
        if spec.continue_from is not None:
            refuse_other_training(spec.continue_from, inputs.summary.model_dump() | spec.settings.model_dump())
        say(_counted(inputs.summary))
    return spec, inputs


def _with_storage(plan: Plan, storage: Storage) -> Plan:
    """The plan with what the machine itself puts into buckets and fetches, once they were looked at."""
    spec = plan.spec
    folder, data = folder_of_run(storage, spec, plan.run_id), far_data(storage, spec)
    notes = (
        *(bucket_notes(folder, region=spec.region) if folder else ()),
        *(far_data_notes(data, region=spec.region) if data else ()),
    )
    return replace(plan, kept_in=folder, far_data=data, notes=(*plan.notes, *notes))


def _counted(summary: InputSummary) -> str:
    if summary.samples is None or summary.features is None:
        return "the network; the data goes straight to the machine"
    return f"{summary.samples:,} samples × {summary.features:,} features"


def _inputs(spec: RunSpec) -> Inputs:
    if not spec.network.is_file():
        raise UsageError(f"{spec.network}: no such network file")
    if spec.skips_us:
        return check_inputs(spec.network, None, spec.settings)
    data = local_data(spec.data, sha256=spec.data_sha256, cache=spec.output / "data")
    if not Path(data).exists():
        raise UsageError(f"{data}: no such data file or folder")
    return check_inputs(spec.network, data, spec.settings)
