"""The pretrained model: found, checked, read, and shared between fits."""
