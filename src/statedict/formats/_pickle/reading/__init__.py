"""Read pickles as inert data: nothing that they name is imported or called.

`_parse` runs the `_machine`, whose opcodes are in `_opcodes`, `_literals` and `_containers`. `_calls` decides what a
call of a named function makes: `_plain`, `_scalars`, `_arrays`, `_tensors` and `_compounds` are those it knows.
`_records` reads the usual tensor in one step, and `_record_columns` finds thousands of them ahead.
"""
