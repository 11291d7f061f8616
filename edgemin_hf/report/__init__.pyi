from .card import render_card as render_card
from .page import render_report as render_report
from .page import summary_table as summary_table
