"""Post-training: distillation, preference optimisation (DPO), reinforcement (GRPO) and reward models."""
