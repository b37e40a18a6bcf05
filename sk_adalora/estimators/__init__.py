"""The classifier and the regressor: what users fit."""
