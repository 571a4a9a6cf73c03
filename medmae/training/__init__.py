"""The training core: one loop for every method, on one processor, one GPU, many GPUs or many nodes."""
