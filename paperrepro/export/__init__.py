"""To the iPhone: export to Core ML, executed and verified on any machine."""

from .coreml import ExportReport, export_coreml
from .mac import compare_on_mac
from .phone import beside_papers, draw_report, read_report
from .plan import plan
from .verify import VerificationReport, verify_coreml

__all__ = [
    "ExportReport",
    "VerificationReport",
    "beside_papers",
    "compare_on_mac",
    "draw_report",
    "export_coreml",
    "plan",
    "read_report",
    "verify_coreml",
]
