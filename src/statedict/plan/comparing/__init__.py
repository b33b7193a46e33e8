"""Operations on two or more states: `_diff` with its `_statistics`, and `_merge`."""
