"""Old names of settings are taken, and their new names told."""

from __future__ import annotations

import pytest

from sensorium.core.errors import SensoriumWarning, UserError
from sensorium.core.renamed_settings import KEYS, METHODS, renamed_arguments, with_current_names
from sensorium.core.settings import parse, sections
from sensorium.model import Model


def test_old_names_are_taken_with_a_warning_that_says_the_new_one() -> None:
    with pytest.warns(SensoriumWarning, match="train.decay is called train.weight_decay now"):
        assert parse(["train.decay=0.1", "train.batch=8"]) == {"train": {"weight_decay": "0.1", "batch": "8"}}
    with pytest.warns(SensoriumWarning, match="sample.alone is called questions.single_column now"):
        assert sections({"sample": {"alone": 0.5}}) == {"questions": {"single_column": 0.5}}

    with pytest.warns(SensoriumWarning, match="generator.flow.begun is called generator.flow.prefix_share now"):
        assert parse(["generator.flow.begun=0.1"]) == {"generator": {"flow": {"prefix_share": "0.1"}}}


def test_a_setting_given_by_both_names_is_refused() -> None:
    with pytest.warns(SensoriumWarning), pytest.raises(UserError, match="given twice"):
        parse(["data.same=key", "data.entity_key=key"])


def test_a_saved_model_s_old_names_are_read_without_a_word() -> None:
    assert with_current_names({"data": {"same": "key"}}, quiet=True) == {"data": {"entity_key": "key"}}


def test_every_new_name_is_a_setting() -> None:
    from sensorium.core.settings import schema
    from sensorium.data.settings import DataSettings
    from sensorium.training.questions import QuestionSampler
    from sensorium.training.table_trainer import TableTrainerSettings

    for section, part in (("data", DataSettings), ("questions", QuestionSampler), ("train", TableTrainerSettings)):
        assert set(KEYS[section].values()) <= set(schema(part)) and not set(KEYS[section]) & set(schema(part))


def test_old_arguments_are_taken_with_a_warning() -> None:
    @renamed_arguments(same="entity_key")
    def evaluate(*, entity_key: str) -> str:
        return entity_key

    with pytest.warns(SensoriumWarning, match="same= is called entity_key= now"):
        assert evaluate(same="key") == "key"  # type: ignore[call-arg]
    assert evaluate(entity_key="key") == "key"


def test_a_method_answers_to_its_old_name() -> None:
    for old, new in METHODS.items():
        assert hasattr(Model, new)
        model = Model.__new__(Model)
        with pytest.warns(UserWarning, match=f"{old} is called {new} now"):
            assert getattr(model, old) == getattr(model, new)
    with pytest.raises(AttributeError, match="'Model' object has no attribute 'nothing'"):
        Model.__new__(Model).nothing  # noqa: B018
