"""Searches with Optuna: spaces, trials, studies, pruning."""
