"""Read pickles as inert data: nothing that they name is imported or called.

`_parse` runs the `_machine`, whose opcodes are in `_opcodes`, `_literals` and `_containers`. `_calls` decides what
calling a global produces, with the constructors in `_plain`, `_scalars`, `_arrays`, `_tensors` and `_compounds`.
`_records` reads an ordinary tensor in one step, and `_record_columns` finds thousands of them ahead.
"""
