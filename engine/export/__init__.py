"""A run's rows as a dataset folder of the form that the Hugging Face hub expects: data files, and a card that says how they were made."""

from engine.export.dataset import Exported, Options, export

__all__ = ["Exported", "Options", "export"]
