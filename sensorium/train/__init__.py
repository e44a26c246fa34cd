"""Training: the loop and what is put on the network from outside. It knows no modality."""
