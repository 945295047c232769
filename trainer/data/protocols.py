"""Evaluation protocols: what of a dataset is trained on, what is asked with and what is to be found. Each is exact: the
same data, settings and seed give the same split. Where data lie is unknown here.

A sample counts a feature once, and values are dropped. Samples without a feature to train on are not trained on, and
held-out rows of which nothing is known, or nothing wanted, are not asked. At the test, what was wanted in validation is
known, except under `strong`, where nobody is in both.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from trainer.data.split import HeldOut, answerable, hold_out, only, ranks, rows_of, some_rows, union
from trainer.errors import InputError, SettingsError
from trainer.settings import SplitSettings
from trainer.sparse import FeatureIndex, SparseDataset

HEEDED: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "strong": frozenset({"held_out", "test_users", "validation_part", "least_features", "min_rating"}),
        "weak": frozenset({"held_out", "validation_part", "min_rating"}),
        "leave-one-out": frozenset({"validation_part", "last", "min_rating"}),
        "temporal": frozenset({"held_out", "validation_part", "min_rating"}),
        "given": frozenset({"validation_part", "min_rating"}),
    }
)
"""The settings that each protocol has a use for, besides its seed."""
_USUAL_PART = 0.1

_Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Split:
    """What a recommender is trained on and measured with. All datasets are of one width and one feature index."""

    protocol: str
    seed: int
    options: Mapping[str, float | bool | None]
    """The settings that the protocol heeded."""
    training: SparseDataset
    validation: HeldOut | None
    test: HeldOut
    features: FeatureIndex

    def rejoined(self) -> SparseDataset | None:
        """What is trained on together with what is wanted in validation, where that was taken from the same samples;
        `None` where there is no validation, or it has samples of its own.
        """
        if self.validation is None or self.protocol == "strong":
            return None
        names = self.training.sample_names
        known, wanted = self.validation.known.sample_names, self.validation.wanted
        if names is None or known is None:
            return None
        place = {name: row for row, name in enumerate(names)}
        rows = np.array([place[name] for name in known], np.int64)
        lengths = np.zeros(self.training.samples, np.int64)
        lengths[rows] = np.diff(wanted.indptr)
        order = np.argsort(np.repeat(rows, np.diff(wanted.indptr)), kind="stable")
        indptr = np.concatenate([[0], np.cumsum(lengths)])
        return union(self.training, replace(wanted, indptr=indptr, indices=wanted.indices[order]))


@dataclass(frozen=True, slots=True)
class Parts:
    """Rows of training, and the features of as many or other rows for validation and test, before a `Split`."""

    training: SparseDataset
    validation: HeldOut | None
    test: HeldOut


def strong(whole: SparseDataset, settings: SplitSettings) -> Parts:
    """Strong generalisation (Liang et al., Variational autoencoders for collaborative filtering, WWW 2018): samples
    held out are not trained on.

    Samples with fewer than `least_features` are dropped. Of the others `test_users` and `validation_part`, 10 % each
    unless told otherwise, are drawn; features that none of the rest has are dropped from them, then `held_out` of what
    a sample has left, rounded down, is wanted, and the rest of it known.
    """
    whole = some_rows(whole, np.diff(whole.indptr) >= settings.least_features)
    test = _number(settings.test_users, whole.samples)
    part = _USUAL_PART if settings.validation_part is None else settings.validation_part
    validation = _number(part, whole.samples) if part else 0
    if test + validation >= whole.samples:
        raise SettingsError(
            f"test_users: {test} samples for test and {validation} for validation leave none of {whole.samples} with "
            f"at least {settings.least_features} features to train on"
        )
    place = np.empty(whole.samples, np.int64)
    place[np.random.default_rng(settings.seed).permutation(whole.samples)] = np.arange(whole.samples)
    training = some_rows(whole, place >= test + validation)

    def folded(chosen: _Flags, stream: int) -> HeldOut:
        rows = _trained(some_rows(whole, chosen), training)
        return answerable(*hold_out(rows, fraction=settings.held_out, seed=(settings.seed, stream)))

    asked = folded((place >= test) & (place < test + validation), 1) if validation else None
    return Parts(training, asked, folded(place < test, 2))


def weak(whole: SparseDataset, settings: SplitSettings) -> Parts:
    """Weak generalisation: of every sample `held_out` of its features, rounded down but at least one of five, are
    wanted at the test; of what is left `validation_part`, 10 % unless told otherwise, rounded likewise, is kept from
    training for validation.
    """
    left, wanted = hold_out(whole, fraction=settings.held_out, seed=settings.seed)
    part = _USUAL_PART if settings.validation_part is None else settings.validation_part
    return _with_validation(left, answerable(left, wanted), part, settings)


def leave_one_out(
    whole: SparseDataset, settings: SplitSettings, timestamps: npt.NDArray[np.float64] | None = None
) -> Parts:
    """Of every sample of two features and more one is wanted at the test: a random one, or by `timestamps` [nnz] the
    last (of those that came at once the one stored last). Of samples with three and more another, or the one before,
    is wanted in validation, unless `validation_part` is 0.
    """
    if timestamps is None:
        rank = ranks(whole, np.random.default_rng(settings.seed).random(whole.nnz))
    else:
        rank = ranks(whole, -np.arange(whole.nnz), -timestamps)
    lengths = np.diff(whole.indptr)[rows_of(whole)]
    for_test = (rank == 0) & (lengths >= 2)
    for_validation = (rank == 1) & (lengths >= 3)
    if settings.validation_part == 0:
        return _by_flags(whole, ~for_test, None, for_test)
    return _by_flags(whole, ~for_test & ~for_validation, for_validation, for_test)


def temporal(whole: SparseDataset, settings: SplitSettings, timestamps: npt.NDArray[np.float64]) -> Parts:
    """A global cut in time: the latest `held_out` of all features, by their `timestamps` [nnz], are for the test, as
    large a part as `validation_part` (10 %) before them for validation, and what came earlier is trained on. Features
    that come at the very moment of a cut all lie after it. What is not trained on is dropped from what is known and
    wanted; samples with nothing before the first cut are not asked.
    """
    part = _USUAL_PART if settings.validation_part is None else settings.validation_part
    if settings.held_out + part >= 1:
        raise SettingsError(f"validation_part: {part:g} and held_out {settings.held_out:g} leave nothing to train on")
    ordered = np.sort(timestamps)
    first_cut, cut = (
        ordered[min(int((1 - settings.held_out - before) * len(ordered)), len(ordered) - 1)] for before in (part, 0.0)
    )
    for_training = timestamps < first_cut
    is_trained = np.bincount(whole.indices[for_training], minlength=whole.width)[whole.indices] > 0
    for_test = (timestamps >= cut) & is_trained
    for_validation = (timestamps >= first_cut) & (timestamps < cut) & is_trained
    return _by_flags(whole, for_training, for_validation if part else None, for_test)


def given(
    training: SparseDataset, validation: SparseDataset | None, test: SparseDataset, settings: SplitSettings
) -> Parts:
    """A split that others made: `test`, and `validation` where there is one, hold what is wanted, row by row of
    `training`; a feature that its sample has for training is not wanted again. Without `validation` as much as
    `validation_part` of each sample's training features, by default none, is taken from it as `weak` does.
    """
    if validation is None:
        asked = answerable(training, _without(test, training))
        return _with_validation(training, asked, settings.validation_part or 0.0, settings)
    if settings.validation_part is not None:
        raise SettingsError("validation_part: there is a file for validation already; leave one of both out")
    known = distinct(union(training, validation))[0]
    return Parts(
        training,
        answerable(training, _without(validation, training)),
        answerable(known, _without(test, known)),
    )


def distinct(dataset: SparseDataset) -> tuple[SparseDataset, npt.NDArray[np.int64]]:
    """The dataset with each feature of a sample once, the first time, and without values; and the places [nnz left]
    that those had.
    """
    pairs = rows_of(dataset) * dataset.width + dataset.indices
    first = np.sort(np.unique(pairs, return_index=True)[1])
    kept = np.zeros(dataset.nnz, bool)
    kept[first] = True
    return replace(only(replace(dataset, values=None), kept), name="samples"), first


def as_split(parts: Parts, features: FeatureIndex, settings: SplitSettings) -> Split:
    """The split of these parts, whose features `features` names. `InputError` if nobody can be trained on or asked."""
    if parts.training.nnz == 0:
        raise InputError(f"protocol {settings.protocol} leaves nothing to train on; there are too few data for it")
    for what, held_out in (("test", parts.test), ("validation", parts.validation)):
        if held_out is not None and held_out.known.samples == 0:
            raise InputError(f"protocol {settings.protocol} leaves no sample for {what}; there are too few data for it")
    training = some_rows(parts.training, np.diff(parts.training.indptr) > 0)
    heeded = settings.model_dump(include=set(HEEDED[settings.protocol]))
    return Split(settings.protocol, settings.seed, heeded, training, parts.validation, parts.test, features)


def numbered_as_trained(split: Split) -> Split:
    """The split with features numbered as they first appear in training, then in validation and test; those that
    appear nowhere are dropped. Who reads the training part alone numbers what it has alike.
    """
    held_out = [part for one in (split.validation, split.test) if one for part in (one.known, one.wanted)]
    everything = np.concatenate([split.training.indices, *(part.indices for part in held_out)])
    seen, first = np.unique(everything, return_index=True)
    seen = seen[np.argsort(first)]
    number = np.zeros(split.training.width, np.uint32)
    number[seen] = np.arange(len(seen))
    names = {position: name for name, position in split.features.ids.items()}
    features = FeatureIndex({names[old]: new for new, old in enumerate(seen.tolist())})

    def renumbered(part: SparseDataset) -> SparseDataset:
        return replace(part, width=features.width, indices=number[part.indices], features=features)

    def both(one: HeldOut) -> HeldOut:
        return HeldOut(renumbered(one.known), renumbered(one.wanted))

    return replace(
        split,
        training=renumbered(split.training),
        validation=None if split.validation is None else both(split.validation),
        test=both(split.test),
        features=features,
    )


def _number(asked: float, samples: int) -> int:
    if asked >= 1:
        if asked != int(asked):
            raise SettingsError(f"test_users, validation_part: {asked:g} is neither a share nor a number of samples")
        return int(asked)
    return max(int(asked * samples), 1)


def _with_validation(left: SparseDataset, test: HeldOut, part: float, settings: SplitSettings) -> Parts:
    if part >= 1:
        raise SettingsError(f"validation_part: {part:g} is no share of a sample's features; it must be below 1")
    if part == 0:
        return Parts(left, None, test)
    training, wanted = hold_out(left, fraction=part, seed=(settings.seed, 1))
    return Parts(training, answerable(training, wanted), test)


def _by_flags(whole: SparseDataset, for_training: _Flags, for_validation: _Flags | None, for_test: _Flags) -> Parts:
    """Parts by exclusive flags [nnz]. Samples without anything for training are not asked."""
    training = only(whole, for_training)
    trained_on = np.diff(training.indptr) > 0
    asked, known = None, training
    if for_validation is not None:
        asked = answerable(training, only(whole, for_validation))
        known = only(whole, for_training | for_validation)
    wanted = only(whole, for_test)
    return Parts(training, asked, answerable(some_rows(known, trained_on), some_rows(wanted, trained_on)))


def _trained(rows: SparseDataset, training: SparseDataset) -> SparseDataset:
    """Of `rows` the features that training has at all."""
    return only(rows, np.bincount(training.indices, minlength=rows.width)[rows.indices] > 0)


def _without(rows: SparseDataset, others: SparseDataset) -> SparseDataset:
    """Of `rows` what the same row of `others` does not have."""
    pairs, gone = (rows_of(one) * one.width + one.indices for one in (rows, others))
    return only(rows, ~np.isin(pairs, gone))
