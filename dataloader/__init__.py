"""From filelists to batches: pairing, augmentation, tri-masks, and the geometry of inference."""
