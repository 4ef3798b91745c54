"""Conversion of Arrow tables, which the CSV and Parquet readers return, to rows."""

from typing import Any


def rows_of(table: Any) -> Any:
    """An Arrow table as a DataFrame, or as a list of strings if its only column is ``text``."""
    try:
        frame = table.to_pandas(date_as_object=False)
    except Exception:
        # The metadata of pandas may be invalid although the table itself is valid.
        frame = table.replace_schema_metadata().to_pandas(date_as_object=False)
    if list(frame.columns) == ["text"]:
        texts = frame["text"].tolist()
        if all(isinstance(text, str) for text in texts):
            return texts
    return frame
