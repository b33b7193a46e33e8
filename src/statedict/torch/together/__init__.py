"""Operations that several processes (ranks) do together: `_vote` decides whether all have succeeded, over `_mail`; `_joint`
makes one vote of one load, `_checksums` verifies a file of which each rank reads a part, and `_connections` gives saves a
process group of their own (`_connect`). `_within` has the time limits.
"""
