"""Groups of settings that several sections share: listed as each section's own, and handed over as one dataclass."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import pytest

from sensorium.core.errors import UserError
from sensorium.core.settings import Settable, build, check, defaults


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shared:
    lr: float = 0.1
    steps: int = 3
    fixed: bool = True


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    batch: int = 8
    trainer: Annotated[Shared, Settable("lr", "steps")] = Shared(lr=0.5)


def test_a_group_s_settings_are_those_of_its_section() -> None:
    assert defaults(Recipe) == {"batch": 8, "lr": 0.5, "steps": 3}
    assert check(Recipe, {"steps": "4", "batch": "2"}, "recipe") == {"steps": 4, "batch": 2}
    assert build(Recipe, {"steps": "4"}, "recipe") == Recipe(trainer=Shared(lr=0.5, steps=4))
    assert build(Recipe, {}, "recipe") == Recipe()


@pytest.mark.parametrize("key", ["fixed", "trainer"])
def test_what_is_not_settable_is_no_setting(key: str) -> None:
    with pytest.raises(UserError, match=f"recipe: '{key}'"):
        check(Recipe, {key: 1}, "recipe")
