"""Object stores: S3, Google Cloud Storage, Azure, and fsspec's `memory://`.

`_bucket` says what the library needs of a store, and decides whether a write has succeeded whose response was lost.
`_obstore` and `_memory` are the two implementations; `_open` chooses one by the scheme of a URL. `_upload` is a file object
that is uploaded while it is written.
"""
