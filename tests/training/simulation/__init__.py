"""The manager's protocol on a simulated computer: a disk or store that fails, processes that are interrupted at any call.

`disk` is the disk, `store` the object store and `client` what reaches it, `process` the system calls, `computer` their
order, `calls` what puts them under the library; `world` is what a seed draws, `promises` what must be true,
`explore` runs many, `mutations` are mistakes that must be found.
"""
