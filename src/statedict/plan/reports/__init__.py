"""The result of a load: the `_report`, its text, the text of the error, and suggestions: calls that are planned again
(`_attempt`) before they are suggested (`_suggest`).
"""
