"""The plan, for people as aligned lines and for programs as one dictionary."""

from collections import Counter
from dataclasses import asdict
from typing import Any

from orchestrator.inputs import InputSummary
from orchestrator.money import IPV4_USD_PER_HOUR
from orchestrator.plan import Plan
from orchestrator.report.fit import fit_json, fit_rows, fits_json
from orchestrator.report.units import amount, bytes_text, gib_text
from orchestrator.resources import Manifest, Market, Offer

_NOBODY = "nobody: it is reached through Session Manager, SSH inside that"


def plan_text(plan: Plan, summary: InputSummary, *, with_files: bool = False) -> str:
    """What will be done, to what, at what price; the last line ends without a line feed."""
    first, *others = plan.offers
    spec = plan.spec
    rows = [
        ("image", f"{plan.image.image_id}  {plan.image.name}"),
        ("machine" if spec.nodes == 1 else "machines", _offer_text(first, spec.nodes)),
        *([("or", _others_text(others))] if others else []),
        ("price", f"{_price_text(first, spec.nodes)} USD per hour{_since(first)}"),
        (
            "worst case",
            f"{plan.worst_case_usd} USD: {spec.max_hours.normalize():f} h of the dearest offer, "
            f"{plan.volume_gib} GiB gp3, address {IPV4_USD_PER_HOUR} USD/h{_each(spec.nodes)}",
        ),
        *([("rights", f"of the instance profile {spec.instance_profile}")] if spec.instance_profile else []),
        *([("kept in", line) for line in [_kept_text(plan)] if line]),
        ("open to", _open_text(plan)),
        ("upload", f"{len(plan.manifest.files)} files, {bytes_text(plan.manifest.size)}"),
        *(("", line) for line in _groups(plan.manifest)),
        ("data", _data_text(plan, summary)),
        ("network", f"{spec.network.name}, {_parameters_text(summary)}"),
        *(("training" if place == 0 else "", line) for place, line in enumerate(_training(plan, summary))),
        *fit_rows(plan.fits),
        *(("note", note) for note in plan.notes),
    ]  # fmt: skip
    lines = [f"Plan {plan.run_id} in {spec.region}, account {plan.account.account_id}", ""]
    lines += [f"  {label:<11}{text}".rstrip() for label, text in rows]
    if with_files:
        lines += ["", *(f"  {file.size:>11,}  {file.destination}" for file in plan.manifest.files)]
    return "\n".join(lines)


def plan_json(plan: Plan, summary: InputSummary) -> dict[str, Any]:
    """The plan as plain values; every file of the upload is listed."""
    fits = {fit.offer: fit_json(fit) for fit in plan.fits.offers}
    return {
        "run_id": plan.run_id,
        "region": plan.spec.region,
        "account_id": plan.account.account_id,
        "image": {"id": plan.image.image_id, "name": plan.image.name},
        "offers": [_offer_json(offer) | {"fit": fits.get(offer)} for offer in plan.offers],
        "worst_case_usd": str(plan.worst_case_usd),
        "nodes": plan.spec.nodes,
        "max_hours": str(plan.spec.max_hours),
        "volume_gib": plan.volume_gib,
        "instance_profile": plan.spec.instance_profile,
        "kept_in": plan.kept_in.url if plan.kept_in else None,
        "open_to": [{"protocol": "tcp", "port": 22, "cidr": cidr} for cidr in (plan.ingress_cidr,) if cidr],
        "upload": {
            "bytes": plan.manifest.size,
            "files": [
                {"path": str(file.destination), "bytes": file.size, "sha256": file.sha256}
                for file in plan.manifest.files
            ],
        },
        "inputs": summary.model_dump(),
        "far_data": asdict(plan.far_data) if plan.far_data else None,
        "settings": plan.spec.settings.model_dump(),
        "fit": fits_json(plan.fits),
        "left_out": [_offer_json(one.offer) | {"reason": one.reason} for one in plan.left_out],
        "notes": list(plan.notes),
    }


def _kept_text(plan: Plan) -> str:
    if plan.kept_in is None:
        return ""
    return (
        f"{plan.kept_in.url}, by the machine, which then ends itself; "
        "the bucket is yours: what it costs is not counted, and nothing is deleted there"
    )


def _data_text(plan: Plan, summary: InputSummary) -> str:
    data = plan.far_data
    if data is None:
        samples, features, nnz = (amount(count or 0) for count in (summary.samples, summary.features, summary.nnz))
        return f"{samples} samples × {features} features, {nnz} interactions"
    seen = f"{bytes_text(data.size)}, ETag {data.etag}" if data.size is not None else "not looked at from here"
    verified = f"SHA-256 {data.sha256[:12]}…" if data.sha256 else "no SHA-256"
    return f"{data.url} ({seen}), fetched, verified ({verified}) and unpacked by the machine"


def _parameters_text(summary: InputSummary) -> str:
    return "as large as the data asks" if summary.parameters is None else f"{amount(summary.parameters)} parameters"


def _open_text(plan: Plan) -> str:
    others = ", and each other" if plan.spec.nodes > 1 else ""
    return f"TCP 22 from {plan.ingress_cidr}, nobody else{others}" if plan.ingress_cidr else f"{_NOBODY}{others}"


def _training(plan: Plan, summary: InputSummary) -> list[str]:
    settings, stopping = plan.spec.settings, summary.early_stopping
    at_most = "at most " if stopping else ""
    batch = settings.batch_size or "by the data"
    lines = [f"batch {batch}, {at_most}{settings.epochs} epochs, {settings.k} recommendations a sample"]
    if settings.tune_trials:
        limit = "" if settings.tune_minutes is None else f" in {settings.tune_minutes:g} minutes"
        lines.append(f"before that {settings.tune_trials} trials of what the network leaves open{limit}")
    if stopping is not None:
        again = "; then as many epochs anew, on all samples" if stopping.refit else ""
        lines.append(f"stops early by {stopping.metric}{again}")
    return lines


def _offer_text(offer: Offer, nodes: int) -> str:
    gpus = f"{offer.gpus} × {offer.gpu_name} {gib_text(offer.gpu_memory_gib)}"
    machines, each = (f"{nodes} × ", " each") if nodes > 1 else ("", "")
    return f"{machines}{offer.instance_type}, {gpus}{each}, {offer.zone}, {offer.market.value.replace('_', ' ')}"


def _price_text(offer: Offer, nodes: int) -> str:
    one = f"{offer.usd_per_hour.normalize():f}"
    return one if nodes == 1 else f"{nodes} × {one} = {(offer.usd_per_hour * nodes).normalize():f}"


def _each(nodes: int) -> str:
    return "; then the machine ends itself" if nodes == 1 else ", each; then the machines end themselves"


def _since(offer: Offer) -> str:
    """Of spot prices, which change, since when."""
    if offer.market is not Market.SPOT:
        return ""
    return f", since {offer.price_since:%Y-%m-%d %H:%M} UTC" if offer.price_since else ", since AWS does not tell when"


def _others_text(offers: list[Offer]) -> str:
    shown = ", ".join(_short_text(offer) for offer in offers[:3])
    more = f" and {len(offers) - 3} more" if len(offers) > 3 else ""
    return f"{shown}{more}, if AWS has none of the first"


def _short_text(offer: Offer) -> str:
    spot = f" (spot, {offer.usd_per_hour.normalize():f} USD)" if offer.market is Market.SPOT else ""
    return f"{offer.instance_type} in {offer.zone}{spot}"


def _offer_json(offer: Offer) -> dict[str, Any]:
    return {
        "instance_type": offer.instance_type,
        "zone": offer.zone,
        "market": offer.market.value,
        "usd_per_hour": str(offer.usd_per_hour),
        "price_since": offer.price_since.isoformat() if offer.price_since else None,
        "gpus": offer.gpus,
        "gpu": offer.gpu_name,
        "gpu_memory_gib": offer.gpu_memory_gib,
    }


def _groups(manifest: Manifest) -> list[str]:
    """One line for each folder two levels down, with its number of files and bytes."""
    files: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for file in manifest.files:
        parts = file.destination.parts
        group = "/".join(parts[:2]) + ("/" if len(parts) > 2 else "")
        files[group] += 1
        sizes[group] += file.size
    width = max((len(group) for group in files), default=0)
    return [
        f"{group:<{width}}  {files[group]:>4} file{'s' if files[group] > 1 else ' '}  {bytes_text(sizes[group]):>9}"
        for group in sorted(files)
    ]
