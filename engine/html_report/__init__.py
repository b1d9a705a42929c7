"""Runs as pages for a browser: one file each, which asks no network, runs no script, and shows hostile text as text."""

from engine.html_report.comparison_page import comparison_page
from engine.html_report.page import write_page
from engine.html_report.report_page import report_page

__all__ = ["comparison_page", "report_page", "write_page"]
