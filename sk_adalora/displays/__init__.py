"""Pictures of ranks, budgets and histories."""
