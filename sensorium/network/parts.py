"""The modules of a network by column: stems, gist heads, generators and refiners, and what columns can do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn

from sensorium.core.errors import unknown
from sensorium.core.registry import name_of
from sensorium.generators import Generator
from sensorium.modalities import Modality
from sensorium.modalities._capabilities import Dialogue, Generable, Refinable, generable
from sensorium.network.encoding import GistHead
from sensorium.network.types import ColumnFacts, slug
from sensorium.nn.refiner import Refiner
from sensorium.nn.stem import Stem
from sensorium.trunks import Trunk


class ColumnParts(nn.Module):
    """Stems, gist heads, generators and refiners for a set of columns, and the trunk.

    Args:
        modalities, trunk, generators, width, gist, more: see ``Network``.

    Attributes:
        stem_key, generator_key: of each column the names of its stem and of its first generator; generator_keys: of all
            its generators, by the generators' names.
        refiners: of generated columns whose cells have more than their tokens say; none before training has ended.
    """

    def __init__(
        self,
        modalities: Mapping[str, Modality],
        trunk: Trunk,
        generators: Mapping[str, Generator],
        width: int,
        gist: int,
        more: Mapping[str, Sequence[Generator]] | None = None,
    ) -> None:
        super().__init__()
        self.modalities, self.columns, self.width = dict(modalities), list(modalities), width
        # The order in which modules are made decides their initial weights: see tests/golden.
        self.stem_key = {c: modality.shared() or slug(c, i) for i, (c, modality) in enumerate(modalities.items())}
        self.stems, self.heads = nn.ModuleDict(), nn.ModuleDict()
        for column, key in self.stem_key.items():
            if key not in self.stems:
                self.stems[key] = modalities[column].stem(width)
                if modalities[column].matched:
                    self.heads[key] = GistHead(width, gist)
        self.trunk = trunk
        self.generator_key = {c: modalities[c].shared() or slug(c, i) for i, c in enumerate(modalities)}
        self.generators = nn.ModuleDict({self.generator_key[c]: generator for c, generator in generators.items()})
        self.generator_keys = {c: {name_of(part): self.generator_key[c]} for c, part in generators.items()}
        for column, others in (more or {}).items():
            for generator in others:
                self.add_generator(column, generator)
        self.refiners = nn.ModuleDict()

    def timed(self, column: str) -> bool:
        """True where a column's vectors follow one another in time, as a sound's do."""
        modality = generable(self.modalities[column])
        return modality is not None and (tokens := modality.tokens()).timed and tokens.width > 0

    def ordered(self, column: str) -> bool:
        """True where a column's ids follow one another, as a text's do."""
        modality = generable(self.modalities[column])
        return modality is not None and (tokens := modality.tokens()).ordered and tokens.vocabulary > 0

    @property
    def asked_columns(self) -> list[str]:
        """Columns that can be asked."""
        return [column for column in self.columns if self.generator_key[column] in self.generators]

    @property
    def dialogue_columns(self) -> list[str]:
        """Columns of conversations."""
        return [column for column in self.columns if isinstance(self.modalities[column], Dialogue)]

    @property
    def generative_columns(self) -> list[str]:
        """Columns that are generated and not predicted: pictures, sounds, series."""
        return [c for c in self.asked_columns if self.generator(c).is_generative]

    def column_facts(self) -> ColumnFacts:
        """Facts about the columns, for who samples questions about them."""
        asked, generative = self.asked_columns, self.generative_columns
        predicted = [c for c in asked if c not in generative]
        short = [c for c in predicted if self.token_count(c) == 1]
        return ColumnFacts(
            columns=tuple(self.columns),
            matched=tuple(c for c in self.columns if self.modalities[c].matched),
            asked=tuple(asked),
            short=tuple(short),
            long=tuple(c for c in predicted if c not in short),
            generators={c: tuple(self.generator_keys[c]) for c in generative},
            dialogue=tuple(self.dialogue_columns),
            modality={c: name_of(modality) for c, modality in self.modalities.items()},
            language_model=self.trunk.is_language_model,
        )

    def token_count(self, column: str) -> int:
        """Number of tokens of an asked cell of a column."""
        return self.asked_modality(column).tokens().length

    def asked_modality(self, column: str) -> Generable:
        """Modality of an asked column."""
        modality = generable(self.modalities[column])
        assert modality is not None, f"column '{column}' can't be asked"
        return modality

    def dialogue_modality(self, column: str) -> Dialogue:
        """Modality of a column of conversations."""
        modality = self.modalities[column]
        assert isinstance(modality, Dialogue), f"column '{column}' holds no conversations"
        return modality

    def stem(self, column: str) -> Stem:
        """Stem of a column."""
        found = self.stems[self.stem_key[column]]
        assert isinstance(found, Stem)
        return found

    def generator(self, column: str, name: str | None = None) -> Generator:
        """Generator of a column: its first one, or the one of that name.

        Raises:
            UserError: this network has not learned it.
        """
        if name is not None and name not in self.generator_keys[column]:
            raise unknown(f"generator of '{column}' in this model:", name, self.generator_keys[column])
        found = self.generators[self.generator_key[column] if name is None else self.generator_keys[column][name]]
        assert isinstance(found, Generator)
        return found

    def add_generator(self, column: str, generator: Generator) -> None:
        """Add a generator of a column, in place of one of its name."""
        key = f"{self.generator_key[column]}_{name_of(generator)}"
        self.generator_keys[column][name_of(generator)], self.generators[key] = key, generator

    def add_refiner(self, column: str) -> Refiner | None:
        """Fresh refiner of a column's generated cells, used from now on wherever they are decoded; None where there is
        nothing to refine."""
        modality = self.modalities[column]
        if not isinstance(modality, Refinable):
            return None
        refiner = modality.make_refiner().to(next(self.parameters()).device)
        self.refiners[self.generator_key[column]] = modality.refiner = refiner
        return refiner

    def remove_refiner(self, column: str) -> None:
        """Remove a column's refiner."""
        self.refiners.pop(self.generator_key[column])
        modality = self.modalities[column]
        assert isinstance(modality, Refinable), f"column '{column}' has no refiner"
        modality.refiner = None
