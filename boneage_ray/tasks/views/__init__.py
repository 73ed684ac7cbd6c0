"""Self-supervised pretraining: two views of one radiograph agree. No labels, and no predictions."""
