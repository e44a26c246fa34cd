"""The network: one module in which stems, trunk, generators and heads meet, and the batches it takes."""
