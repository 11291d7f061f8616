from .page import render_report as render_report
from .page import summary_table as summary_table
