"""Operations on two states or more: `_diff` with its `_statistics` and text, and `_merge`."""
