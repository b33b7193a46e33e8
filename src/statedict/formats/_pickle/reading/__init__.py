"""Read pickles as inert data: nothing that they name is imported or called.

`_parse` runs the `_machine`, whose opcodes are in `_opcodes`, `_literals` and `_containers`. `_calls` decides what a
call of a named function makes: `_plain`, `_scalars`, `_arrays`, `_tensors` and `_compounds` are those it knows.
`_fast` and `_stretch` read the usual tensor, one or thousands at a time.
"""
