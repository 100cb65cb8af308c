"""From cut-outs, photographs and filelists to batches, and the commands that make and check data sets."""
