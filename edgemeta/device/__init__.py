"""The device: its loop, its calls, its state and limits, and the model that is its own."""
