"""Reading tables in every format, as people and as pandas write them."""

from __future__ import annotations

from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from nulltta.errors import NullTTAError
from nulltta.runs.table import read

JSONL = """\ufeff{"id": "007", "prompt": "a \\"cat\\", red", "seed": 7, "inner_steps": [5, 25], "checked": true}

{"prompt": "5", "learning_rate": 0.1, "annealing": "auto"}
"""
CSV = """\ufeffid,prompt,seed,inner_steps,checked,learning_rate,annealing
007,"a ""cat"", red",7,5 25,True,,

,5,,,,0.1,auto
"""
FIRST = {"id": "007", "prompt": 'a "cat", red', "seed": 7, "inner_steps": [5, 25], "checked": True}
SECOND = {"prompt": "5", "learning_rate": 0.1, "annealing": "auto"}


def test_the_three_formats_are_read_alike(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(JSONL, encoding="utf-8")
    (tmp_path / "rows.CSV").write_text(CSV, encoding="utf-8")
    parquet.write_table(pyarrow.Table.from_pylist([FIRST, {**dict.fromkeys(FIRST), **SECOND}]), tmp_path / "r.parquet")
    _add_column(tmp_path / "r.parquet", {"learning_rate": [None, 0.1], "annealing": [None, "auto"]})
    for name in ("rows.jsonl", "rows.CSV", "r.parquet"):
        rows = list(read(tmp_path / name))
        assert [(row.number, row.cells, row.fault) for row in rows] == [(1, FIRST, ""), (2, SECOND, "")], name


def test_what_pandas_writes_for_a_missing_number_is_missing(tmp_path: Path) -> None:
    table = pyarrow.table({"prompt": ["a", "b"], "seed": pyarrow.array([3.0, float("nan")])})
    parquet.write_table(table, tmp_path / "r.parquet")
    assert [row.cells for row in read(tmp_path / "r.parquet")] == [{"prompt": "a", "seed": 3.0}, {"prompt": "b"}]


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("{'prompt': 'a'}", "it is not JSON: Expecting property name"),
        ('{"prompt": "a"', "it is not JSON: Expecting ',' delimiter"),
        ('["a"]', "it is not a JSON object"),
        ('{"seed": 1, "prompt": "a", "seed": 2}', "it names a column twice"),
        ("[" * 100_000, "it is not JSON"),
    ],
)
def test_a_malformed_line_is_a_row_with_a_fault(line: str, fault: str, tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_text(f'{line}\n{{"prompt": "b"}}\n')
    bad, good = read(tmp_path / "r.jsonl")
    assert bad.fault.startswith(fault)
    assert bad.cells == {}
    assert good.cells == {"prompt": "b"}


def test_a_csv_line_of_another_length_has_a_fault(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text("prompt,seed\na, b,3\nc,4\nd\n")
    assert [row.fault.split(":")[0] for row in read(tmp_path / "r.csv")] == [
        "it has 3 cells for 2 columns", "", "it has 1 cells for 2 columns",
    ]  # fmt: skip


FILES = {
    "none.jsonl": (None, "No such file"),
    "empty.jsonl": (b"\n\n", "has no rows"),
    "headings.csv": (b"prompt,seed\n", "has no rows"),
    "bytes.jsonl": (b'{"prompt": "\xff"}\n', "it is not UTF-8 text"),
    "twice.csv": (b"prompt,prompt\na,b\n", "names a column twice"),
    "quote.csv": (b'prompt\n"a\n', "unexpected end of data"),
    "cut.parquet": (b"PAR1 and no more", "cannot read"),
    "rows.txt": (b"a\n", "give a .jsonl, .csv, .parquet file"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_not_a_table_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    content, says = FILES[name]
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(NullTTAError) as caught:
        list(read(tmp_path / name))
    assert says in str(caught.value)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def _add_column(path: Path, columns: dict[str, list[object]]) -> None:
    table = parquet.read_table(path)
    for name, values in columns.items():
        if name not in table.column_names:
            table = table.append_column(name, [values])
    parquet.write_table(table, path)
