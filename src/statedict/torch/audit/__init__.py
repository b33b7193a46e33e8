"""`audit`: `_walk` goes through a model, `_attributes` looks at what is not registered, `_find` reports `_findings`."""
