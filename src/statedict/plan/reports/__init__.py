"""What a load did, or why it was refused: the `_report` and its text; and what would help: calls that are planned
again (`_attempt`) before one of them is suggested (`_suggest`).
"""
