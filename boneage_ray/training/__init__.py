"""Training: the step, the loop over epochs, and the driver that runs them on Ray."""
