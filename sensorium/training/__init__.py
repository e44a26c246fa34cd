"""Training: the trainer, its checkpoints and what runs around it. It knows no modality."""
