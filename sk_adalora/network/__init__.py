"""The adapted encoder with its head: token ids -> outputs."""
