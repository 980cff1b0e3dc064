"""Verifying data sets on disk: ``harness data check``."""

from harness.data.checking.check import check
from harness.data.checking.findings import CODES, Finding
from harness.data.checking.report import CardReport, Report, SplitReport

__all__ = ["CODES", "CardReport", "Finding", "Report", "SplitReport", "check"]
