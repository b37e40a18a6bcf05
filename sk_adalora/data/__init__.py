"""Rows of any kind of table -> texts; labels and numbers -> targets."""
