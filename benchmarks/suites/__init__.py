"""The suites by name. Each module has `ABOUT`, a sentence, and `run(bench)`, which returns its figures."""

SUITES = ("load", "export", "quality", "size", "compaction", "reads", "http", "aggregate", "appends")
