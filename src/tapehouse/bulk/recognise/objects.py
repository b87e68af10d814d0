"""How JSON lines are laid out: the names in their objects, from a sample of its bytes."""

from __future__ import annotations

from tapehouse.bulk.base import Dialect, LoadOptions
from tapehouse.bulk.formats.jsonlines import object_of, text_of
from tapehouse.bulk.recognise.dialect import Layout, Sample, decoded, encoding_of
from tapehouse.errors import UnreadableFile


def looks_like_json(sample: Sample) -> bool:
    """Whether a text begins as an object or array does, which no table does."""
    return sample.head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"{", b"[")


def layout_of_objects(sample: Sample, options: LoadOptions) -> Layout:
    """The names of all objects of the sample, in the order in which they appear, and their values as texts.

    `UnreadableFile` when the first line is not one object.
    """
    encoding, notes = encoding_of(sample.head, options.encoding)
    lines = decoded(sample.head, encoding).split("\n")
    if not sample.whole and len(lines) > 1:
        lines.pop()
    tail = decoded(sample.tail, encoding).split("\n")[1:] if encoding == "utf-8" else []
    records = [object_of(line.encode()) for line in (*lines, *tail) if line.strip()]
    if records[0] is None:
        raise UnreadableFile(
            "the text begins as JSON, but its first line is not one object: JSON lines have an object on each line "
            "(pandas: orient='records', lines=True; Polars: write_ndjson)",
            more=not sample.whole and len(lines) == 1,
        )
    found = [record for record in records if record is not None]
    names = list(dict.fromkeys(name for record in found for name in record))
    rows = [[text_of(record.get(name)) or "" for name in names] for record in found]
    return Layout(Dialect(encoding=encoding, width=len(names)), names, rows, notes)
