"""Tables of one's own: read a file, search a network for its target, predict on new rows."""

from kregs.tables.columns import Column
from kregs.tables.prediction import predict_table
from kregs.tables.preprocessing import number_and_code_columns
from kregs.tables.runs import TableRun, tune_table
from kregs.tables.table import Table, read_table

__all__ = [
    "Column",
    "Table",
    "TableRun",
    "number_and_code_columns",
    "predict_table",
    "read_table",
    "tune_table",
]
