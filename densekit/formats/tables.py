"""Arrow tables, in which CSV and Parquet are read, as the rows that users get."""

from typing import Any


def rows_of(table: Any) -> Any:
    """An Arrow table as a DataFrame, or as a list of strings where its only column is ``text``."""
    try:
        frame = table.to_pandas(date_as_object=False)
    except Exception:
        # What pandas noted of its own frame may be wrong although the table is sound.
        frame = table.replace_schema_metadata().to_pandas(date_as_object=False)
    if list(frame.columns) == ["text"]:
        texts = frame["text"].tolist()
        if all(isinstance(text, str) for text in texts):
            return texts
    return frame
