"""A run at a glance, on a terminal: `View` draws a Status, a `Screen` keeps it drawn, a `Dashboard` is a Progress on a screen."""

from engine.views.dashboard.lines import news
from engine.views.dashboard.screen import Dashboard, Screen
from engine.views.dashboard.view import View

__all__ = ["Dashboard", "Screen", "View", "news"]
