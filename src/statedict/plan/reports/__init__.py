"""The result of a load: the `_report`; its text, and that of the error (`_report_text`); and suggestions: calls that are
planned again (`_attempt`) before they are suggested (`_suggest`).
"""
