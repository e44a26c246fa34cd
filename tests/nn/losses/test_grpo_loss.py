"""The losses of preferences and of answers in groups are those that TRL computes of equal inputs."""

from __future__ import annotations

import types
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch

from sensorium.nn.losses.dpo import preferred, rewarded
from sensorium.nn.losses.grpo import advantages, policy


@pytest.fixture(scope="module")
def trl() -> Any:
    import trl.trainer.dpo_trainer as dpo
    import trl.trainer.grpo_trainer as grpo
    import trl.trainer.reward_trainer as reward

    return types.SimpleNamespace(dpo=dpo.DPOTrainer, grpo=grpo.GRPOTrainer, reward=reward.RewardTrainer)


def said(seed: int, answers: int = 6, longest: int = 5) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Log-probabilities [answers, longest] now and before, and which tokens are there."""
    generator = torch.Generator().manual_seed(seed)
    now, before = (-torch.rand(answers, longest, generator=generator) * 3 for _ in range(2))
    lengths = torch.randint(1, longest + 1, (answers,), generator=generator)
    return now, before, (torch.arange(longest) < lengths.unsqueeze(1)).float()


@pytest.mark.slow  # to import TRL takes as long as most tests together
@pytest.mark.parametrize("loss", ["dpo", "ipo"])
@pytest.mark.parametrize("beta", [0.1, 0.5])
def test_preferences_cost_what_they_cost_in_trl(trl: Any, loss: Any, beta: float) -> None:
    now, before, mask = said(1)
    own = MagicMock(
        aux_loss_enabled=False,
        ld_alpha=None,
        precompute_ref_logps=True,
        f_divergence_type="reverse_kl",
        beta=beta,
        loss_types=["sigmoid" if loss == "dpo" else loss],
        loss_weights=[1.0],
        label_smoothing=0.0,
        use_weighting=False,
        args=MagicMock(rpo_alpha=None),
    )
    own.accelerator.gather_for_metrics = own.accelerator.gather = lambda value: value
    whole = torch.cat([torch.zeros(6, 1), mask], 1)  # the first token is the question's
    reference = (before * mask).sum(1)
    logs = now * mask
    model = MagicMock(
        return_value=types.SimpleNamespace(
            log_probs=logs,
            loss=torch.zeros(()),
            mean_logits=torch.zeros(6, 5),
            is_top1=torch.zeros(6, 5, dtype=torch.bool),
            entropy=torch.zeros(6, 5),
            token_accuracy=None,
        )
    )
    found = trl.dpo._compute_loss(
        own,
        model,
        {
            "input_ids": torch.zeros(6, 6, dtype=torch.long),
            "attention_mask": torch.ones(6, 6),
            "completion_mask": whole,
            "ref_chosen_logps": reference[:3],
            "ref_rejected_logps": reference[3:],
        },
        False,
    )
    counts = mask.sum(1)
    mine, theirs = (logs.sum(1), reference) if loss == "dpo" else (logs.sum(1) / counts, reference / counts)
    assert preferred(mine[:3], mine[3:], theirs[:3], theirs[3:], beta=beta, loss=loss).mean().item() == pytest.approx(
        float(found), abs=1e-6
    )


@pytest.mark.slow  # to import TRL takes as long as most tests together
def test_scores_cost_what_they_cost_in_trl(trl: Any) -> None:
    scores = torch.randn(8, 1, generator=torch.Generator().manual_seed(2))
    own = MagicMock(args=MagicMock(center_rewards_coefficient=None))
    own.accelerator.gather_for_metrics = own.accelerator.gather = lambda value: value
    own._metrics, own._tp_size, own._total_train_tokens = MagicMock(), 1, 0
    found = trl.reward.compute_loss(
        own, MagicMock(return_value=types.SimpleNamespace(logits=scores)), {"attention_mask": torch.ones(8, 3)}
    )
    assert rewarded(scores[:4, 0], scores[4:, 0]).mean().item() == pytest.approx(float(found), abs=1e-6)


@pytest.mark.slow  # to import TRL takes as long as most tests together
@pytest.mark.parametrize("mean", ["grpo", "bnpo", "dr_grpo"])
@pytest.mark.parametrize("beta", [0.0, 0.04])
def test_groups_cost_what_they_cost_in_trl_and_so_do_their_gradients(trl: Any, mean: Any, beta: float) -> None:
    now, before, mask = said(3)
    better = torch.tensor([1.0, -0.5, 0.0, 2.0, -1.0, 0.3])
    leaf = now.clone().requires_grad_(True)
    own = MagicMock(
        aux_loss_enabled=False,
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=None,
        importance_sampling_level="token",
        beta=beta,
        loss_type=mean,
        epsilon_low=0.2,
        epsilon_high=0.2,
        use_vllm=False,
        max_completion_length=5,
        current_gradient_accumulation_steps=1,
        _entropy_bonus_enabled=False,
        args=MagicMock(delta=None, use_bias_correction_kl=False),
    )
    own._get_per_token_logps_and_entropies = lambda *given, **named: (leaf, torch.zeros(6, 5), None)
    own.accelerator.gather = lambda value: value
    ids = torch.zeros(6, 5, dtype=torch.long)
    found = trl.grpo._compute_loss(
        own,
        MagicMock(),
        {
            "prompt_ids": ids,
            "prompt_mask": ids,
            "completion_ids": ids,
            "completion_mask": mask,
            "advantages": better,
            "ref_per_token_logps": before,
        },
    )
    found.backward()
    mine = now.clone().requires_grad_(True)
    row = mask.nonzero()[:, 0]
    loss = policy(mine[mask.bool()], before[mask.bool()], row, better, beta=beta, mean=mean, longest=5)
    loss.backward()
    assert loss.item() == pytest.approx(found.item(), abs=1e-6) and torch.allclose(mine.grad, leaf.grad, atol=1e-6)
    assert torch.equal(mine.grad[~mask.bool()], torch.zeros(int((mask == 0).sum())))


def test_what_is_better_than_its_group_is_made_likelier() -> None:
    rewards = torch.tensor([[1.0, 0.0, 0.0, 1.0], [0.5, 0.5, 0.5, 0.5]])
    better = advantages(rewards)
    assert torch.allclose(better[0], torch.tensor([0.8659, -0.8659, -0.8659, 0.8659]), atol=1e-3) and torch.equal(
        better[1], torch.zeros(4)
    )  # nothing is learned where all are as good
    assert torch.allclose(advantages(rewards, scaled=False)[0], torch.tensor([0.5, -0.5, -0.5, 0.5]))
    now = torch.zeros(4, requires_grad=True)
    policy(now, None, torch.arange(4), better[0]).backward()
    assert (now.grad.sign() == -better[0].sign()).all()
