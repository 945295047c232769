import json
from decimal import Decimal
from typing import Any

import pytest

from orchestrator.errors import UsageError
from orchestrator.fit import GIB, Fits, Need, Needs, fit_notes, fits_of, holding, misfit_text
from orchestrator.report.fit import fit_rows, fits_json
from orchestrator.resources import Market, Offer

GPUS = {
    "g4dn.xlarge": (1, "T4", 16.0, "0.526"),
    "g6.xlarge": (1, "L4", 22888 / 1024, "0.8048"),
    "p4d.24xlarge": (8, "A100", 40.0, "21.957642"),
    "p4de.24xlarge": (8, "A100", 80.0, "27.44705"),
    "p5en.48xlarge": (8, "H200", 141.0, "63.296"),
}


def offer(name: str, zone: str = "a", **changes: Any) -> Offer:
    gpus, gpu, gib, usd = GPUS[name]
    return Offer(name, zone, f"subnet-{zone}", Market.ON_DEMAND, Decimal(changes.get("usd", usd)), gpus, gpu, gib)


def need(devices: int, gib: float, **kinds: tuple[bool, int | None, float]) -> Need:
    """An answer of `trainer capacity`, `A100_40` standing for A100-40."""
    gpus = [
        {"gpu": kind.replace("_", "-"), "holds": holds, "fewest": fewest, "epoch_seconds": seconds, "bound": "memory"}
        for kind, (holds, fewest, seconds) in kinds.items()
    ]
    told = {"devices": devices, "bytes_per_device": {"total": int(gib * GIB)}, "assumptions": ["as is"], "gpus": gpus}
    return Need.model_validate_json(json.dumps(told | {"collectives": []}))


ONE = need(1, 14.5, T4=(False, 2, 90.0), L4=(True, 1, 36.0), A100_40=(True, 1, 9.0), A100_80=(True, 1, 6.0))
EIGHT = need(8, 130.0, A100_40=(False, None, 2.0), A100_80=(True, 1, 1.0))
NEEDS = Needs({1: ONE, 8: EIGHT})


def fits(*offers: Offer, needs: Needs = NEEDS, epochs: int = 10) -> Fits:
    return fits_of(offers, needs, epochs=epochs)


def test_each_offer_is_held_against_the_answer_for_its_number_of_gpus():
    t4, l4, small, large = fits(*(offer(name) for name in GPUS if name != "p5en.48xlarge")).offers
    assert [one.holds for one in (t4, l4, small, large)] == [False, True, False, True]
    assert (l4.bytes_per_gpu, large.bytes_per_gpu) == (int(14.5 * GIB), 130 * GIB)
    assert (l4.epoch_seconds, l4.training_seconds) == (36.0, 360.0)
    assert (l4.epoch_usd, l4.training_usd) == (Decimal("0.008048"), Decimal("0.080480"))
    assert large.epoch_seconds == 1.0, "A100 of 80 GiB, told apart by its memory"


def test_several_machines_are_held_against_the_answer_for_all_their_gpus_at_the_price_of_all():
    small, large = offer("p4d.24xlarge"), offer("p4de.24xlarge")
    sixteen = need(16, 65.0, A100_40=(False, 32, 2.0), A100_80=(True, 16, 1.0))
    found = fits_of((small, large), Needs({16: sixteen}), epochs=10, nodes=2)
    assert [one.holds for one in found.offers] == [False, True]
    assert found.offers[1].training_usd == Decimal("0.152484"), "2 × 27.44705 / 3600 × 10 s, rounded up"
    assert "has 16 × A100 of 40.0 GiB in 2 machines" in misfit_text(found.offers[0])
    assert {one.text for one in found.smallest} == {"2 × p4de.24xlarge"}


def test_of_a_gpu_unknown_to_the_trainer_only_too_much_is_known_not_to_fit():
    (some,), (more,) = (fits(offer("p5en.48xlarge"), needs=Needs({8: need(8, gib)})).offers for gib in (130, 142))
    assert (some.holds, more.holds) == (None, False)
    assert (some.epoch_seconds, some.training_usd) == (None, None)


def test_types_too_small_are_left_out_and_named():
    told = fits(offer("g4dn.xlarge"), offer("g6.xlarge"))
    kept = holding([one.offer for one in told.offers], told, must_fit=True)
    assert [one.instance_type for one in kept] == ["g6.xlarge"]
    notes = fit_notes(told, must_fit=True, max_hours=Decimal(1), first="g6.xlarge")
    assert notes == [
        "left out: g4dn.xlarge would need 14.5 GiB usable on each GPU and has 1 × T4 of 16.0 GiB",
    ]


def test_where_no_type_is_left_the_refusal_says_what_is_needed_what_there_is_what_holds_it_and_the_way_around():
    offers = (offer("g4dn.xlarge"), offer("g4dn.xlarge", "b"))
    told = fits(*offers)
    with pytest.raises(UsageError) as refused:
        holding(offers, told, must_fit=True)
    said = str(refused.value)
    assert said.count("g4dn.xlarge would need 14.5 GiB usable on each GPU and has 1 × T4 of 16.0 GiB") == 1
    assert "g4dn.12xlarge, g6.xlarge, p4d.24xlarge, p4de.24xlarge;" in said
    assert "must_fit = false (--no-must-fit)" in said
    assert holding(offers, told, must_fit=False) == offers
    notes = fit_notes(told, must_fit=False, max_hours=Decimal(1), first="g4dn.xlarge")
    assert notes[0].startswith("may run out of memory: g4dn.xlarge")


def test_what_is_not_known_refuses_nothing_and_is_one_line():
    told = fits(offer("g4dn.xlarge"), needs=Needs(unknown="no JAX here"))
    assert holding([offer("g4dn.xlarge")], told, must_fit=True) == (offer("g4dn.xlarge"),)
    assert list(fit_rows(told)) == [("fit", "not known: no JAX here")]
    assert (fits_json(told)["unknown"], fits_json(told)["types"]) == ("no JAX here", [])


def test_the_smallest_types_carry_a_price_only_where_it_is_on_offer():
    told = fits(offer("g6.xlarge", usd="0.9"), offer("g6.xlarge", "b", usd="0.8"))
    assert [(one.name, one.gpus, one.usd_per_hour) for one in told.smallest] == [
        ("g4dn.12xlarge", 4, None),
        ("g6.xlarge", 1, Decimal("0.8")),
        ("p4d.24xlarge", 8, None),
        ("p4de.24xlarge", 8, None),
    ]


def test_a_training_longer_than_the_machine_lives_is_noted():
    told = fits(offer("g6.xlarge"), epochs=1000)
    (note,) = fit_notes(told, must_fit=True, max_hours=Decimal(1), first="g6.xlarge")
    assert note == "the training alone takes 10.0 h at least on g6.xlarge, yet the machine ends itself after 1 h"


def test_the_table_has_a_line_a_type_and_what_was_assumed_and_left_out():
    told = fits(offer("g6.xlarge", "b", usd="0.8"), offer("g6.xlarge", "c", usd="0.9"), offer("p5en.48xlarge"))
    lines = [line.split() for _, line in fit_rows(told)]
    assert ["g6.xlarge", "14.50", "22.4", "yes", "36.0", "s", "0.0080", "6", "min", "00", "s", "0.0800"] in lines
    assert ["p5en.48xlarge", "130.00", "141.0", "?", "?", "?", "?", "?"] in lines
    assert sum(line[0] == "g6.xlarge" for line in lines) == 1, "the cheapest offer of a type speaks for it"
    assert {label for label, _ in fit_rows(told)} == {"fit", "held by", "left out", "assumed", ""}
