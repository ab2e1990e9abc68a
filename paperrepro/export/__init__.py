"""To the iPhone: export to Core ML, executed and verified on any machine."""

from .coreml import ExportReport, export_coreml
from .mac import compare_on_mac
from .plan import plan
from .verify import VerificationReport, verify_coreml

__all__ = [
    "ExportReport",
    "VerificationReport",
    "compare_on_mac",
    "export_coreml",
    "plan",
    "verify_coreml",
]
