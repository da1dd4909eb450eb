"""Quantization while training: what the forward pass sees is what the integer kernel will see."""
