"""When a run stops: budgets, patience, and what further rounds can be expected to bring."""
