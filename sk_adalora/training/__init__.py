"""A network and tokens -> a trained network: schedule, head, loop, callbacks."""
