"""Images with their labels, as tensors that a model takes."""
