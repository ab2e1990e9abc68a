"""To the iPhone: export to Core ML, executed and verified on any machine."""

from .coreml import ExportReport, export_coreml
from .executorch import export_executorch
from .mac import compare_on_mac
from .network import calibrate
from .onnx import FileReport, export_onnx
from .phone import beside_papers, draw_report, read_report
from .plan import plan
from .verify import VerificationReport, verify_coreml

__all__ = [
    "ExportReport",
    "FileReport",
    "VerificationReport",
    "calibrate",
    "beside_papers",
    "compare_on_mac",
    "draw_report",
    "export_coreml",
    "export_executorch",
    "export_onnx",
    "plan",
    "read_report",
    "verify_coreml",
]
