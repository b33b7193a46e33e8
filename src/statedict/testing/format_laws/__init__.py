"""The laws of file formats: on content, on damage and on cost. `_format_under_test` says what a subclass provides."""
