"""Kills the engine and compactions in the middle of their work, lets them run out of disk, and counts what that cost.

`subject` is what is tortured: processes that run the engine as `reflux run` does. `ledger` knows the truth, from the scripted server's side
and from what the engine acknowledged; `audit` compares the run directory with it. `moments` chooses when to strike, `campaign` strikes.
"""
