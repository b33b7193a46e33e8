"""Operations that several processes (ranks) do together: `_vote` decides whether all have succeeded, `_joint` makes one vote
of one load, and `_checksums` verifies a file of which each rank reads a part.
"""
