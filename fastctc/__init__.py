"""CTC loss, alignment and decoding for PyTorch: exact, deterministic and fast, on CPU and CUDA."""
