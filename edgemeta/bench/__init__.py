"""What measures and is no part of a run: this machine, PyTorch beside it, rounds over loopback, experiments."""
