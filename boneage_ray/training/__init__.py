"""Training a recipe: the step, the loop over epochs, checkpoints, and the driver on Ray."""
