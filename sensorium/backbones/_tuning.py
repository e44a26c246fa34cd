"""Fine-tuning of a pretrained model: none, low-rank updates, its biases, its last layers, all of it, or a learned
prompt."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import nn

from sensorium.core.errors import UserError

HOW = re.compile(r"(frozen|lora|dora|rslora|bias|full|last|prompt):?(\d*)")
PROMPT = 16
"""Default length of a learned prompt of a language model."""


@dataclasses.dataclass(frozen=True)
class Tuning:
    """Fine-tuning method of a pretrained model.

    Args:
        tune: frozen, lora, dora, rslora, bias, last:N (of its layers, and what comes after them), full, or, of a
            language model, prompt:N (so many learned tokens before all; Lester et al. 2021, arXiv 2104.08691).
        rank, alpha: of LoRA (Hu et al. 2021, arXiv 2106.09685); alpha 0: twice the rank.
        dora: split each update in direction and size (arXiv 2402.09353), as ``tune=dora``.
        rslora: scale by the root of the rank (arXiv 2312.03732), as ``tune=rslora``.
        targets: layers with updates, as ``q_proj,v_proj``; empty: all linear ones but the head, or, where there is
            none, all 1 × 1 convolutions.
        rate: learning rate of what is tuned, relative to ``train.lr``; 0: as suits ``tune``.
        where: the settings' beginning, for errors: ``trunk`` or ``column.NAME``.

    Raises:
        UserError: ``tune`` isn't known.
    """

    tune: str = "frozen"
    rank: int = 16
    alpha: int = 0
    dora: bool = False
    rslora: bool = False
    targets: str = ""
    rate: float = 0.0
    where: str = "trunk"

    RATES: ClassVar[dict[str, float]] = {"lora": 0.2, "bias": 0.2, "last": 0.02, "full": 0.01, "prompt": 1.0}
    """Default learning rates of what is tuned, relative to the other parts', which are trained from scratch."""

    def __post_init__(self) -> None:
        found = HOW.fullmatch(self.tune)
        numbered = found is not None and (bool(found[2]) == (found[1] == "last") or found[1] == "prompt")
        if (
            found is None
            or not numbered
            or found[2].strip("0") == "" != found[2]
            or (found[1] == "prompt" and self.where.startswith("column"))
        ):
            raise UserError(
                f"{self.where}.tune={self.tune} isn't known. Possible: frozen, lora, dora, rslora, bias, last:N, "
                f"full{'' if self.where.startswith('column') else ', prompt:N'}."
            )

    @property
    def kind(self) -> str:
        """Method: frozen, lora, bias, last, full or prompt."""
        kind = self.tune.partition(":")[0]
        return "lora" if kind in ("dora", "rslora") else kind

    @property
    def tokens(self) -> int:
        """Length of the learned prompt; 0 without one."""
        return int(self.tune.partition(":")[2] or PROMPT) if self.kind == "prompt" else 0

    @property
    def relative(self) -> float:
        """Learning rate, relative to the other parts'."""
        return self.rate or self.RATES.get(self.kind, 0.0)

    def of(self, model: nn.Module, head: nn.Module | None = None) -> nn.Module:
        """The model, with gradients required by the parameters to be trained; ``head`` stays frozen, unless ``full``
        trains it.

        Raises:
            UserError: PEFT isn't installed, or it has no such layers.
        """
        model.requires_grad_(False)
        match self.kind:
            case "lora":
                return self.lora(model, head)
            case "bias":
                for name, parameter in model.named_parameters():
                    parameter.requires_grad_(name.endswith("bias") or parameter.ndim == 1)
            case "last":
                own = set() if head is None else {id(p) for p in head.parameters()}
                for parameter in last(model, int(self.tune.partition(":")[2]), self.where):
                    parameter.requires_grad_(id(parameter) not in own)
            case "full":
                model.requires_grad_(True)
        return model

    def lora(self, model: nn.Module, head: nn.Module | None) -> nn.Module:
        """The model with low-rank updates, by PEFT."""
        try:
            from peft import LoraConfig, inject_adapter_in_model
        except ModuleNotFoundError as error:
            raise UserError(
                f"{self.where}.tune=lora needs the package '{error.name}'. Install it with: pip install "
                "'sensorium[backbones]'"
            ) from error
        linear = sorted(
            {
                name.rpartition(".")[2]
                for name, part in model.named_modules()
                if isinstance(part, nn.Linear) and part is not head
            }
        )
        points = sorted(
            name
            for name, part in model.named_modules()
            if isinstance(part, nn.Conv2d) and part.kernel_size == (1, 1) and part.groups == 1
        )
        wanted = [target.strip() for target in self.targets.split(",") if target.strip()]
        possible = linear or sorted({name.rpartition(".")[2] for name in points})
        lost = [target for target in wanted if target not in possible]
        if lost:
            raise UserError(
                f"{self.where}.targets={self.targets}: the model has no layer '{lost[0]}' of such a kind. Possible: "
                f"{', '.join(possible)}."
            )
        chosen = (
            wanted or linear if linear else [name for name in points if not wanted or name.rpartition(".")[2] in wanted]
        )
        if not chosen:
            raise UserError(
                f"{self.where}.tune=lora: the model has neither linear layers nor 1 × 1 convolutions. Choose "
                f"{self.where}.tune=last:1, bias or full."
            )
        task: dict[str, Any] = {} if head is None else {"task_type": "CAUSAL_LM"}
        return inject_adapter_in_model(
            LoraConfig(
                r=self.rank,
                lora_alpha=self.alpha or 2 * self.rank,
                use_dora=self.dora or self.tune == "dora",
                use_rslora=self.rslora or self.tune == "rslora",
                target_modules=chosen,
                **task,
            ),
            model,
        )


def last(model: nn.Module, count: int, where: str) -> list[nn.Parameter]:
    """Parameters of a model's last layers and of what comes after them.

    Its layers are the list of modules that holds most of its parameters.

    Raises:
        UserError: it has no such list.
    """
    name, layers = layers_of(model)
    if not len(layers):
        raise UserError(f"{where}.tune=last:{count}: the model has no list of layers. Choose lora, bias or full.")
    first = f"{name}.{max(0, len(layers) - count)}."
    named = list(model.named_parameters())
    at = next(number for number, (key, _) in enumerate(named) if key.startswith(first))
    return [parameter for _, parameter in named[at:]]


def layers_of(model: nn.Module) -> tuple[str, nn.ModuleList | nn.Sequential]:
    """Layers of a model, by name: the list of modules that holds most of its parameters; an empty one where it has
    none."""
    lists = {
        name: part
        for name, part in model.named_modules()
        if isinstance(part, nn.ModuleList | nn.Sequential) and len(part) > 1
    }
    return max(
        lists.items(),
        key=lambda one: (sum(p.numel() for p in one[1].parameters()), one[0].count(".")),
        default=("", nn.ModuleList()),
    )


def everywhere(settings: Mapping[str, Any], tune: str) -> dict[str, Any]:
    """Settings with this fine-tuning of each pretrained model that has no other.

    Raises:
        UserError: nothing uses one, or ``tune`` isn't known.
    """
    Tuning(tune, where="pretrained")
    columns = {
        name: {"tune": tune, **given} if isinstance(given, Mapping) and given.get("backbone") else given
        for name, given in settings.get("column", {}).items()
    }
    trunk = settings.get("trunk", {})
    speaks = (trunk.get("") if isinstance(trunk, Mapping) else trunk) == "causal_lm"
    if not speaks and columns == dict(settings.get("column", {})):
        raise UserError(
            f"--tune {tune}: nothing stands on a pretrained model. Give one, as column.photo.backbone=FOLDER, or "
            "trunk=causal_lm trunk.path=FOLDER."
        )
    return {**settings, "column": columns, **({"trunk": {"tune": tune, **trunk}} if speaks else {})}
