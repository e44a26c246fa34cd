"""Loss functions in plain torch: contrastive, preference (DPO), policy (GRPO) and chunked cross-entropy."""
