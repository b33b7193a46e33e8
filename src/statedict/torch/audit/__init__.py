"""`audit`: `_walk` surveys a model, `_attributes` finds what is not registered, `_find` reports everything (`_findings`)."""
